"""Words that a teacher's tokenizer cuts, and the static encoder in which they are whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from ragindex.encoder.checkpoint import Counting, Pooling
from ragindex.encoder.head import Head
from ragindex.errors import TrainingError
from ragindex.train.own_words import cut_words, with_words
from ragindex.train.static_model import StaticModel, bags_of

PIECES = ["[UNK]", "the", "key", "##s", "rot", "##ate", "##or", "a", "4", "##2"]


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def test_words_that_are_cut_most_frequent_first() -> None:
    texts = ["Rotate the keys, rotate!"] * 3 + ["rotator", "the key " * 9, "rotor rotor", "42 42 42 42", "xyz " * 9]
    # rotator and rotor are too rare, key is whole, 42 is no word, xyz cannot be written in pieces.
    assert cut_words(texts, tokenizer(), most=9) == ["rotate", "keys"]
    assert cut_words(texts, tokenizer(), most=1) == ["rotate"]
    assert cut_words(texts, tokenizer(), most=0) == []


def test_they_are_whole_and_the_rest_stays_as_it_was() -> None:
    before, after = tokenizer(), with_words(tokenizer(), ["rotate", "keys"])
    assert after.encode("Rotate the keys").tokens == ["rotate", "the", "keys"]
    assert after.encode("rotor key 42").ids == before.encode("rotor key 42").ids
    assert after.token_to_id("rotate") == len(PIECES)
    assert after.token_to_id("keys") == len(PIECES) + 1
    assert with_words(before, []) is before


def test_only_wordpiece_can_be_given_words() -> None:
    other = Tokenizer(models.BPE())
    assert cut_words(["key"], other, most=0) == []
    with pytest.raises(TrainingError, match="only with a teacher whose tokenizer is WordPiece"):
        cut_words(["key"], other, most=5)


@pytest.mark.parametrize("asking", [False, True])
@pytest.mark.parametrize("counting", [Counting(), Counting(4.0), Counting(None, 2.0), Counting(4.0, 2.0)], ids=str)
def test_bags_are_pooled_as_texts_are(counting: Counting, asking: bool) -> None:
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((7, 4)).astype(np.float32)
    weights = generator.uniform(0.1, 1, 7).astype(np.float32)
    model = StaticModel(torch.from_numpy(rows), torch.from_numpy(weights), 3, asking=asking)
    query = generator.standard_normal((4, 4)).astype(np.float32)
    if model.query is not None:
        model.query.data.copy_(torch.from_numpy(query))
    texts = [np.array([3, 3, 3, 1, 6, 3]), np.array([0]), np.array([5, 2, 5, 5])]
    bags = bags_of(texts, counting=counting)
    head = Head(weights, model.head.weight.detach().numpy(), model.head.bias.detach().numpy(), {"query": query})
    pooling: Pooling = "mean-query" if asking else "mean"
    unit = rows / np.sqrt((rows**2).mean(1, keepdims=True))
    expected = [head.apply(unit[ids], ids, np.ones(len(ids), dtype=bool), pooling, counting=counting) for ids in texts]
    with torch.no_grad():
        np.testing.assert_allclose(model(bags).numpy(), expected, atol=1e-5)
        turned = bags.take(torch.tensor([2, 0]))
        np.testing.assert_allclose(model(turned).numpy(), [expected[2], expected[0]], atol=1e-5)
    assert len(turned) == 2

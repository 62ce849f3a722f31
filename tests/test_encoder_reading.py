"""A static encoder reads texts while a user waits: vectors, tokens, and late interaction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import SENTENCES, tiny_encoder

from ragindex.encoder import Encoder, Prompts
from ragindex.errors import EncoderError

QUERY = "Rotate the signing kettle, rotate"


def _static(directory: Path, **options: object) -> Encoder:
    return Encoder.load(tiny_encoder(directory, layers=0, **options))


@pytest.mark.parametrize("pooling", ["mean", "weighted-mean"])
@pytest.mark.parametrize("head", [True, False])
def test_late_interaction_is_the_weighted_mean_of_the_best_cosines(tmp_path: Path, pooling: str, head: bool) -> None:
    """Held against the formula, with vectors of the tokens from the encoder itself."""
    encoder = _static(tmp_path / "encoder", pooling=pooling, head=head, specials=False)
    assert encoder.reader is not None
    texts = [*SENTENCES, "kettle", "water"]  # a single word has nothing near to most of the query's
    read = encoder.reader.read(texts)
    np.testing.assert_allclose(read.vectors, encoder.encode_documents(texts), atol=1e-6)
    forward = encoder._loaded("numpy")
    prompts = encoder.config.prompts

    def ids(text: str) -> np.ndarray:
        return encoder.tokenizer.tokenize([prompts.for_query(text)])[0].ids

    asked = ids(QUERY)
    rows = forward.rows(np.arange(len(forward._rows)))
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    weights = np.ones(len(asked))
    if head:
        weights *= forward._head.token_weights[asked]
    if pooling == "weighted-mean":
        weights *= np.arange(1, len(asked) + 1)
    weights *= np.linalg.norm(forward.rows(asked), axis=1)
    answered = encoder.reader.interact(QUERY, read.tokens)
    for tokens, sentence, told in zip(read.tokens, texts, answered, strict=True):
        assert set(tokens.tolist()) == set(ids(sentence).tolist())
        best = np.array([max(max(float(rows[one] @ rows[other]), 0) for other in ids(sentence)) for one in asked])
        assert told == pytest.approx(weights @ best / weights.sum(), abs=1e-5)
        assert 0 <= told <= 1


def test_a_text_answers_a_word_by_another_one() -> None:
    reader = Encoder.load("bundled").reader
    assert reader is not None
    texts = ["The doctor was asked twice.", "The physician was asked twice.", "The gardener was asked twice."]
    same, alike, other = reader.interact("doctor", reader.read(texts).tokens)
    assert same == pytest.approx(1, abs=1e-5)
    assert same > alike > other + 0.1
    (title,) = reader.interact("doctor", reader.read(["Twice."], titles=["The doctor"]).tokens)
    assert title == pytest.approx(same)
    both, one = reader.interact("doctor in a garden", reader.read(["a doctor, a garden", "doctor doctor"]).tokens)
    assert both > one + 0.1
    assert reader.interact("doctor", []).shape == (0,)


def test_what_a_query_stands_in_is_no_part_of_it(tmp_path: Path) -> None:
    """Neither special tokens nor an instruction are looked for."""
    prompts = Prompts(instructed_query="Instruct: {instruction}\nQuery: {text}", instruction="kettle")
    plain, told = _static(tmp_path / "plain"), _static(tmp_path / "told", prompts=prompts)
    assert plain.reader is not None
    assert told.reader is not None
    tokens = plain.reader.read(SENTENCES).tokens
    np.testing.assert_allclose(told.reader.interact(QUERY, tokens), plain.reader.interact(QUERY, tokens), atol=1e-6)


def test_too_long_a_text_or_query_is_one_clear_error(tmp_path: Path) -> None:
    encoder = _static(tmp_path / "encoder", max_tokens=64)
    assert encoder.reader is not None
    with pytest.raises(EncoderError, match="64"):
        encoder.reader.read(["kettle " * 100])
    with pytest.raises(EncoderError, match="64"):
        encoder.reader.interact("kettle " * 100, encoder.reader.read(SENTENCES[:1]).tokens)


def test_vectors_are_cut_as_the_encoder_s_are(tmp_path: Path) -> None:
    directory = tiny_encoder(tmp_path / "encoder", layers=0)
    encoder = Encoder.load(directory, dimensions=8)
    assert encoder.reader is not None
    found = encoder.reader.read(SENTENCES, titles=["title"] * len(SENTENCES)).vectors
    np.testing.assert_allclose(found, encoder.encode_documents(SENTENCES, titles=["title"] * len(SENTENCES)), atol=1e-6)
    assert found.shape == (len(SENTENCES), 8)

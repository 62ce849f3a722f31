"""From files to rows of tokens: texts, tokenizers, packing and the split."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from language_kit import STEP, plain_decoder, some_texts
from tiny import SENTENCES, tiny_tokenizer
from tokenizers import Tokenizer

from ragindex.errors import TrainingError, UsageError
from ragindex.train.blocks import Rows, Surroundings, row_batches, rows_of, split_rows, surroundings
from ragindex.train.clm import CausalOptions, causal_training
from ragindex.train.data.batching import Shard
from ragindex.train.data.texts import Texts, read_texts
from ragindex.train.language import LanguageModel
from ragindex.train.mntp import MaskedOptions, masked_training
from ragindex.train.vocabulary import VocabularyOptions, find_roles, read_tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def texts() -> Texts:
    return some_texts()


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    """A plain decoder whose head is its embedding table."""
    return plain_decoder(tmp_path / "decoder")


# --- text and rows


def test_texts_come_from_records_pairs_documents_and_folders(tmp_path: Path) -> None:
    records = tmp_path / "a.jsonl.gz"
    rows = [
        {"title": "Kettle", "text": "It boils."},
        {"text": "Alone."},
        {"query": "why?", "positive": ["so", "and so"], "negative": "no"},
        {"text": "Alone."},
        {"text": "  "},
    ]
    with gzip.open(records, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "one.md").write_text("# Keys\n\nRotate them.\n", encoding="utf-8")
    (tmp_path / "two.txt").write_text("A plain text.", encoding="utf-8")
    found = read_texts([records, folder, tmp_path / "two.txt"])
    assert list(found) == [
        "Kettle\nIt boils.",
        "Alone.",
        "why?\nso\nand so",
        "# Keys\n\nRotate them.\n",
        "A plain text.",
    ]
    assert found.fingerprint == read_texts([records, folder, tmp_path / "two.txt"]).fingerprint
    assert found.fingerprint != read_texts([records, folder]).fingerprint


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"title": "only"}', r"data\.jsonl:1 has no text; a text is an object with text"),
        ('{"text": 3}', r"data\.jsonl:1 has a value that is no string"),
        ("{", r"data\.jsonl:1 is not JSON"),
        ("[1]", r"data\.jsonl:1 has no text"),
        ('{"text": ""}', r"data\.jsonl holds no text to train on"),
    ],
)
def test_malformed_text_is_named_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "data.jsonl").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(TrainingError, match=message):
        read_texts([tmp_path / "data.jsonl"])


def test_packed_rows_are_the_texts_end_to_end() -> None:
    words = tiny_tokenizer()
    around = surroundings(words)
    assert around == Surroundings((2,), (3,))
    rows = rows_of(SENTENCES, words, around, length=16)
    stream = [token for sentence in SENTENCES for token in words.encode(sentence).ids]
    assert rows.ids.tolist() == stream[: len(stream) // 16 * 16]
    assert set(rows.lengths) == {16}


def test_a_text_ends_where_the_decoder_says_so() -> None:
    plain = tiny_tokenizer(specials=False)
    assert surroundings(plain) == Surroundings()
    assert surroundings(plain, end=3) == Surroundings((), (3,))
    assert surroundings(tiny_tokenizer(), end=3) == Surroundings((2,), (3,))
    assert surroundings(tiny_tokenizer(), end=1) == Surroundings((2,), (3, 1))


def test_rows_apart_are_pieces_of_one_text_as_an_encoder_reads_it() -> None:
    words = tiny_tokenizer()
    rows = rows_of(["kettle " * 40, "key", *SENTENCES], words, surroundings(words), length=20, layout="apart")
    assert all(row[0] == 2 and row[-1] == 3 and len(row) <= 20 for row in map(rows.__getitem__, range(len(rows))))
    assert [int(length) for length in rows.lengths[:2]] == [20, 20]
    own = words.encode(SENTENCES[1]).ids
    assert any(row.tolist() == own for row in map(rows.__getitem__, range(len(rows)))) or len(own) > 20
    assert not any(row.tolist() == words.encode("key").ids for row in map(rows.__getitem__, range(len(rows))))


def test_an_epoch_has_every_row_once_and_depends_on_seed_and_number() -> None:
    rows = Rows.of([np.full(3 + number % 7, number) for number in range(100)])
    batches = list(row_batches(rows, tokens=40, seed=1, epoch=0))
    assert sorted(row for batch in batches for row in batch) == list(range(100))
    assert all(len(batch) * rows.lengths[batch].max() <= 40 for batch in batches)
    assert batches == list(row_batches(rows, tokens=40, seed=1, epoch=0))
    assert batches != list(row_batches(rows, tokens=40, seed=1, epoch=1))
    parts = [list(row_batches(rows, tokens=40, seed=1, epoch=0, shard=Shard(rank, 2))) for rank in range(2)]
    assert len(parts[0]) == len(parts[1])
    seen = [row for part in parts for batch in part for row in batch]
    assert len(seen) == len(set(seen))


def test_held_out_rows_are_not_trained_on() -> None:
    rows = Rows.of([np.full(9, number) for number in range(50)])
    split = split_rows(rows, held_out=4, seed=3)
    values = [set(part.ids.tolist()) for part in split]
    assert len(split.held_out) == 4
    assert values[0] | values[1] == set(range(50))
    assert not values[0] & values[1]
    assert len(split_rows(Rows.of([np.ones(9), np.zeros(9)]), held_out=4, seed=3).held_out) == 1


@pytest.mark.parametrize(
    ("found", "length", "message"),
    [
        (["too short"], 64, r"tokens, fewer than one block of 64; give more text or shorter blocks"),
        ([" ".join(SENTENCES)], 150, r"one row only"),
    ],
)
def test_too_little_text_is_a_sentence(decoder: Path, found: Sequence[str], length: int, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        causal_training(LanguageModel.open(decoder), Texts.of(found), CausalOptions(block=length, steps=STEP))


# --- tokenizers


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece", "unigram"])
def test_a_tokenizer_of_ones_own_reads_text_back(texts: Texts, algorithm: Any) -> None:
    words = train_tokenizer(texts, VocabularyOptions(size=400, algorithm=algorithm, lowercase=True))
    assert words.get_vocab_size() <= 400
    encoding = words.encode("Rotate the signing KEY, please.")
    assert (encoding.tokens[0], encoding.tokens[-1]) == ("<s>", "</s>")
    assert words.decode(encoding.ids).replace(" ", "") == "rotatethesigningkey,please."
    roles = find_roles(words)
    assert (roles.pad, roles.begin, roles.end) == (0, 1, 2)


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece", "unigram"])
def test_a_word_has_the_same_tokens_wherever_it_stands(texts: Texts, algorithm: Any) -> None:
    """So what a title and a text cost together is what they cost alone."""
    words = train_tokenizer(texts, VocabularyOptions(size=400, algorithm=algorithm))
    alone = words.encode("photosynthesis", add_special_tokens=False)
    for before in ("", "The key\n", "a ", "\t"):
        encoding = words.encode(f"{before}photosynthesis", add_special_tokens=False)
        assert encoding.ids[-len(alone.ids) :] == alone.ids
        assert len(encoding.ids) == len(alone.ids) + len(words.encode(before, add_special_tokens=False).ids)
        starts = [start for start, _ in encoding.offsets[-len(alone.ids) :]]
        assert starts == [len(before) + start for start, _ in alone.offsets]
        assert encoding.offsets[-1][1] == len(before) + len("photosynthesis")


def test_bytes_leave_nothing_unknown(texts: Texts) -> None:
    words = train_tokenizer(texts, VocabularyOptions(size=400))
    assert words.decode(words.encode("キー 🔑 Key").ids).strip() == "キー 🔑 Key"


def test_a_tokenizer_is_read_from_file_or_directory(tmp_path: Path, decoder: Path) -> None:
    assert read_tokenizer(decoder).get_vocab() == read_tokenizer(decoder / "tokenizer.json").get_vocab()
    with pytest.raises(UsageError, match="not a readable tokenizer"):
        read_tokenizer(tmp_path)
    with pytest.raises(UsageError, match="at least 300"):
        VocabularyOptions(size=10)


def test_a_tokenizer_of_another_model_is_refused(decoder: Path, texts: Texts) -> None:
    tiny_tokenizer("bpe").save(str(decoder / "tokenizer.json"))
    model = LanguageModel.open(decoder, attention="bidirectional")
    message = r"gives token \d+ but the decoder knows 250: they do not belong together"
    with pytest.raises(TrainingError, match=message):
        masked_training(model, texts, MaskedOptions(block=32, steps=STEP))
    with pytest.raises(TrainingError, match=message):
        causal_training(LanguageModel.open(decoder), texts, CausalOptions(block=32, steps=STEP))


def test_a_token_that_is_known_but_not_used_does_no_harm(decoder: Path, texts: Texts) -> None:
    words = Tokenizer.from_file(str(decoder / "tokenizer.json"))
    words.add_special_tokens(["<image>"])
    words.save(str(decoder / "tokenizer.json"))
    masked_training(LanguageModel.open(decoder, attention="bidirectional"), texts, MaskedOptions(block=32, steps=STEP))

"""The sentences of passages: where they end, that each is read once, and what a static encoder tells of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from tiny import tiny_encoder

from ragindex.encoder import Encoder
from ragindex.encoder.reading import Read, TextReader
from ragindex.search import sentences as module
from ragindex.search.sentences import Sentences, sentences

LONG = "The kettle in the kitchen of the old mill was mended in the spring."


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (f"{LONG} {LONG}\n\n{LONG}", [LONG] * 3),
        ("Keys. Rotate them. " + LONG + " The end.", ["Keys. Rotate them. " + LONG, "The end."]),
        (f"Dr. Alba wrote it. {LONG}", [f"Dr. Alba wrote it. {LONG}"]),
        ("short", ["short"]),
        ("", [""]),
        (" \n", [" \n"]),
        ("鍵を回す。" * 20, ["鍵を回す。" * 12, "鍵を回す。" * 8]),
        ("x" * 200, ["x" * 200]),
    ],
)
def test_sentences(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts


class Counting:
    """A reader that remembers what it was given."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    def read(self, texts: Sequence[str], *, titles: Sequence[str] | None = None) -> Read:
        self.texts += zip(titles or [""] * len(texts), texts, strict=True)
        return Read(np.eye(len(texts), 4, dtype=np.float32), [np.array([7, 9, 7])] * len(texts))


def test_the_first_sentence_is_told_with_the_title_and_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KNOWN", 2)
    reader = Counting()
    known = Sentences(reader)
    passages = [("Mill", f"{LONG} {LONG}"), ("", LONG), ("Mill", f"{LONG} {LONG}")]
    first, second, again = known.of(passages)
    assert reader.texts == [("Mill", LONG), ("", LONG), ("", LONG)]
    assert first.vectors is not None
    assert first.tokens is not None
    assert (list(first.sentences), first.vectors.shape, first.tokens.tolist()) == ([LONG, LONG], (2, 4), [7, 9])
    assert list(second.sentences) == [LONG]
    assert again is first
    assert known.of(passages)[1] is second
    assert len(reader.texts) == 3
    known.of([("", "a third"), passages[1]])  # the oldest is forgotten
    known.of(passages[:1])
    assert len(reader.texts) == 6


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> TextReader:
    reader = Encoder.load(tiny_encoder(tmp_path_factory.mktemp("static") / "encoder", layers=0)).reader
    assert reader is not None
    return reader


def test_a_sentence_longer_than_the_encoder_reads_is_no_error(static: TextReader) -> None:
    """Programs may bring records with a line of any length."""
    known = Sentences(static)
    passages = [("", f"{LONG} {LONG}"), ("", f"{LONG} {'kettle ' * 1024}"), ("", "The tide is high.")]
    read, unread, other = told = known.of(passages)
    assert read.vectors is not None
    assert (unread.vectors, unread.tokens) == (None, None)
    assert len(unread.sentences) == 2
    answered = known.answered("kettle", told)
    assert answered[0] == pytest.approx(1, abs=1e-5)
    assert answered[1] == pytest.approx((answered[0] + answered[2]) / 2)  # as the others do on average
    assert answered[2] == pytest.approx(known.answered("kettle", [other])[0])
    assert known.answered("kettle", [unread]).tolist() == [0]
    assert known.answered("kettle " * 1024, told).tolist() == [0, 0, 0]  # its vector came with it
    assert known.answered("kettle", []).shape == (0,)

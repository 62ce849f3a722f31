"""`Index.records`: what the adapters of all frameworks stand on. Their own tests ask the rest."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_kit import open_index, prose, write
from tiny import SENTENCES, tiny_encoder

from ragindex import Index
from ragindex.encoder.brought import BroughtEncoder
from ragindex.errors import DuplicateError, EncoderError, EncoderMismatchError, UsageError
from ragindex.store.lease import WriterLease
from ragindex.types import Entry, Record

RECORDS = [Record(str(number), text, {"n": number}) for number, text in enumerate(SENTENCES)]


@pytest.fixture
def index(tmp_path: Path, tiny_encoder_dir: Path) -> Iterator[Index]:
    with open_index(tmp_path, tiny_encoder_dir) as opened:
        assert opened.records.put(RECORDS) == 10
        yield opened


@pytest.fixture
def ready(tmp_path: Path) -> Iterator[Index]:
    """A store whose vectors come ready-made."""
    with Index.open(tmp_path / "ready", encoder=BroughtEncoder("two numbers", dimensions=2)) as opened:
        yield opened


def ids(entries: list[Entry]) -> list[str]:
    return [entry.id for entry in entries]


def test_records_come_back_in_the_order_in_which_they_came(index: Index) -> None:
    assert [Record(one.id, one.text, one.metadata) for one in index.records.find()] == RECORDS
    assert ids(index.records.find("n >= 3", offset=2, limit=3)) == ["5", "6", "7"]
    assert (index.records.count(), index.records.count("n >= 3")) == (10, 7)
    assert index.verify().ok


def test_the_same_again_changes_nothing(index: Index) -> None:
    before = index.status()["generation"]
    assert index.records.put(RECORDS) == 10
    assert index.status()["generation"] == before
    assert index.records.describe("n = 3", {"seen": True, "n": 30}) == 1
    assert index.records.find("seen = true") == [Entry("3", SENTENCES[3], {"n": 30, "seen": True})]
    assert index.records.put([Record("3", SENTENCES[3], {"n": 30, "seen": True})]) == 1
    assert index.status()["generation"] == before
    index.records.put([RECORDS[3]])
    assert index.records.get(["3"])[0].metadata == {"n": 3}
    with pytest.raises(UsageError, match="reserved"):
        index.records.describe(None, {"_ragindex": {}})


def test_what_becomes_of_a_known_id(index: Index) -> None:
    new, known = Record("new", "new text"), Record("3", "changed text")
    with pytest.raises(DuplicateError, match="'3'"):
        index.records.put([new, known], known="refuse")
    with pytest.raises(DuplicateError, match="'new'"):
        index.records.put([new, Record("new", "twice")], known="refuse")
    assert index.records.get(["new"]) == []
    assert index.records.put([new, known, Record("new", "twice")], known="skip") == 1
    assert [one.text for one in index.records.get(["new", "3"])] == ["new text", SENTENCES[3]]
    assert index.records.put([new, known, Record("new", "twice")]) == 2
    assert [one.text for one in index.records.get(["new", "3"])] == ["twice", "changed text"]


@pytest.mark.parametrize(
    "wrong",
    [
        Record(" ", "no id"),
        Record("a\0b", "odd id"),
        Record("s", "half a pair: \ud83d"),
        Record("m", "x", {"a": {"b": object()}}),
        Record("m", "x", {"a": {1: 2}}),
        Record("m", "x", {1: "a"}),  # type: ignore[dict-item]
        Record("v", "x", vector=["a", "b"]),  # type: ignore[list-item]
        Record("v", "x", vector=[float("nan")] * 24),
        Record("v", "x", vector=[]),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_batch(index: Index, wrong: Record) -> None:
    with pytest.raises(UsageError):
        index.records.put([Record("fine", "text"), wrong])
    assert index.records.count() == 10
    assert index.verify().ok


def test_numbers_that_are_not_finite_become_null(index: Index) -> None:
    index.records.put([Record("x", "text", {"a": float("nan"), "b": [float("inf"), (1, 2)]})])
    assert index.records.get(["x"])[0].metadata == {"a": None, "b": [None, [1, 2]]}


def test_another_encoder_embeds_records_too(index: Index, tmp_path: Path) -> None:
    long = prose(120)
    vector = (2 * index.encoder.encode_documents(["a text with a vector"])[0]).tolist()
    index.records.put(
        [Record("long", long), Record("vector", "a text with a vector", vector=vector), Record("void", "")]
    )
    found = {query: ids(index.records.search(query, k=12)) for query in SENTENCES}
    assert index.records.get(["vector"], vectors="brought")[0].vector == pytest.approx(vector, abs=1e-2)
    other = tiny_encoder(tmp_path / "other", seed=5, max_tokens=128)
    assert index.promote(str(other)).embedded == 13
    assert index.verify().ok
    for query in SENTENCES:
        entries = index.records.search(query, k=13)
        assert len(entries) == 12  # the empty text has no vector under any encoder
        assert entries[0].text == query
    with open_index(tmp_path / "fresh", other) as fresh:  # the same as if they had come to the new encoder at first
        fresh.records.put([*RECORDS, Record("long", long), Record("vector", "a text with a vector")])
        expected = [round(one.score or 0, 3) for one in fresh.records.search("backup", k=12)]
        assert [round(one.score or 0, 3) for one in index.records.search("backup", k=12)] == expected
    index.rollback()
    assert {query: ids(index.records.search(query, k=12)) for query in SENTENCES} == found


def test_vectors_that_were_swept_are_made_again(index: Index) -> None:
    index.records.delete_where()
    assert index.compact()["vectors_removed"] == 10
    assert index.records.search("backup") == []
    index.records.put(RECORDS)
    assert ids(index.records.search(SENTENCES[5], k=1)) == ["5"]
    assert index.verify().ok


def test_hundreds_of_records_without_a_vector_hide_none_that_has_one(ready: Index) -> None:
    records = [Record(f"void{number}", "mute") for number in range(900)]
    records += [Record(f"away{number}", "far", vector=[-1.0, number / 10]) for number in range(3)]
    ready.records.put(records)
    assert ids(ready.records.search(vector=[1.0, 0.0], k=5)) == ["away2", "away1", "away0"]
    assert ids(ready.records.retrieve(vector=[1.0, 0.0], k=2, mode="dense"))[0] == "away2"
    assert len(ready.records.search("mute", k=950, mode="lexical")) == 900
    assert ready.verify().ok


def test_a_store_of_ready_made_vectors_embeds_nothing(ready: Index, tmp_path: Path) -> None:
    ready.records.put([Record("1", "text", vector=[0.0, 5.0])])
    assert ready.records.get(["1"], vectors="brought")[0].vector == [0.0, 5.0]
    for asked in (lambda: ready.records.search("text"), lambda: ready.search("text"), lambda: ready.encoder):
        with pytest.raises(UsageError):
            asked()
    for vector in ([0.0, 0.0], [float("nan"), 1.0], [1.0], ["a", "b"], [[1.0], 2.0]):
        with pytest.raises(UsageError, match="vector"):
            ready.records.search(vector=vector)
    write(tmp_path, {"a.txt": "text"})
    with pytest.raises(UsageError, match="cannot cut files"):
        ready.add(tmp_path / "a.txt")
    assert [hit.path for hit in ready.search("text", mode="lexical")] == ["1"]
    assert ready.status()["encoder"]["name"] == "brought:two numbers"


def test_without_what_made_its_vectors_a_store_says_so(ready: Index, tmp_path: Path, tiny_encoder_dir: Path) -> None:
    ready.records.put([Record("1", "text", vector=[0.0, 5.0])])
    with Index.open(tmp_path / "ready") as bare:
        assert ids(bare.records.search("text", mode="lexical")) == ["1"]
        with pytest.raises(EncoderError, match="'two numbers'"):
            bare.records.search("text")
    with pytest.raises(EncoderMismatchError, match="'two numbers'"):
        Index.open(tmp_path / "ready", encoder=str(tiny_encoder_dir))
    with Index.open(tmp_path / "ready") as bare:
        bare.promote(str(tiny_encoder_dir))  # the way out: the texts are there
        assert ids(bare.records.search("text")) == ["1"]
        with pytest.raises(EncoderError, match="'two numbers'"):
            bare.rollback()


def test_an_object_is_known_by_what_it_does(tmp_path: Path) -> None:
    asked: list[str] = []

    class Letters:
        def __init__(self, noise: float = 0.0, swap: bool = False) -> None:
            self.noise, self.swap = noise, swap

        def embed_query(self, text: str) -> list[float]:
            asked.append(text)
            counts = np.bincount(list(text.lower().encode()), minlength=256)[97:123] + self.noise
            return (counts[::-1] if self.swap else counts).tolist()

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [self.embed_query(text) for text in texts]

    def opened(embedding: Any, name: str = "letters") -> Index:
        return Index.open(tmp_path / "s", encoder=BroughtEncoder(name, embedding))

    with opened(Letters()) as index:
        assert asked == []  # opening asks nothing
        index.records.put(RECORDS)
        fingerprint = index.status()["encoder"]["fingerprint"]
    with opened(Letters(noise=0.01), "another name") as index:  # as another machine or batch would round
        assert ids(index.records.search(SENTENCES[3], k=1)) == ["3"]
        index.records.put([Record("new", "a new text")])
        assert index.status()["encoder"]["fingerprint"] == fingerprint
    with opened(Letters(swap=True)) as index, pytest.raises(EncoderMismatchError):
        index.records.search("x")
    with pytest.raises(UsageError, match="name"):
        BroughtEncoder(" ", Letters())


@pytest.mark.parametrize(
    "made",
    [
        lambda texts: [[1.0]] * (len(texts) + 1),
        lambda texts: [[float("nan")]] * len(texts),
        lambda texts: [[1.0], [1.0, 2.0]],
    ],
)
def test_an_object_that_gives_nonsense_is_named(tmp_path: Path, made: Any) -> None:
    class Broken:
        embed_documents = staticmethod(made)

        def embed_query(self, text: str) -> list[float]:
            return [1.0]

    with Index.open(tmp_path / "s", encoder=BroughtEncoder("broken thing", Broken())) as index:
        with pytest.raises(EncoderError, match="'broken thing'"):
            index.records.put([Record("1", "one"), Record("2", "two")])
        assert index.records.count() == 0


def test_a_writer_waits_for_another_one(index: Index) -> None:
    with WriterLease(index.store, command="test"):
        writer = threading.Thread(target=index.records.put, args=([Record("late", "text")],))
        writer.start()
        assert ids(index.records.search(SENTENCES[5], k=1)) == ["5"]  # a reader does not
        assert index.records.get(["late"]) == []
    writer.join()
    assert ids(index.records.get(["late"])) == ["late"]


def test_search_of_the_index_finds_records_by_their_ids(index: Index) -> None:
    assert index.search("restore a backup", k=1)[0].path == "5"
    assert [entry["path"] for entry in index.documents()] == sorted(str(number) for number in range(10))
    assert index.remove("5") == 1
    assert index.records.get(["5"]) == []
    index.records.put([Record("x", "photosynthesis", {"a": 1}, beside={"b": 2})])
    assert index.search("photosynthesis", mode="lexical", k=1)[0].metadata == {"a": 1}
    assert index.records.retrieve("photosynthesis", k=1)[0].beside == {"b": 2}
    assert index.why_not("restore a backup", "4").stage in {"found", "outranked"}


def test_passages_are_folded_only_where_that_is_wanted(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    write(tmp_path, {"long.txt": prose(40)})
    with open_index(tmp_path, tiny_encoder_dir) as index:
        index.add(tmp_path / "long.txt")
        every = index.records.find()
        assert len(every) == index.status()["chunks"] > 3
        assert {entry.id for entry in index.records.search("key", k=99)} == set(ids(every))
        for entry in index.records.retrieve("signing key", k=5):
            start, end = entry.span or (0, 0)
            assert index.text("long.txt")[start:end] == entry.text
            (again,) = index.records.get([entry.id])
            assert (again.id, again.text, again.span, again.metadata) == (
                entry.id,
                entry.text,
                entry.span,
                entry.metadata,
            )

"""Late chunking as an option of indexing: which vector a chunk gets, when one is made anew, what a store remembers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from index_kit import SMALL, open_index, prose, write
from tiny import SENTENCES, tiny_encoder

from ragindex import Index
from ragindex.chunking import ChunkOptions
from ragindex.cli import main
from ragindex.config import Settings, load_settings
from ragindex.encoder import Encoder, torch_forward
from ragindex.errors import UsageError
from ragindex.ingest import run, stages
from ragindex.ingest.context import ChunkContext
from ragindex.ingest.late import is_late_key, late_keys
from ragindex.store.catalog import Catalog
from ragindex.store.rows import Batch, FileState
from ragindex.store.writing import KEY_BYTES
from ragindex.types import Chunk, Document

LATE = Settings(chunk_tokens=64, overlap=8, late_chunking=True)


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_forward, "choose_dtype", lambda device: torch.float32)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reads 128 tokens at once, so that a document of some length is read in windows."""
    return tiny_encoder(tmp_path_factory.mktemp("late") / "encoder", max_tokens=128)


def stored(index: Index, collection: str = "default") -> Iterator[tuple[str, list[tuple[int, int]], np.ndarray]]:
    """Of each document its path, the spans of its chunks, and their vectors as the catalogue holds them."""
    with Catalog.open(index.store) as catalog:
        row, number = catalog.encoder(), catalog.collection(collection)
        assert row is not None
        for document in catalog.documents(number):
            chunks = catalog.chunks_of(number, document.path)
            vectors = catalog.vectors(row.id, [chunk.chunk_id for chunk in chunks])
            yield document.path, [(chunk.start, chunk.end) for chunk in chunks], vectors


def check(index: Index, encoder: Path, *, collection: str = "default", title: str = "") -> int:
    """Every chunk has the vector of its span in its document; how many there are."""
    loaded, count = Encoder.load(encoder), 0
    with Catalog.open(index.store) as catalog:
        number = catalog.collection(collection)
        texts = {row.path: catalog.document_text(number, row.path) for row in catalog.documents(number)}
        titles = {row.path: row.title for row in catalog.documents(number)}
    for path, spans, vectors in stored(index, collection):
        expected = loaded.encode_spans(texts[path], spans, title=titles[path] or title)
        np.testing.assert_allclose(vectors, expected, atol=1e-3)  # stored in half precision
        count += len(spans)
    return count


def test_chunks_get_the_vectors_of_their_spans(tmp_path: Path, encoder: Path) -> None:
    heading = "# Keys\n\nHow to rotate them.\n\n## Backups\n\n"
    write(
        tmp_path, {"long.txt": prose(40), "short.txt": SENTENCES[1], "titled.md": heading + prose(12), "empty.txt": ""}
    )
    with open_index(tmp_path, encoder, settings=LATE) as index:
        report = index.add(tmp_path)
        assert report.embedded_chunks == report.chunks == check(index, encoder) > 15
        assert index.verify().ok
        (hit, *_) = index.search("a vaccine trains the immune system", k=3)
        text = (tmp_path / hit.path).read_text(encoding="utf-8")
        assert text[hit.char_start : hit.char_end] == hit.text
    with open_index(tmp_path / "plain", encoder) as index:
        index.add(tmp_path / "long.txt")
        plain = {path: vectors for path, _, vectors in stored(index)}
    with open_index(tmp_path, encoder) as index:
        late = {path: vectors for path, _, vectors in stored(index)}
    different = np.abs(next(iter(plain.values())) - late["long.txt"][: len(next(iter(plain.values())))]).max(axis=1)
    assert (different > 1e-2).any()


def test_a_vector_belongs_to_its_document_and_is_made_once(tmp_path: Path, encoder: Path) -> None:
    same = SENTENCES[0]
    write(tmp_path, {"one.txt": f"{same}\n\n{SENTENCES[1]}", "two.txt": f"{same}\n\n{SENTENCES[2]}", "alone.txt": same})
    with open_index(tmp_path, encoder, settings=Settings(chunk_tokens=32, overlap=0, late_chunking=True)) as index:
        report = index.add(tmp_path)
        assert (report.chunks, report.embedded_chunks) == (5, 5)  # what says the same elsewhere is no copy
        check(index, encoder)
        assert index.add(tmp_path).embedded_chunks == 0
        (tmp_path / "alone.txt").rename(tmp_path / "renamed.txt")
        (tmp_path / "two.txt").rename(tmp_path / "moved.txt")
        write(tmp_path, {"copy.txt": f"{same}\n\n{SENTENCES[1]}"})
        report = index.add(tmp_path)
        assert (report.moved, report.chunks, report.embedded_chunks) == (2, 2, 0)
        write(tmp_path, {"one.txt": f"{same}\n\n{SENTENCES[3]}"})
        report = index.add(tmp_path)
        assert (report.chunks, report.embedded_chunks) == (2, 2)  # the unchanged chunk stands beside another text now
        check(index, encoder)
        assert index.verify().ok


def test_the_title_and_the_cuts_are_part_of_what_a_vector_depends_on(tmp_path: Path, encoder: Path) -> None:
    text = prose(12)
    with open_index(tmp_path, encoder, settings=LATE) as index:
        for number, title in enumerate(("", "The key")):
            documents = [Document(f"long{number}", text, title=title), Document(f"short{number}", "Keys.", title=title)]
            report = index.put(documents)
            assert report.embedded_chunks == report.chunks > 2
        assert index.put([Document("long2", text, title="The key")]).embedded_chunks == 0
        check(index, encoder)
    with open_index(tmp_path, encoder, settings=Settings(chunk_tokens=48, overlap=8)) as index:
        assert index.chunking.late
        report = index.put([Document("long3", text)])
        assert report.embedded_chunks == report.chunks
        check(index, encoder)


def test_a_key_depends_on_the_document_its_cuts_and_its_title() -> None:
    def keys(text: str, title: str, *spans: tuple[int, int]) -> list[bytes]:
        chunks = [Chunk(0, start, end, text[start:end], (), 1, 1, None, 1) for start, end in spans]
        return late_keys(text, [title], chunks)

    usual = keys("one two three", "title", (0, 3), (4, 7))
    assert len(set(usual)) == 2
    assert keys("one two three", "title", (0, 3), (4, 7)) == usual
    others = [
        keys("one two tree!", "title", (0, 3), (4, 7)),
        keys("one two three", "other", (0, 3), (4, 7)),
        keys("one two three", "title", (0, 3), (4, 13)),  # windows are made for all chunks
    ]
    assert not {key for some in others for key in some} & set(usual)
    assert all(len(key) == KEY_BYTES and is_late_key(key, "one two three") for key in usual)
    assert not any(is_late_key(key, "one two tree!") for key in usual)


def test_headings_are_not_told_again(tmp_path: Path, encoder: Path) -> None:
    write(tmp_path, {"a.md": f"# The service\n\n## The previous key\n\n### Backup\n\n{prose(12)}"})
    loaded = Encoder.load(encoder)
    with open_index(tmp_path, encoder, settings=LATE) as index:
        index.add(tmp_path / "a.md")
        with Catalog.open(index.store) as catalog:
            chunks = catalog.chunks_of(1, "a.md")
    assert chunks[-1].heading == ("The service", "The previous key", "Backup")
    for chunk in chunks:
        cost = loaded.document_overhead("The service") + loaded.tokenizer.count(chunk.text)
        assert chunk.tokens == cost <= 64


def test_a_store_remembers_and_can_be_switched(tmp_path: Path, encoder: Path) -> None:
    write(tmp_path, {"a.txt": prose(12), "b.txt": SENTENCES[0]})
    with open_index(tmp_path, encoder) as index:
        index.add(tmp_path)
        assert index.status()["late_chunking"] is False
    with open_index(tmp_path, encoder, settings=LATE) as index:
        report = index.add(tmp_path)
        assert (report.updated, report.unchanged) == (2, 0)
        check(index, encoder)
    with open_index(tmp_path, encoder) as index:
        assert index.status()["late_chunking"] is True
        assert index.add(tmp_path).unchanged == 2
        write(tmp_path, {"c.txt": prose(9, start=3)})
        index.add(tmp_path)
        check(index, encoder)
    off = Settings(chunk_tokens=64, overlap=8, late_chunking=False)
    with open_index(tmp_path, encoder, settings=off) as index:
        report = index.add(tmp_path)
        assert report.updated == 3
        assert report.reused_chunks > 0  # vectors of the beginning are still there
        loaded = Encoder.load(encoder)
        (vector,) = next(vectors for path, _, vectors in stored(index) if path == "b.txt")
        np.testing.assert_allclose(vector, loaded.encode_documents([SENTENCES[0]])[0], atol=1e-3)


def test_a_long_document_is_embedded_in_parts_with_the_same_vectors(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_COMMIT_CHUNKS", 3)
    write(tmp_path, {"long.txt": prose(80), "other.txt": prose(8, start=5)})
    with open_index(tmp_path, encoder, settings=LATE) as index:
        report = index.add(tmp_path)
        assert report.embedded_chunks == check(index, encoder) > 20


def test_planning_is_given_up_when_a_run_is(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred megabytes of text take minutes to plan."""
    loaded = Encoder.load(encoder)
    cutter = stages.Cutter(ChunkContext(loaded, budget=64, late=True), loaded, ChunkOptions(64, 8))
    usual = stages.chunk

    def cancelled_when_cut(*arguments: object) -> object:
        chunks = usual(*arguments)
        cutter.cancel()
        return chunks

    monkeypatch.setattr(stages, "chunk", cancelled_when_cut)
    with pytest.raises(CancelledError):
        cutter.cut(Document("a", prose(12)), FileState("a", 0, 0, "", 0, ""), replaces=False)


@pytest.mark.parametrize("first", ["plain", "late"])
def test_another_encoder_reads_every_document_as_it_was_read(first: str, tmp_path: Path, encoder: Path) -> None:
    """Also in a collection that was not indexed again since the store was switched."""
    write(tmp_path, {"late/long.txt": prose(60), "late/short.txt": SENTENCES[4], "plain/text.txt": prose(9, start=2)})
    plain = Settings(chunk_tokens=64, overlap=8, late_chunking=False)
    for name in (first, "late" if first == "plain" else "plain"):
        with open_index(tmp_path, encoder, collection=name, settings=LATE if name == "late" else plain) as index:
            index.add(tmp_path / name)
            if name == "late":
                index.put([Document("memory", prose(20), title="Notes")])
    other = tiny_encoder(tmp_path / "other", max_tokens=96, seed=1)
    with open_index(tmp_path, encoder, collection="late") as index:
        index.promote(str(other))
        assert index.verify().ok
        check(index, other, collection="late")
        text = prose(9, start=2)
        ((_, spans, vectors),) = stored(index, "plain")
        expected = Encoder.load(other).encode_documents([text[start:end] for start, end in spans])
        np.testing.assert_allclose(vectors, expected, atol=1e-3)
        if first == "plain":
            assert index.add(tmp_path / "late").embedded_chunks == 0


def test_a_chunk_that_goes_while_another_encoder_reads_gets_no_vector(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text alone would be stored under the key of its place in the document, and be found there later."""
    write(tmp_path, {"docs/a.txt": prose(10), "docs/b.txt": SENTENCES[0]})
    other = tiny_encoder(tmp_path / "other", max_tokens=128, seed=1)
    with open_index(tmp_path, encoder, settings=LATE) as index:
        index.add(tmp_path / "docs")
        usual = Catalog.document_spans

        def after_it_went(catalog: Catalog, chunk: int) -> object:
            catalog.commit(catalog.collection("default"), Batch(removes=["docs/a.txt", "docs/b.txt"]))
            return usual(catalog, chunk)

        monkeypatch.setattr(Catalog, "document_spans", after_it_went)
        assert index.promote(str(other)).embedded == 0
        monkeypatch.setattr(Catalog, "document_spans", usual)
        report = index.add(tmp_path / "docs")
        assert report.embedded_chunks == report.chunks == check(index, other)


def test_an_encoder_that_cannot_is_refused_before_anything_is_done(tmp_path: Path, encoder: Path) -> None:
    write(tmp_path, {"a.txt": SENTENCES[0]})
    last = tiny_encoder(tmp_path / "last", pooling="last")
    with (
        open_index(tmp_path, last, settings=LATE) as index,
        pytest.raises(
            UsageError, match="Late chunking needs an encoder with mean, weighted-mean or mean-query pooling"
        ),
    ):
        index.add(tmp_path / "a.txt")
    with open_index(tmp_path, encoder, settings=LATE) as index:
        index.add(tmp_path / "a.txt")
        with pytest.raises(UsageError, match="Late chunking needs"):
            index.promote(str(last))
        check(index, encoder)


def test_the_setting_is_read_from_the_file_the_environment_and_the_command_line(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ragindex.toml").write_text("late_chunking = true\n", encoding="utf-8")
    assert load_settings(tmp_path, {}).chunking().late
    assert not load_settings(tmp_path, {"RAGINDEX_LATE_CHUNKING": "off"}).chunking().late
    assert load_settings(tmp_path, {"RAGINDEX_LATE_CHUNKING": "off"}, {"late_chunking": True}).chunking().late
    with pytest.raises(UsageError, match="RAGINDEX_LATE_CHUNKING is 'maybe'; it must be true or false"):
        load_settings(tmp_path, {"RAGINDEX_LATE_CHUNKING": "maybe"})
    (tmp_path / "ragindex.toml").write_text("late_chunking = 1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="late_chunking must be true or false"):
        load_settings(tmp_path, {})
    (tmp_path / "ragindex.toml").unlink()

    write(tmp_path, {"docs/a.txt": prose(10)})
    monkeypatch.chdir(tmp_path)
    for flags, late in ((["--late-chunking"], True), ([], True), (["--no-late-chunking"], False), ([], False)):
        arguments = ["index", "docs", "--encoder", str(encoder), "--chunk-tokens", "64", "--json", *flags]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 0, result.output
        shown = CliRunner().invoke(main, ["status", "--json"])
        assert json.loads(shown.stdout)["late_chunking"] is late


def test_stores_that_never_chunked_late_say_nothing_of_it(tmp_path: Path, encoder: Path) -> None:
    write(tmp_path, {"a.txt": SENTENCES[0]})
    with open_index(tmp_path, encoder, settings=SMALL) as index:
        index.add(tmp_path / "a.txt")
        with Catalog.open(index.store) as catalog:
            assert catalog.setting("chunking") == {"chunk_tokens": 64, "overlap": 8}

"""`Index`: opening, encoders, upkeep, and several of them at once."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from index_kit import SMALL, answers, corpus, open_index, paths, prose, write
from tiny import SENTENCES, tiny_encoder

from ragindex import Index
from ragindex.encoder import Encoder
from ragindex.errors import EncoderError, EncoderMismatchError, StoreError, StoreLockedError, UsageError
from ragindex.store.lease import WriterLease
from ragindex.types import Document


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "home"
    write(home, corpus(10))
    return home


@pytest.fixture
def index(folder, tiny_encoder_dir):
    with open_index(folder, tiny_encoder_dir) as opened:
        opened.add(folder)
        yield opened


@pytest.fixture(scope="module")
def other_dir(tmp_path_factory):
    """Another encoder, of other dimensions."""
    return tiny_encoder(tmp_path_factory.mktemp("other") / "tiny", head=False, seed=1)


@pytest.fixture(scope="module")
def twin_dir(tmp_path_factory):
    """Another encoder of the same dimensions."""
    return tiny_encoder(tmp_path_factory.mktemp("twin") / "tiny", seed=2)


def test_as_in_the_handbook(folder):
    with Index.open(folder / ".ragindex") as index:
        report = index.add(folder)
        assert report.added == 10
        hits = index.search("how do I rotate a key?", k=5, mode="hybrid", filter="path like 'doc%'")
    assert len(hits) == 5
    assert hits[0].citation == "doc000.txt:1"
    assert hits[0].score >= hits[1].score
    assert "signing key" in hits[0].text


def test_open_without_create_names_the_command(tmp_path):
    with pytest.raises(StoreError, match="ragindex index"):
        Index.open(tmp_path / ".ragindex", create=False)
    assert list(tmp_path.iterdir()) == []


def test_unknown_collection_names_the_known_ones(index):
    with pytest.raises(UsageError, match="existing: default"):
        Index.open(index.store, collection="typo", create=False)


def test_empty_store_answers_with_nothing(tmp_path, tiny_encoder_dir):
    with open_index(tmp_path, tiny_encoder_dir) as index:
        assert index.search("anything", mode="lexical") == []
        assert index.documents() == []
        assert index.status()["encoder"] is None
        assert index.verify().ok


def test_store_keeps_its_encoder(index, folder, tiny_encoder_dir):
    with Index.open(index.store) as again:
        assert again.encoder.fingerprint == index.encoder.fingerprint
        assert answers(again) == answers(index)
        assert again.status()["encoder"]["name"] == str(tiny_encoder_dir)


def test_other_encoder_is_refused_with_the_command_that_switches(index, other_dir):
    with pytest.raises(EncoderMismatchError, match=r"ragindex index .*--encoder .*--reembed"):
        Index.open(index.store, encoder=str(other_dir))


def test_encoder_that_is_gone_is_an_error_that_names_the_store(folder, tmp_path, tiny_encoder_dir):
    moved = tmp_path / "encoder"
    shutil.copytree(tiny_encoder_dir, moved)
    with open_index(folder, moved) as index:
        index.add(folder)
    shutil.rmtree(moved)
    with Index.open(folder / ".ragindex") as index:
        with pytest.raises(EncoderError, match=r"home/\.ragindex cannot be loaded"):
            index.search("kettle")
        assert paths(index.search("kettle", mode="lexical")) == ["doc001.txt"]  # needs no encoder


def test_reembed_switches_and_keeps_answering(index, folder, other_dir, tiny_encoder_dir):
    before = [hits[0][0] for hits in answers(index)]
    assert index.reembed(str(other_dir)) == 10
    assert index.status()["encoder"]["dimensions"] == 32
    assert [hits[0][0] for hits in answers(index)] == before
    assert index.verify().ok
    with Index.open(index.store) as again:
        assert again.encoder.dimensions == 32
        assert answers(again) == answers(index)
        assert again.add(folder).unchanged == 10
    assert index.reembed(str(tiny_encoder_dir)) == 0  # its vectors are still there
    assert index.reembed(str(other_dir)) == 0


def test_reembed_with_other_chunk_settings_leaves_no_chunk_without_a_vector(folder, tiny_encoder_dir, other_dir):
    write(folder, {"titled.md": f"# {' '.join(SENTENCES)}\n\n{prose(10)}"})
    with open_index(folder, tiny_encoder_dir, settings=replace(SMALL, chunk_tokens=256)) as index:
        index.add(folder)
    with open_index(folder, tiny_encoder_dir) as index:  # chunks of 64 tokens from now on
        index.reembed(str(other_dir))
        assert index.verify().problems == ()
        assert index.search("kettle", mode="dense")


def test_interrupted_reembedding_goes_on_where_it_stopped(folder, tiny_encoder_dir, other_dir):
    write(folder, {"long.txt": prose(1500)})

    class Stop:
        def start(self, files): ...

        def advance(self, *, files=0, chunks=0, tokens=0):
            raise KeyboardInterrupt

        def finish(self): ...

    with open_index(folder, tiny_encoder_dir) as index:
        index.add(folder)
        before = answers(index)
        with pytest.raises(KeyboardInterrupt):
            index.reembed(str(other_dir), progress=Stop())
        assert answers(index) == before
        total = index.status()["vectors"]
        assert 0 < index.reembed(str(other_dir)) < total


def test_reader_follows_when_another_object_switches_the_encoder(index, twin_dir, other_dir):
    with Index.open(index.store) as reader:
        reader.search("kettle")
        for encoder in (twin_dir, other_dir):
            index.reembed(str(encoder))
            assert answers(reader) == answers(index)


def test_writer_never_mixes_vectors_of_two_encoders(index, folder, twin_dir):
    with Index.open(index.store) as writer:
        writer.add(folder)  # its encoder is loaded
        index.reembed(str(twin_dir))
        write(folder, {"new.txt": "Zebras graze beneath the acacia."})
        writer.add(folder)
    hit = next(hit for hit in index.search("Zebras graze beneath the acacia.", mode="dense") if hit.path == "new.txt")
    encoder = Encoder.load(str(twin_dir))
    cosine = encoder.encode_queries([hit.text]) @ encoder.encode_documents([hit.text]).T
    assert hit.scores.dense == pytest.approx(float(cosine[0, 0]), abs=2e-3)


def test_writer_that_asked_for_an_encoder_is_told_when_the_store_has_left_it(index, folder, twin_dir):
    with Index.open(index.store) as other:
        other.reembed(str(twin_dir))
    with pytest.raises(EncoderMismatchError):
        index.add(folder)
    with pytest.raises(EncoderMismatchError):
        index.search("kettle")
    assert index.status()["encoder"]["name"] == str(twin_dir)  # upkeep needs no encoder
    assert index.verify().ok
    assert index.remove("doc000.txt") == 1


def test_status(index):
    status = index.status()
    assert status["documents"] == status["chunks"] == status["vectors"] == 10
    assert status["failures"] == 0
    assert status["roots"] == ["."]
    assert status["collections"] == ["default"]
    assert (status["chunk_tokens"], status["overlap"]) == (64, 8)
    assert status["index"] == "Flat"
    assert status["generation"] > 0
    assert status["pending"] == 0
    assert status["encoder"]["dimensions"] == 24
    assert len(status["encoder"]["fingerprint"]) >= 32
    assert all(size > 0 for size in status["bytes"].values())


def test_documents(index):
    row = index.documents()[0]
    assert (row["path"], row["chunks"], row["mime"]) == ("doc000.txt", 1, "text/plain")
    assert row["characters"] == row["size"] == len(corpus(1)["doc000.txt"])
    assert len(row["sha256"]) == 64
    assert row["tokens"] > 0
    assert row["modified"].endswith("Z")


def test_remove(index, folder, monkeypatch):
    write(folder, {"sub/a.txt": "alpha", "sub/b.txt": "beta", "sub/c.pdf": b"no", "subway.txt": "gamma"})
    index.add(folder)
    assert index.remove(folder / "sub") == 2
    assert index.failures() == []
    assert "subway.txt" in [row["path"] for row in index.documents()]
    monkeypatch.chdir(folder / "sub")
    assert index.remove("../doc000.txt", "doc001.txt") == 2  # from here, and as hits print it
    with pytest.raises(UsageError, match="ragindex list"):
        index.remove("doc000.txt")
    assert index.search("kettle boils", mode="lexical") == []
    assert index.verify().ok


def test_remove_takes_the_identity_of_a_document_that_is_no_file(index):
    names = ["https://example.org//a/../b", "/absolute", "~", ""]
    index.put([Document(name, f"about {number}") for number, name in enumerate(names[:3])])
    for name in names[:3]:
        assert index.remove(name) == 1


def test_remove_of_the_folder_leaves_what_lies_outside(index, folder, tmp_path):
    write(tmp_path / "outside", {"far.txt": "far away"})
    index.add(tmp_path / "outside")
    assert index.remove(folder) == 10
    assert [Path(row["path"]).name for row in index.documents()] == ["far.txt"]


def test_verify_repair_and_compact(index, folder):
    found = index.verify()
    assert (found.ok, found.documents, found.chunks, found.vectors, found.problems) == (True, 10, 10, 10, ())
    before = answers(index)
    for file in (index.store / "snapshots").rglob("*"):
        if file.is_file() and file.suffix not in {".json", ".lock"}:
            file.write_bytes(b"damaged")
    with Index.open(index.store) as again:
        assert not again.verify().ok
        assert answers(again) == before  # a damaged snapshot never falsifies an answer
        assert again.repair().ok
        assert answers(again) == before
    (folder / "doc003.txt").unlink()
    index.add(folder)
    sizes = index.compact()
    assert sizes["vectors_removed"] == 1
    assert 0 < sizes["bytes_after"] <= sizes["bytes_before"]
    assert index.verify().vectors == 9


def test_snapshots_can_be_thrown_away(index, folder):
    before = answers(index)
    index.close()
    shutil.rmtree(folder / ".ragindex" / "snapshots")
    with Index.open(folder / ".ragindex") as again:
        assert answers(again) == before
        report = again.add(folder)
        assert (report.unchanged, report.embedded_chunks) == (10, 0)
        assert answers(again) == before


def test_second_writer_is_refused_and_told_who_writes(index, folder, monkeypatch):
    with WriterLease(index.store, command="index docs"):
        with pytest.raises(StoreLockedError, match=rf"process {os.getpid()} .*index docs"):
            index.add(folder)
        assert index.search("kettle")
        assert index.add(folder, dry_run=True).unchanged == 10


def test_store_that_cannot_be_written_can_be_searched(index, folder, monkeypatch):
    expected = answers(index)
    index.close()
    before = {file: file.stat().st_mtime_ns for file in (folder / ".ragindex").rglob("*")}
    # Permissions do not bind root, so the answer of the check is what is replaced.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with Index.open(folder / ".ragindex") as again:
        assert answers(again) == expected
        assert again.status()["documents"] == 10
        assert again.verify().ok
        assert again.add(folder, dry_run=True).unchanged == 10
        assert {file: file.stat().st_mtime_ns for file in before} == before
        write(folder, {"new.txt": "new"})
        with pytest.raises(StoreError, match="read-only"):
            again.add(folder)


def test_reader_sees_a_commit_without_reopening(index, folder):
    with Index.open(index.store) as reader:
        assert reader.search("zebras", mode="lexical") == []
        reader.search("zebras")
        write(folder, {"new.txt": "Zebras graze beneath the acacia."})
        index.add(folder)
        for mode in ("lexical", "dense", "hybrid"):
            assert "new.txt" in paths(reader.search("zebras graze beneath the acacia", mode=mode, k=11))
        (folder / "new.txt").unlink()
        index.add(folder)
        for mode in ("lexical", "dense", "hybrid"):
            assert "new.txt" not in paths(reader.search("zebras graze beneath the acacia", mode=mode, k=11))


def test_reader_of_an_empty_store_sees_the_first_commit(folder, tiny_encoder_dir):
    with open_index(folder, tiny_encoder_dir) as writer, open_index(folder, tiny_encoder_dir) as reader:
        assert reader.search("kettle", mode="lexical") == []
        assert reader.status()["documents"] == 0
        writer.add(folder)
        assert len(reader.search("kettle boils", mode="dense")) == 10


def test_eight_threads_search_while_one_adds(index, folder):
    expected = corpus(10)
    problems: list[object] = []
    done = threading.Event()

    def search(number: int) -> None:
        modes = ("hybrid", "dense", "lexical")
        try:
            while not done.is_set():
                hits = index.search(SENTENCES[number], k=3, mode=modes[number % 3])
                if hits[0].text not in expected[f"doc{number:03}.txt"]:
                    problems.append(hits)
        except Exception as error:  # noqa: BLE001 - reported by the assertion below
            problems.append(error)

    threads = [threading.Thread(target=search, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        for number in range(4):
            write(folder, {f"more{number}.txt": f"Zebras graze beneath {number} acacias."})
            index.add(folder)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert problems == []
    assert index.verify().ok


def test_close_is_harmless_twice_and_while_unused(index):
    index.close()
    index.close()


def test_watch_reports_every_change_until_it_is_stopped(index, folder):
    stop = threading.Event()
    reports = index.watch(folder, stop=stop)
    assert next(reports).unchanged == 10
    write(folder, {"early.txt": "written before the watch began"})
    assert next(reports).added == 1
    write(folder, {"late.txt": "Zebras graze."})
    assert next(reports).added == 1
    assert "late.txt" in paths(index.search("zebras", mode="lexical"))
    write(folder, {"broken.docx": b"no"})
    assert [failure.path for failure in next(reports).failed] == ["broken.docx"]
    (folder / "late.txt").rename(folder / "later.txt")
    assert next(reports).moved == 1
    (folder / "broken.docx").unlink()
    (folder / "later.txt").unlink()
    report = next(reports)
    assert report.deleted == 1
    assert report.failed == ()
    with WriterLease(index.store, command="other"):
        write(folder, {"patient.txt": "written while another process writes"})
        release = threading.Timer(3.0, stop.set)
        release.start()
        assert list(reports) == []
    release.join()
    stop.clear()
    assert next(index.watch(folder, stop=stop)).added == 1

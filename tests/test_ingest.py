"""Index runs: what is found new, changed, moved or gone, and what every run leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import CancelledError
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from index_kit import SMALL, answers, corpus, open_index, paths, prose, write
from tiny import SENTENCES

from ragindex.chunking import ChunkOptions
from ragindex.config import Limits
from ragindex.encoder import Encoder
from ragindex.errors import UsageError, WipeGuardError
from ragindex.ingest import plan as planning
from ragindex.ingest.context import ChunkContext
from ragindex.ingest.stages import Cutter
from ragindex.loaders import LoaderPool
from ragindex.loaders.sandbox import _Worker
from ragindex.loaders.walk import WalkEntry
from ragindex.store.rows import FileState
from ragindex.types import Document, IndexReport


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def index(folder, tiny_encoder_dir):
    with open_index(folder, tiny_encoder_dir) as opened:
        yield opened


def counts(report: IndexReport) -> dict[str, int]:
    names = ("added", "updated", "moved", "deleted", "unchanged")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


class Break:
    """A Progress that interrupts the run after so many advances."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.finished = False

    def start(self, files: int) -> None: ...

    def advance(self, *, files: int = 0, chunks: int = 0, tokens: int = 0) -> None:
        self.left -= 1
        if self.left <= 0:
            raise KeyboardInterrupt

    def finish(self) -> None:
        self.finished = True


def test_first_run_adds_everything_and_the_second_finds_nothing_to_do(index, folder):
    write(folder, corpus(5))
    first = index.add(folder)
    assert counts(first) == {"added": 5}
    assert first.chunks == first.embedded_chunks == 5
    assert first.tokens > 0
    assert first.seconds > 0
    second = index.add(folder)
    assert counts(second) == {"unchanged": 5}
    assert (second.chunks, second.embedded_chunks, second.tokens) == (0, 0, 0)


def test_changed_file_is_updated_and_its_old_text_is_gone(index, folder):
    write(folder, corpus(3))
    index.add(folder)
    write(folder, {"doc000.txt": "Zebras graze beneath the acacia.\n"}, age=30)
    report = index.add(folder)
    assert counts(report) == {"updated": 1, "unchanged": 2}
    assert report.embedded_chunks == 1
    texts = [hit.text for hit in index.search("zebra signing key", k=10)]
    assert any("Zebras" in text for text in texts)
    assert not any("Note number 0." in text for text in texts)


def test_touched_file_is_read_but_neither_cut_nor_embedded(index, folder):
    write(folder, corpus(2))
    index.add(folder)
    before = index.documents()[0]
    os.utime(folder / "doc000.txt", (1_000_000_000, 1_000_000_000))
    report = index.add(folder)
    assert counts(report) == {"unchanged": 2}
    assert report.chunks == 0
    after = index.documents()[0]
    assert after["modified"] == "2001-09-09T01:46:40Z"
    assert after["indexed_at"] == before["indexed_at"]


def test_rename_moves_without_embedding_and_answers_under_the_new_name(index, folder):
    write(folder, corpus(3))
    index.add(folder)
    (folder / "sub").mkdir()
    (folder / "doc001.txt").rename(folder / "sub" / "kettle.txt")
    report = index.add(folder)
    assert counts(report) == {"moved": 1, "unchanged": 2}
    assert report.embedded_chunks == 0
    for mode in ("hybrid", "dense", "lexical"):
        assert "sub/kettle.txt" in paths(index.search("kettle boils water", mode=mode))
    assert "doc001.txt" not in [row["path"] for row in index.documents()]
    assert paths(index.search("path kettle sub", mode="lexical"))[0] == "sub/kettle.txt"  # the path itself is indexed


def test_renamed_folder_swapped_names_and_a_change_in_the_same_run(index, folder):
    write(folder, {f"a/{name}": text for name, text in corpus(4).items()})
    write(folder, {"one.txt": "first text", "two.txt": "a second text"})
    index.add(folder)
    (folder / "a").rename(folder / "b")
    (folder / "one.txt").rename(folder / "x")
    (folder / "two.txt").rename(folder / "one.txt")
    (folder / "x").rename(folder / "two.txt")
    write(folder, {"b/doc000.txt": "changed as well as moved"}, age=30)
    report = index.add(folder)
    assert report.moved == 3
    assert report.embedded_chunks == 1
    assert index.search("second text", mode="lexical")[0].path == "one.txt"
    assert index.verify().ok
    assert sorted(row["path"] for row in index.documents()) == [
        *(f"b/{name}" for name in corpus(4)),
        "one.txt",
        "two.txt",
    ]


def test_another_suffix_is_another_document(index, folder):
    write(folder, {"page.txt": "# Heading\n\nSome words.\n"})
    index.add(folder)
    (folder / "page.txt").rename(folder / "page.md")
    report = index.add(folder, allow_delete=True)
    assert counts(report) == {"added": 1, "deleted": 1}
    assert index.documents()[0]["title"] == "Heading"


def test_deleted_file_stops_answering(index, folder):
    write(folder, corpus(3))
    index.add(folder)
    (folder / "doc001.txt").unlink()
    assert counts(index.add(folder)) == {"deleted": 1, "unchanged": 2}
    assert "doc001.txt" not in paths(index.search("kettle boils water"))
    assert index.verify().ok


def test_identical_files_are_two_documents(index, folder):
    write(folder, {"a.txt": SENTENCES[0], "copy.txt": SENTENCES[0], "other.txt": SENTENCES[1]})
    report = index.add(folder)
    assert (report.added, report.chunks, report.embedded_chunks, report.reused_chunks) == (3, 3, 2, 1)
    (folder / "a.txt").unlink()
    report = index.add(folder)
    assert counts(report) == {"deleted": 1, "unchanged": 2}
    for mode in ("hybrid", "dense", "lexical"):
        assert index.search("signing key sessions", k=1, mode=mode)[0].path == "copy.txt"


def test_same_text_is_not_embedded_again_in_a_later_run(index, folder):
    write(folder, {"a.txt": SENTENCES[0]})
    index.add(folder)
    write(folder, {"b.txt": SENTENCES[0]})
    report = index.add(folder)
    assert (report.added, report.embedded_chunks, report.reused_chunks) == (1, 0, 1)
    (folder / "a.txt").unlink()
    (folder / "b.txt").unlink()
    index.add(folder, allow_delete=True)
    write(folder, {"c.txt": SENTENCES[0]})
    assert index.add(folder).embedded_chunks == 0


def test_same_text_in_different_batches_of_one_run_is_embedded_once(index, folder):
    write(folder, {f"{number:04}.txt": SENTENCES[number % 3] for number in range(600)})
    report = index.add(folder)
    assert (report.added, report.embedded_chunks, report.reused_chunks) == (600, 3, 597)
    assert index.verify().ok


def test_empty_root_stops_and_changes_nothing(index, folder):
    write(folder / "docs", corpus(3))
    index.add(folder / "docs")
    shutil.rmtree(folder / "docs")
    (folder / "docs").mkdir()
    with pytest.raises(WipeGuardError, match=r"3 of 3 .*--allow-delete"):
        index.add(folder / "docs")
    assert len(index.documents()) == 3
    assert counts(index.add(folder / "docs", allow_delete=True)) == {"deleted": 3}
    assert index.documents() == []
    assert index.search("kettle") == []


def test_missing_root_is_an_error_even_with_allow_delete(index, folder):
    write(folder / "docs", corpus(3))
    index.add(folder / "docs")
    shutil.rmtree(folder / "docs")
    for allow in (False, True):
        with pytest.raises(UsageError, match="does not exist"):
            index.add(folder / "docs", allow_delete=allow)
    assert len(index.documents()) == 3


@pytest.mark.parametrize(("gone", "stops"), [(2, False), (3, True)])
def test_more_than_half_gone_stops(index, folder, gone, stops):
    write(folder, corpus(4))
    index.add(folder)
    for number in range(gone):
        (folder / f"doc00{number}.txt").unlink()
    if stops:
        with pytest.raises(WipeGuardError):
            index.add(folder)
        assert len(index.documents()) == 4
    else:
        assert index.add(folder).deleted == gone


def test_moving_every_file_is_no_wipe(index, folder):
    write(folder / "old", corpus(4))
    index.add(folder)
    (folder / "old").rename(folder / "new")
    assert counts(index.add(folder)) == {"moved": 4}


def test_folder_that_cannot_be_listed_keeps_its_documents(index, folder, monkeypatch):
    write(folder, {"open.txt": SENTENCES[0], "shut/a.txt": SENTENCES[1], "shut/b.pdf": b"no pdf"})
    assert [failure.path for failure in index.add(folder).failed] == ["shut/b.pdf"]
    real = planning.walk

    def blind(root, **options):
        for entry in real(root, **options):
            if entry.path.parent.name != "shut":
                yield entry
        yield WalkEntry(root / "shut", 0, 0, -1, "folder cannot be listed: Permission denied")

    monkeypatch.setattr(planning, "walk", blind)
    report = index.add(folder)
    assert counts(report) == {"unchanged": 1}
    assert [failure.path for failure in report.failed] == ["shut"]
    assert "shut/a.txt" in paths(index.search("kettle boils"))
    assert {failure.path for failure in index.failures()} == {"shut", "shut/b.pdf"}
    monkeypatch.undo()
    report = index.add(folder)
    assert counts(report) == {"unchanged": 2}
    assert [failure.path for failure in index.failures()] == ["shut/b.pdf"]


def test_failure_is_listed_and_not_tried_again_until_the_file_changes(index, folder, monkeypatch):
    write(folder, {"good.txt": SENTENCES[0], "bad.pdf": b"%PDF-1.4 nothing follows"})
    first = index.add(folder)
    assert counts(first) == {"added": 1}
    assert [failure.path for failure in first.failed] == ["bad.pdf"]
    assert first.failed[0].reason
    loaded = _watch_loading(monkeypatch)
    assert index.add(folder).failed == first.failed
    assert loaded == []
    write(folder, {"bad.pdf": b"%PDF-1.4 something else"}, age=10)
    assert len(index.add(folder).failed) == 1
    assert loaded == ["bad.pdf"]
    assert [failure.path for failure in index.failures()] == ["bad.pdf"]


def _watch_loading(monkeypatch) -> list[str]:
    loaded: list[str] = []
    real = LoaderPool.load

    def load(self, path, *, name):
        loaded.append(name)
        return real(self, path, name=name)

    monkeypatch.setattr(LoaderPool, "load", load)
    return loaded


def test_a_moved_document_has_the_time_of_its_new_file(index, folder):
    write(folder, corpus(3))
    index.add(folder)
    (folder / "doc001.txt").unlink()
    write(folder, {"new/doc001.txt": corpus(2)["doc001.txt"]}, age=86_400)
    before = {row["path"]: row for row in index.documents()}["doc001.txt"]
    assert counts(index.add(folder)) == {"moved": 1, "unchanged": 2}
    after = {row["path"]: row for row in index.documents()}["new/doc001.txt"]
    modified = datetime.fromtimestamp((folder / "new/doc001.txt").stat().st_mtime, UTC)
    assert after["modified"] == modified.strftime("%Y-%m-%dT%H:%M:%SZ") < before["modified"]
    assert after | {"path": "", "modified": ""} == before | {"path": "", "modified": ""}
    assert index.search("kettle", mode="lexical", filter=f"modified = '{after['modified']}'")


def test_failure_is_cleared_when_the_file_is_mended_or_removed(index, folder):
    write(folder, {"one.docx": b"broken", "two.docx": b"broken too", "good.txt": SENTENCES[0]})
    assert len(index.add(folder).failed) == 2
    (folder / "one.docx").unlink()
    (folder / "two.docx").unlink()
    write(folder, {"two.txt": SENTENCES[1]})
    report = index.add(folder)
    assert report.failed == ()
    assert index.failures() == []
    write(folder, {"page.ipynb": b"{"})
    assert len(index.add(folder).failed) == 1
    write(folder, {"page.ipynb": b'{"cells":[{"cell_type":"markdown","source":"hello there"}]}'}, age=5)
    assert counts(index.add(folder)) == {"added": 1, "unchanged": 2}
    assert index.failures() == []


def test_failure_is_tried_again_when_limits_change(folder, tiny_encoder_dir):
    write(folder, {"long.txt": "word " * 300_000})
    tight = replace(SMALL, limits=Limits(text_mb=1))
    with open_index(folder, tiny_encoder_dir, settings=tight) as index:
        assert "limits.text_mb" in index.add(folder).failed[0].reason
        assert len(index.add(folder).failed) == 1
    looser = replace(SMALL, chunk_tokens=500, limits=Limits(text_mb=2))
    with open_index(folder, tiny_encoder_dir, settings=looser) as index:
        report = index.add(folder)
        assert report.failed == ()
        assert counts(report) == {"added": 1}


def test_file_that_could_not_be_opened_is_tried_again_though_it_looks_the_same(index, folder, monkeypatch):
    write(folder, {"locked.txt": SENTENCES[0]})
    real = os.open

    def refuse(path, *arguments, **options):
        if str(path).endswith("locked.txt"):
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert index.add(folder).failed[0].reason == "permission denied"
    monkeypatch.undo()  # as after chmod, which leaves the modification time alone
    report = index.add(folder)
    assert counts(report) == {"added": 1}
    assert index.failures() == []


def test_file_that_changed_into_a_broken_one_stops_answering(index, folder):
    write(folder, {"page.ipynb": b'{"cells":[{"cell_type":"markdown","source":"zebras graze"}]}', "b.txt": "words"})
    index.add(folder)
    assert index.search("zebras", mode="lexical")
    write(folder, {"page.ipynb": b'{"cells":[{"cell_type"'}, age=30)
    report = index.add(folder)
    assert [failure.path for failure in report.failed] == ["page.ipynb"]
    assert index.search("zebras", mode="lexical") == []
    assert "page.ipynb" not in paths(index.search("zebras graze"))


def test_dry_run_tells_and_changes_nothing(index, folder):
    write(folder, corpus(4))
    index.add(folder)
    (folder / "doc000.txt").unlink()
    (folder / "doc001.txt").rename(folder / "moved.txt")
    write(folder, {"doc002.txt": "changed", "new.txt": "new"}, age=30)
    before = (index.documents(), answers(index), index.status()["generation"])
    report = index.add(folder, dry_run=True)
    assert counts(report) == {"added": 1, "updated": 1, "moved": 1, "deleted": 1, "unchanged": 1}
    assert (index.documents(), answers(index), index.status()["generation"]) == before
    assert counts(index.add(folder)) == counts(report)


def test_several_roots_and_one_outside_of_the_store_folder(index, folder, tmp_path):
    write(folder, {"a/one.txt": SENTENCES[0], "b/two.txt": SENTENCES[1], "c/three.txt": SENTENCES[2]})
    write(tmp_path / "elsewhere", {"four.txt": SENTENCES[3]})
    report = index.add(folder / "a", folder / "b", tmp_path / "elsewhere")
    assert counts(report) == {"added": 3}
    outside = (tmp_path / "elsewhere" / "four.txt").as_posix()
    assert [row["path"] for row in index.documents()] == sorted([outside, "a/one.txt", "b/two.txt"])
    # A run over one root leaves the documents of the others alone, the base included.
    assert counts(index.add(folder / "a")) == {"unchanged": 1}
    assert counts(index.add(folder)) == {"added": 1, "unchanged": 2}
    assert len(index.documents()) == 4
    # A root within a root is walked once.
    assert counts(index.add(folder / "a", folder)) == {"unchanged": 3}


def test_folder_whose_name_begins_like_another_is_another(index, folder):
    write(folder, {"doc/a.txt": "one", "docs/b.txt": "two", "doc%/c.txt": "three", "do_/d.txt": "four"})
    index.add(folder)
    (folder / "doc" / "a.txt").unlink()
    assert index.add(folder / "doc", allow_delete=True).deleted == 1
    (folder / "do_" / "d.txt").unlink()
    assert index.add(folder / "do_", allow_delete=True).deleted == 1
    assert [row["path"] for row in index.documents()] == ["doc%/c.txt", "docs/b.txt"]


def test_single_file_as_a_root(index, folder):
    write(folder, corpus(3))
    assert counts(index.add(folder / "doc001.txt")) == {"added": 1}
    assert counts(index.add(folder)) == {"added": 2, "unchanged": 1}
    assert [failure.path for failure in _add_strange(index, folder).failed] == ["strange.bin"]


def _add_strange(index, folder) -> IndexReport:
    write(folder, {"strange.bin": b"\0\1\2"})
    return index.add(folder / "strange.bin")


def test_include_and_exclude(index, folder):
    write(folder, {"a.md": "alpha", "b.txt": "beta", "sub/c.md": "gamma", "sub/d.md": "delta"})
    assert counts(index.add(folder, include=["*.md"], exclude=["sub/d.md"])) == {"added": 2}
    assert [row["path"] for row in index.documents()] == ["a.md", "sub/c.md"]


def test_change_within_one_step_of_the_file_clock_is_seen(index, folder):
    file = folder / "a.txt"
    file.write_text("first words")
    stamp = time.time_ns()
    os.utime(file, ns=(stamp, stamp))
    index.add(folder)
    file.write_text("other words")  # as long, and the clock has not moved on
    os.utime(file, ns=(stamp, stamp))
    assert counts(index.add(folder)) == {"updated": 1}
    assert index.search("other", mode="lexical")


def test_other_chunk_size_cuts_again_and_is_kept(folder, tiny_encoder_dir):
    write(folder, {"long.txt": prose(40)})
    with open_index(folder, tiny_encoder_dir) as index:
        small = index.add(folder).chunks
    with open_index(folder, tiny_encoder_dir, settings=replace(SMALL, chunk_tokens=200)) as index:
        report = index.add(folder)
        assert counts(report) == {"updated": 1}
        assert report.chunks < small
    with open_index(folder, tiny_encoder_dir, settings=None) as index:
        assert index.status()["chunk_tokens"] == 200
        assert counts(index.add(folder)) == {"unchanged": 1}


def test_chunk_size_beyond_the_encoder_is_refused_and_forgotten(folder, tiny_encoder_dir):
    write(folder, corpus(2))
    with open_index(folder, tiny_encoder_dir) as index:
        index.add(folder)
    with (
        open_index(folder, tiny_encoder_dir, settings=replace(SMALL, chunk_tokens=5000)) as index,
        pytest.raises(UsageError, match="at most 512"),
    ):
        index.add(folder)
    with open_index(folder, tiny_encoder_dir, settings=None) as index:
        assert counts(index.add(folder)) == {"unchanged": 2}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_name_that_is_no_utf8(index, folder):
    name = os.fsencode(folder) + b"/caf\xe9.txt"
    with open(name, "wb") as stream:  # noqa: PTH123 - pathlib takes no bytes
        stream.write(b"coffee is served at four")
    assert counts(index.add(folder)) == {"added": 1}
    assert index.search("coffee", mode="lexical")[0].path == r"caf\xe9.txt"
    os.utime(name, (1, 1))
    assert counts(index.add(folder)) == {"unchanged": 1}


def test_odd_names(index, folder):
    names = ["with space.txt", "new\nline.txt", "emoji 🦓.txt", "-rf.txt", "%20_'\".txt", ".txt.txt", "a:1.txt"]
    write(folder, {name: f"{SENTENCES[number]}" for number, name in enumerate(names)})
    report = index.add(folder)
    assert report.failed == ()
    listed = [row["path"] for row in index.documents()]
    assert set(listed) == set(names) - {".txt.txt"}
    assert counts(index.add(folder)) == {"unchanged": len(listed)}
    assert index.remove(folder / "new\nline.txt") == 1


def test_collections_are_separate_and_share_vectors(folder, tiny_encoder_dir):
    write(folder, corpus(3))
    with open_index(folder, tiny_encoder_dir) as one, open_index(folder, tiny_encoder_dir, collection="two") as two:
        one.add(folder)
        report = two.add(folder)
        assert (report.added, report.embedded_chunks, report.reused_chunks) == (3, 0, 3)
        (folder / "doc001.txt").unlink()
        one.add(folder)
        assert "doc001.txt" not in paths(one.search("kettle boils"))
        assert "doc001.txt" in paths(two.search("kettle boils"))
        assert one.status()["collections"] == ["default", "two"]


def test_documents_that_are_no_files_are_left_alone_by_a_walk(index, folder):
    write(folder, corpus(2))
    report = index.put([Document("note-1", "Zebras graze on the plain.", "Zebra", metadata={"kind": "note"})])
    assert counts(report) == {"added": 1}
    assert counts(index.add(folder)) == {"added": 2}
    assert counts(index.add(folder)) == {"unchanged": 2}
    hit = index.search("zebras graze", k=1)[0]
    assert (hit.path, hit.title, hit.metadata["kind"]) == ("note-1", "Zebra", "note")
    again = index.put([Document("note-1", "Zebras graze on the plain.", "Zebra", metadata={"kind": "note"})])
    assert counts(again) == {"unchanged": 1}
    changed = index.put([Document("note-1", "Zebras graze on the plain.", "Zebra", metadata={"kind": "memo"})])
    assert counts(changed) == {"updated": 1}
    assert changed.embedded_chunks == 0
    assert index.search("zebras", filter="kind = 'memo'")
    assert index.remove("note-1") == 1


def test_interrupted_run_keeps_what_was_committed_and_the_next_one_converges(folder, tiny_encoder_dir, tmp_path):
    write(folder, corpus(700))
    with open_index(folder, tiny_encoder_dir) as index:
        progress = Break(after=1)
        with pytest.raises(KeyboardInterrupt):
            index.add(folder, progress=progress)
        assert progress.finished
        kept = len(index.documents())
        assert 0 < kept < 700
        assert index.verify().ok
        assert index.search("kettle")
    with open_index(folder, tiny_encoder_dir) as index:
        report = index.add(folder)
        assert (report.added, report.unchanged) == (700 - kept, kept)
        resumed = answers(index)
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole, ignore=shutil.ignore_patterns(".ragindex"))
    with open_index(whole, tiny_encoder_dir) as index:
        index.add(whole)
        assert answers(index) == resumed


def test_long_document_that_is_interrupted_is_not_embedded_from_the_beginning(folder, tiny_encoder_dir):
    write(folder, {"long.txt": prose(3000)})
    with open_index(folder, tiny_encoder_dir) as index:
        with pytest.raises(KeyboardInterrupt):
            index.add(folder, progress=Break(after=2))
        assert index.documents() == []
        report = index.add(folder)
        assert counts(report) == {"added": 1}
        assert report.reused_chunks >= 500
        assert report.embedded_chunks + report.reused_chunks == report.chunks
        assert index.verify().ok


def test_interrupt_gives_up_a_parser_that_hangs(folder, tiny_encoder_dir, monkeypatch):
    hanging = threading.Event()
    real = _Worker.load

    def load(self, path, name):
        hanging.set()
        return real(self, path, name)

    monkeypatch.setattr(_Worker, "load", load)
    monkeypatch.setattr(LoaderPool, "_command", (sys.executable, "-c", SLEEPER))
    write(folder, {"slow.pdf": b"%PDF-1.4", "other.txt": SENTENCES[0]})
    with open_index(folder, tiny_encoder_dir, settings=replace(SMALL, limits=Limits(seconds=250.0))) as index:
        # As from a terminal: raised in this thread it would not wake the main one from its wait.
        main = threading.main_thread().ident
        interrupter = threading.Thread(target=lambda: hanging.wait(60) and signal.pthread_kill(main, signal.SIGINT))
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):  # the test's own time limit is the assertion
            index.add(folder)
        interrupter.join()
        assert index.failures() == []


# Answers that it is ready, and then never again.
SLEEPER = """
import sys, time
from ragindex.loaders.frames import read_frame, write_frame
read_frame(sys.stdin.buffer)
write_frame(sys.stdout.buffer, b"{}")
time.sleep(200)
"""


def test_cancelled_cutter_gives_up(tiny_encoder_dir):
    encoder = Encoder.load(str(tiny_encoder_dir))
    cutter = Cutter(ChunkContext(encoder, budget=64), encoder, ChunkOptions(budget=64, overlap=8))
    document = Document("long", prose(50))
    state = FileState("long", 1, 1, "", 1, "")
    assert len(cutter.cut(document, state, replaces=False).chunks) > 10
    cutter.cancel()
    with pytest.raises(CancelledError):
        cutter.cut(document, state, replaces=False)


def test_the_store_itself_is_no_folder_to_index(index, folder):
    write(folder, corpus(1))
    index.add(folder)
    for part in (".ragindex", ".ragindex/snapshots"):
        with pytest.raises(UsageError, match="belongs to the index itself"):
            index.add(folder / part)


def test_link_out_of_the_root_and_link_loop(index, folder, tmp_path):
    write(tmp_path, {"secret.txt": "outside"})
    write(folder, corpus(1))
    (folder / "out.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "loop").symlink_to(folder)
    (folder / "self.txt").symlink_to("self.txt")
    assert counts(index.add(folder)) == {"added": 1}


def test_unknown_path_and_no_path(index):
    with pytest.raises(UsageError, match="does not exist"):
        index.add(Path("nowhere"))
    with pytest.raises(UsageError, match="which files or folders"):
        index.add()

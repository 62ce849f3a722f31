"""Clocks that go backwards, and files that change while they are read: nothing is missed, nothing torn is indexed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from index_kit import corpus, open_index, paths, write
from tiny import SENTENCES

from ragindex.config import Limits
from ragindex.errors import LoadError, StoreLockedError
from ragindex.loaders import load
from ragindex.loaders import reading as reader
from ragindex.store.lease import WriterLease

HOUR = 3600.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    write(tmp_path / "notes", corpus(6))
    return tmp_path / "notes"


def turned(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the clock of this process go wrong by so much; what measures intervals goes on as it did."""
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() + seconds)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + int(seconds * 1e9))


# Clocks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-24 * HOUR, 24 * HOUR])
def test_a_change_is_seen_whatever_the_clock_says(
    folder: Path, tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    with open_index(folder, tiny_encoder_dir) as index:
        index.add(folder)
        turned(monkeypatch, seconds)
        write(folder, {"doc001.txt": "A heron stands in the water.\n"}, age=0)
        assert index.add(folder).updated == 1
        assert paths(index.search("heron", mode="lexical")) == ["doc001.txt"]
        monkeypatch.undo()
        # As long as the text before, by a clock that is behind: the time of the file is earlier than that of the last.
        write(folder, {"doc001.txt": "A goose stands in the water.\n"}, age=2 * HOUR)
        assert index.add(folder).updated == 1
        assert paths(index.search("goose", mode="lexical")) == ["doc001.txt"]
        assert index.search("heron", mode="lexical") == []
        assert index.add(folder).unchanged == 6
        assert index.verify().problems == ()


def test_a_file_from_the_future_is_read_again_until_its_time_has_come(folder: Path, tiny_encoder_dir: Path) -> None:
    """A second change within the step of the file clock leaves size and time as they were."""
    then = time.time() + HOUR
    file = folder / "doc002.txt"
    with open_index(folder, tiny_encoder_dir) as index:
        for bird in ("heron", "goose", "eagle"):
            file.write_text(f"The {bird} flies.\n")
            os.utime(file, (then, then))
            report = index.add(folder)
            assert report.added + report.updated >= 1
            assert paths(index.search(bird, mode="lexical")) == ["doc002.txt"]


def test_histories_keep_their_order(folder: Path, tiny_encoder_dir: Path, tmp_path: Path, monkeypatch) -> None:
    from tiny import tiny_encoder

    other = tiny_encoder(tmp_path / "other", seed=1)
    with open_index(folder, tiny_encoder_dir) as index:
        index.add(folder)
        turned(monkeypatch, -24 * HOUR)
        index.promote(other)
        assert index.status()["encoder"]["name"] == str(other)
        monkeypatch.undo()
        assert [Path(entry["name"]).name for entry in index.status()["activations"]] == ["tiny", "other"]
        index.rollback()
        assert Path(index.status()["encoder"]["name"]).name == "tiny"
        assert index.verify().problems == ()


@pytest.mark.parametrize("since", [-1e9, 4e9, 1e300, float("nan"), "yesterday", None])
def test_a_lease_is_not_judged_by_a_clock(tmp_path: Path, since: object) -> None:
    """Whoever holds it holds it, however long ago that began; whoever is dead does not, however recently."""
    with WriterLease(tmp_path, command="index docs"):
        note = {"pid": os.getpid(), "host": "here", "command": "index docs", "since": since}
        (tmp_path / "writer.lock").write_text(json.dumps(note))
        with pytest.raises(StoreLockedError, match="is being written by"):
            WriterLease(tmp_path, command="second", wait=0.0).acquire()
    with WriterLease(tmp_path, command="third", wait=0.0) as lease:
        assert lease.held


def test_waiting_for_the_lease_does_not_follow_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with WriterLease(tmp_path, command="first"):
        turned(monkeypatch, -24 * HOUR)
        with pytest.raises(StoreLockedError):
            WriterLease(tmp_path, command="second", wait=0.2).acquire()


# Files that change ---------------------------------------------------------------------------------------------------


def meanwhile(monkeypatch: pytest.MonkeyPatch, file: Path, *acts: Callable[[Path], None]) -> None:
    """At each of the first readings of `file`, one after the other, let something happen to it half-way."""
    left, opened = list(acts), os.fdopen

    class Halting:
        def __init__(self, stream: object) -> None:
            self.stream = stream

        def __enter__(self) -> Halting:
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()

        def fileno(self) -> int:
            return self.stream.fileno()

        def read(self, most: int) -> bytes:
            head = self.stream.read(10)
            if left:
                left.pop(0)(file)
            return head + self.stream.read(most - 10)

    def halting(descriptor: int, *rest: str) -> object:
        stream = opened(descriptor, *rest)
        return Halting(stream) if os.path.samestat(os.fstat(descriptor), file.stat()) else stream

    monkeypatch.setattr(reader.os, "fdopen", halting)


def rewritten(file: Path) -> None:
    """Other words, as many bytes, another time."""
    before = file.stat().st_mtime_ns
    file.write_text(file.read_text().translate(str.maketrans("aeiou", "ooooo")))
    os.utime(file, ns=(before + 1_000_000, before + 1_000_000))


def grown(file: Path) -> None:
    with file.open("a") as stream:
        stream.write("And a goose came.\n")


def shortened(file: Path) -> None:
    os.truncate(file, 30)


@pytest.mark.parametrize("act", [rewritten, grown, shortened])
def test_a_torn_reading_is_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch, act) -> None:
    file = folder / "doc003.txt"
    meanwhile(monkeypatch, file, act)
    assert load(file, name="doc003.txt", limits=Limits()).text == file.read_text()


def test_a_file_that_does_not_come_to_rest_is_reported(folder: Path, tiny_encoder_dir: Path, monkeypatch) -> None:
    file = folder / "doc003.txt"
    with monkeypatch.context() as patch, open_index(folder, tiny_encoder_dir) as index:
        meanwhile(patch, file, grown, grown)
        report = index.add(folder)
        assert [(failure.path, failure.reason) for failure in report.failed] == [
            ("doc003.txt", "changed while it was read")
        ]
        assert index.failures() == list(report.failed)
        # The next run finds it at rest.
        assert index.add(folder).added == 1
        assert index.failures() == []
        assert paths(index.search("goose", mode="lexical")) == ["doc003.txt"]


def test_a_file_that_changes_after_it_was_read_is_read_by_the_next_run(
    folder: Path, tiny_encoder_dir: Path, monkeypatch
) -> None:
    """Its size and time are those of the walk, which the file has left by then."""
    from ragindex.ingest import stages

    file, cut = folder / "doc003.txt", stages.Cutter.cut

    def cutting(self, document, state, *, replaces):
        if document.path == "doc003.txt" and "goose" not in document.text:
            grown(file)
        return cut(self, document, state, replaces=replaces)

    monkeypatch.setattr(stages.Cutter, "cut", cutting)
    with open_index(folder, tiny_encoder_dir) as index:
        index.add(folder)
        assert index.search("goose", mode="lexical") == []
        assert index.add(folder).updated == 1
        assert paths(index.search("goose", mode="lexical")) == ["doc003.txt"]


def test_a_file_that_goes_while_it_is_read(folder: Path, tiny_encoder_dir: Path, monkeypatch) -> None:
    file = folder / "doc003.txt"
    with open_index(folder, tiny_encoder_dir) as index:
        index.add(folder)
        write(folder, {"doc003.txt": f"{SENTENCES[1]} Once more.\n"}, age=0)
        real = reader.os.open

        def gone(path: Path | str, *rest: int, dir_fd: int | None = None) -> int:
            if Path(path) == file:
                file.unlink(missing_ok=True)
            return real(path, *rest, dir_fd=dir_fd)

        with monkeypatch.context() as patch:
            patch.setattr(reader.os, "open", gone)
            assert [failure.reason for failure in index.add(folder).failed] == ["no longer exists"]
        assert "doc003.txt" not in paths(index.search("kettle boils", mode="lexical", k=20))
        assert index.add(folder).failed == ()
        assert index.failures() == []
        assert index.verify().problems == ()


def test_no_reading_is_torn_without_being_told() -> None:
    with pytest.raises(LoadError, match="no longer exists"):
        load(Path("/nonexistent/file.txt"), name="x", limits=Limits())

"""A store changes its encoder while it serves, and goes back."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from index_kit import SMALL, answers, corpus, open_index, paths, write
from tiny import SENTENCES, tiny_encoder

from ragindex import Index
from ragindex.encoder import Encoder
from ragindex.errors import EncoderError, StoreError, StoreLockedError, UsageError
from ragindex.ingest.progress import Silent
from ragindex.store.catalog import Catalog
from ragindex.store.dense_files import read_manifest
from ragindex.store.feeding import Feeding
from ragindex.store.lease import WriterLease
from ragindex.store.live_dense import LiveDense
from ragindex.store.snapshot import LiveIndexes

DOCUMENTS = 40


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Encoders that need no torch: "new" has the dimensions of "old", so that their vectors could be mixed up."""
    home = tmp_path_factory.mktemp("encoders")
    return {
        "old": tiny_encoder(home / "old", layers=0, seed=1),
        "new": tiny_encoder(home / "new", layers=0, seed=2),
        "third": tiny_encoder(home / "third", layers=0, seed=3, head=False),
    }


@pytest.fixture(scope="module")
def told(encoders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a store says that has had one of the encoders from the beginning."""
    said: dict[str, object] = {}
    for name, directory in encoders.items():
        folder = tmp_path_factory.mktemp("told") / "notes"
        write(folder, corpus(DOCUMENTS))
        with open_index(folder, directory) as index:
            index.add(folder)
            said[name] = answers(index)
    assert said["old"] != said["new"]
    return said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "notes", corpus(DOCUMENTS))
    return tmp_path / "notes"


@pytest.fixture
def index(folder: Path, encoders: dict[str, Path]) -> Iterator[Index]:
    with open_index(folder, encoders["old"]) as made:
        made.add(folder)
    with Index.open(folder / ".ragindex", settings=SMALL) as opened:
        yield opened


@pytest.fixture
def own(encoders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of "new" that a test may spoil."""
    return Path(shutil.copytree(encoders["new"], tmp_path / "own"))


class During(Silent):
    """A progress that does something in the middle of the embedding, once."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act
        self.told: list[object] = []

    def advance(self, *, files: int = 0, chunks: int = 0, tokens: int = 0) -> None:
        if not self.told:
            self.told.append(self.act())


def in_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Feeding.iter_unembedded.__kwdefaults__, "batch", 16)


def dense_folders(index: Index) -> set[str]:
    return {folder.name.removeprefix("dense-") for folder in index.store.glob("snapshots/*/dense-*")}


def short(directory: Path) -> str:
    return Encoder.load(directory).fingerprint[:12]


def test_promotion_switches_and_rollback_goes_back_embedding_nothing(index, encoders, told):
    assert answers(index) == told["old"]
    promotion = index.promote(str(encoders["new"]), note="better on our questions")
    assert promotion.embedded == DOCUMENTS
    assert (promotion.encoder, promotion.previous) == (str(encoders["new"]), str(encoders["old"]))
    assert promotion.fingerprint == index.encoder.fingerprint == Encoder.load(encoders["new"]).fingerprint
    assert answers(index) == told["new"]
    back = index.rollback()
    assert (back.embedded, back.encoder, back.previous) == (0, str(encoders["old"]), str(encoders["new"]))
    assert answers(index) == told["old"]
    assert index.rollback().embedded == 0  # a second one undoes the first
    assert answers(index) == told["new"]
    assert index.verify().ok


def test_the_store_remembers_which_encoders_served_when_and_why(index, encoders):
    index.promote(str(encoders["new"]), note="better on our questions")
    index.promote(str(encoders["new"]), note="it serves already")
    status = index.status()
    assert status["encoder"]["name"] == str(encoders["new"])
    assert status["previous_encoder"]["name"] == str(encoders["old"])
    index.rollback()
    entries = index.status()["activations"]
    assert [(Path(entry["name"]).name, entry["note"]) for entry in entries] == [
        ("old", "first encoder of the store"),
        ("new", "better on our questions"),
        ("old", "rollback"),
    ]
    moments = [entry["activated_at"] for entry in entries]
    assert moments == sorted(moments)
    assert all(moment.endswith("Z") for moment in moments)
    assert index.status()["previous_encoder"]["name"] == str(encoders["new"])


def test_rollback_embeds_what_came_since_and_only_that(index, folder, encoders, tmp_path):
    index.promote(str(encoders["new"]))
    write(folder, {"new.txt": "Zebras graze beneath the acacia.", "doc001.txt": "The kettle is broken."})
    (folder / "doc002.txt").unlink()
    index.add(folder)
    assert index.rollback().embedded == 2
    whole = tmp_path / "whole" / "notes"
    shutil.copytree(folder, whole, ignore=shutil.ignore_patterns(".ragindex"))
    with open_index(whole, encoders["old"]) as fresh:
        fresh.add(whole)
        assert answers(fresh) == answers(index)
    assert index.verify().ok


def test_rollback_after_a_few_changes_replays_the_old_snapshot(index, folder, encoders, monkeypatch):
    index.promote(str(encoders["new"]))
    old = next(index.store.glob(f"snapshots/*/dense-{short(encoders['old'])}"))
    before = read_manifest(old)
    write(folder, {"new.txt": "Zebras graze beneath the acacia."})
    index.add(folder)
    monkeypatch.setattr(LiveDense, "_rebuilt", lambda _: pytest.fail("the snapshot was made again"))
    index.rollback()
    assert read_manifest(old) == before
    assert paths(index.search("Zebras graze beneath the acacia", mode="dense"))[0] == "new.txt"


def test_without_a_previous_encoder_there_is_no_rollback(index):
    with pytest.raises(UsageError, match="no previous encoder"):
        index.rollback()


def test_rollback_to_an_encoder_whose_files_are_gone_says_so_and_changes_nothing(index, encoders, own, told):
    index.promote(str(own))
    index.promote(str(encoders["third"]))
    shutil.rmtree(own)
    with pytest.raises(EncoderError, match=r"nothing was changed\. There is no encoder '.*own'"):
        index.rollback()
    assert answers(index) == told["third"]
    shutil.copytree(encoders["old"], own)
    with pytest.raises(EncoderError, match=r"nothing was changed: .*own holds another one now"):
        index.rollback()
    assert answers(index) == told["third"]


def test_an_encoder_kept_in_the_store_moves_with_it(index, folder, encoders, own, told, tmp_path):
    promotion = index.promote(str(own), keep=True)
    assert promotion.encoder == str(index.store / "encoders" / short(encoders["new"]))
    index.close()
    shutil.rmtree(own)
    folder.rename(tmp_path / "elsewhere")
    with Index.open(tmp_path / "elsewhere" / ".ragindex", settings=SMALL) as moved:
        assert answers(moved) == told["new"]
        assert Path(moved.status()["encoder"]["name"]).is_relative_to(tmp_path / "elsewhere")
        assert moved.rollback().encoder == str(encoders["old"])
        assert moved.rollback().encoder == moved.status()["encoder"]["name"]
        assert answers(moved) == told["new"]


def test_a_kept_encoder_is_copied_once_and_found_there_whatever_it_is_called_later(index, encoders, own):
    index.promote(str(own), keep=True)
    copy = index.status()["encoder"]["name"]
    stamp = {file: file.stat().st_mtime_ns for file in Path(copy).rglob("*")}
    index.promote(str(encoders["old"]))
    assert index.promote(str(own), keep=True).encoder == copy
    assert index.promote(str(own)).encoder == copy
    assert {file: file.stat().st_mtime_ns for file in Path(copy).rglob("*")} == stamp
    assert len(list((index.store / "encoders").iterdir())) == 1


def test_a_damaged_copy_is_made_again(index, encoders, own, told):
    index.promote(str(own), keep=True)
    copy = Path(index.status()["encoder"]["name"])
    index.promote(str(encoders["old"]))
    assert index.verify().ok
    (copy / "model.safetensors").write_bytes(b"damaged")
    assert index.verify().problems == (
        f"The encoder in {copy} is missing or damaged; promote it again from where it came.",
    )
    index.promote(str(own), keep=True)
    assert index.verify().ok
    assert Encoder.load(copy).fingerprint == Encoder.load(own).fingerprint
    assert answers(index) == told["new"]


def test_a_copy_that_the_disk_refuses_leaves_nothing_behind(index, encoders, told, monkeypatch):
    def full(self: Encoder, directory: Path) -> None:
        directory.mkdir()
        (directory / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Encoder, "save", full)
    with pytest.raises(StoreError, match="No space left"):
        index.promote(str(encoders["new"]), keep=True)
    assert list((index.store / "encoders").iterdir()) == []
    assert answers(index) == told["old"]


def test_an_encoder_that_nobody_else_could_load_must_be_kept(index, encoders):
    special = Encoder.load(encoders["new"], pooling="last")
    with pytest.raises(UsageError, match="keep=True"):
        index.promote(special)
    assert index.promote(special, keep=True).embedded == DOCUMENTS
    with Index.open(index.store, settings=SMALL) as again:
        assert again.encoder.fingerprint == special.fingerprint
        assert answers(again) == answers(index)


def test_a_cut_encoder_is_promoted_with_its_dimensions(index, encoders):
    index.promote(Encoder.load(encoders["new"], dimensions=8))
    with Index.open(index.store, settings=SMALL) as again:
        assert again.encoder.dimensions == 8
        assert answers(again) == answers(index)


def test_every_collection_is_embedded_and_has_its_snapshot(index, folder, encoders):
    with open_index(folder, encoders["old"], collection="other") as other:
        write(folder.parent / "more", {"far.txt": "far away"})
        other.add(folder.parent / "more")
        assert index.promote(str(encoders["new"])).embedded == DOCUMENTS + 1
    with Index.open(index.store, collection="other", create=False, settings=SMALL) as other:
        assert other.status()["pending"] == 0
        assert other.status()["index"] == "Flat"
        assert paths(other.search("far away", mode="dense"))[0].endswith("far.txt")
        assert other.verify().ok


def test_the_new_snapshot_is_there_before_the_switch(index, encoders, monkeypatch):
    seen: list[set[str]] = []
    activate = Catalog.activate_encoder

    def watched(self: Catalog, fingerprint: str, *, note: str = "") -> None:
        seen.append(dense_folders(index))
        activate(self, fingerprint, note=note)

    monkeypatch.setattr(Catalog, "activate_encoder", watched)
    index.promote(str(encoders["new"]))
    assert seen == [{short(encoders["old"]), short(encoders["new"])}]
    monkeypatch.setattr(LiveDense, "_rebuilt", lambda _: pytest.fail("the snapshot was not used"))
    with Index.open(index.store, settings=SMALL) as reader:
        assert reader.search("kettle", mode="dense")


def test_documents_come_and_go_while_a_store_is_embedded_anew(index, folder, encoders, told, tmp_path, monkeypatch):
    in_small_batches(monkeypatch)

    def change() -> object:
        with Index.open(index.store, settings=SMALL) as writer:
            (folder / "doc030.txt").unlink()
            write(folder, {"new.txt": "Zebras graze beneath the acacia."})
            report = writer.add(folder)
            return report.added, report.deleted, paths(writer.search("zebras", mode="lexical"))

    during = During(change)
    promotion = index.promote(str(encoders["new"]), progress=during)
    assert during.told == [(1, 1, ["new.txt"])]
    assert promotion.embedded == DOCUMENTS  # one gone, one come
    whole = tmp_path / "whole" / "notes"
    shutil.copytree(folder, whole, ignore=shutil.ignore_patterns(".ragindex"))
    with open_index(whole, encoders["new"]) as fresh:
        fresh.add(whole)
        assert answers(fresh) == answers(index)
    assert index.verify().ok


def test_what_comes_at_the_last_moment_is_embedded_before_the_switch(index, folder, encoders, monkeypatch):
    class Late(WriterLease):
        def acquire(self) -> None:
            if not (folder / "late.txt").exists():
                write(folder, {"late.txt": "Zebras graze beneath the acacia."})
                with Index.open(index.store, settings=SMALL) as writer:
                    writer.add(folder)
            super().acquire()

    monkeypatch.setattr("ragindex.index.promotion.WriterLease", Late)
    assert index.promote(str(encoders["new"])).embedded == DOCUMENTS + 1
    assert index.verify().ok
    assert paths(index.search("Zebras graze beneath the acacia.", mode="dense"))[0] == "late.txt"


def test_a_promotion_waits_for_a_writer_to_end(index, encoders, told, monkeypatch):
    monkeypatch.setattr("ragindex.index.promotion._ROUND", 0.05)
    lease = WriterLease(index.store, command="index docs")
    lease.acquire()
    release = threading.Timer(0.5, lease.release)
    release.start()
    index.promote(str(encoders["new"]))
    release.join()
    assert answers(index) == told["new"]


def test_a_promotion_that_waited_in_vain_is_finished_by_the_next(index, encoders, told, monkeypatch):
    monkeypatch.setattr("ragindex.index.promotion._ROUND", 0.05)
    monkeypatch.setattr("ragindex.index.promotion._PATIENCE", 0.0)
    with WriterLease(index.store, command="index docs"), pytest.raises(StoreLockedError, match="index docs"):
        index.promote(str(encoders["new"]))
    assert answers(index) == told["old"]
    assert index.promote(str(encoders["new"])).embedded == 0
    assert answers(index) == told["new"]


def test_one_promotion_at_a_time_and_no_sweeping_meanwhile(index, encoders, monkeypatch):
    monkeypatch.setitem(WriterLease.__init__.__kwdefaults__, "wait", 0.0)

    def refused() -> object:
        for act in (lambda other: other.promote(str(encoders["third"])), lambda other: other.compact()):
            with Index.open(index.store, settings=SMALL) as other, pytest.raises(StoreLockedError, match="promote "):
                act(other)

    index.promote(str(encoders["new"]), progress=During(refused))
    assert index.verify().ok


def test_an_interrupted_promotion_changes_nothing_and_is_continued(index, encoders, told, monkeypatch):
    in_small_batches(monkeypatch)

    def interrupt() -> object:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.promote(str(encoders["new"]), progress=During(interrupt))
    assert answers(index) == told["old"]
    assert index.status()["previous_encoder"] is None
    assert index.promote(str(encoders["new"])).embedded == DOCUMENTS - 16
    assert answers(index) == told["new"]


@pytest.mark.parametrize("moment", ["lexical", "dense"])
def test_a_query_under_way_is_answered_by_one_encoder(index, encoders, told, moment, monkeypatch):
    side, switched = getattr(LiveIndexes, moment), []

    def switching(self: LiveIndexes) -> object:
        if not switched:
            switched.append(True)
            index.promote(str(encoders["new"]))
        return side(self)

    monkeypatch.setattr(LiveIndexes, moment, switching)
    assert answers(index, SENTENCES[:1]) == told["new"][:1]


def test_a_query_under_way_survives_documents_without_a_vector_of_its_encoder(index, folder, encoders, monkeypatch):
    lexical, switched = LiveIndexes.lexical, []

    def switching(self: LiveIndexes) -> object:
        if not switched:
            switched.append(True)
            with Index.open(index.store, settings=SMALL) as other:
                other.promote(str(encoders["new"]))
                write(folder, {"new.txt": "Zebras graze beneath the acacia."})
                other.add(folder)
        return lexical(self)

    monkeypatch.setattr(LiveIndexes, "lexical", switching)
    assert paths(index.search("zebras graze", k=1)) == ["new.txt"]


def test_no_thread_ever_sees_a_mixture(index, encoders, told):
    seen: list[list[set[str]]] = [[], []]
    problems: list[object] = []
    done = threading.Event()

    def read(reader: Index, log: list[set[str]]) -> None:
        number = 0
        try:
            while not done.is_set():
                number = (number + 1) % len(SENTENCES)
                said = answers(reader, SENTENCES[number : number + 1])[0]
                kinds = {name for name in ("old", "new") if told[name][number] == said}
                log.append(kinds)
                if not kinds:
                    problems.append(said)
        except Exception as error:  # noqa: BLE001 - reported by the assertion below
            problems.append(error)

    with Index.open(index.store, settings=SMALL) as other:
        threads = [threading.Thread(target=read, args=pair) for pair in zip((index, other), seen, strict=True)]
        for thread in threads:
            thread.start()
        try:
            for name in ("new", "old") * 4:
                index.promote(str(encoders[name]))
                marks = [len(log) for log in seen]
                while any(len(log) < mark + 3 for log, mark in zip(seen, marks, strict=True)) and not problems:
                    done.wait(0.01)
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert problems == []
    assert all({"old"} in log and {"new"} in log for log in seen)


def test_compact_keeps_the_way_back_and_drops_what_is_older(index, encoders, own, told):
    index.promote(str(own), keep=True)
    index.promote(str(encoders["third"]))
    assert index.compact()["vectors_removed"] == DOCUMENTS  # those of "old"
    assert dense_folders(index) == {short(encoders["new"]), short(encoders["third"])}
    assert index.rollback().embedded == 0
    assert answers(index) == told["new"]
    index.promote(str(encoders["old"]))
    index.promote(str(encoders["third"]))
    (index.store / "encoders" / "0123.part").mkdir()  # as a killed process leaves it
    found = index.compact()
    assert (found["vectors_removed"], found["forgotten"]) == (DOCUMENTS, None)
    assert list((index.store / "encoders").iterdir()) == []
    assert index.verify().ok


def test_compact_can_forget_the_way_back(index, encoders, own, told):
    index.promote(str(own), keep=True)
    index.promote(str(encoders["third"]))
    copy = next((index.store / "encoders").iterdir())
    result = index.compact(forget_previous=True)
    assert (result["vectors_removed"], result["forgotten"]) == (2 * DOCUMENTS, str(copy))
    assert not copy.exists()
    assert dense_folders(index) == {short(encoders["third"])}
    with pytest.raises(UsageError, match="no previous encoder"):
        index.rollback()
    assert answers(index) == told["third"]
    assert index.compact(forget_previous=True)["forgotten"] is None


READER = """
import json, sys
from index_kit import SMALL, answers
from ragindex import Index
with Index.open(sys.argv[1], settings=SMALL) as index:
    for _ in sys.stdin:
        print(json.dumps(answers(index)), flush=True)
"""


def test_another_process_follows_at_its_next_query(index, encoders, told, monkeypatch):
    command = [sys.executable, "-c", READER, str(index.store)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent
    ) as reader:

        def ask() -> object:
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdin.write("\n")
            reader.stdin.flush()
            return [[tuple(hit) for hit in hits] for hits in json.loads(reader.stdout.readline())]

        assert ask() == told["old"]
        during = During(ask)
        index.promote(str(encoders["new"]), progress=during)
        assert during.told == [told["old"]]
        assert ask() == told["new"]
        index.rollback()
        assert ask() == told["old"]


# Kills itself when it comes to a point for the n-th time, before or after doing what it does there.
KILLED = """
import importlib, os, signal, sys
from index_kit import SMALL
from ragindex import Index
from ragindex.store.feeding import Feeding

store, encoder, owner, name, count, moment = sys.argv[1:]
Feeding.iter_unembedded.__kwdefaults__["batch"] = 16
module, _, kind = owner.partition(":")
holder = importlib.import_module(module)
holder = getattr(holder, kind) if kind else holder
original, calls = getattr(holder, name), []

def deadly(*given, **named):
    calls.append(name)
    if len(calls) < int(count):
        return original(*given, **named)
    if moment == "after":
        original(*given, **named)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(holder, name, deadly)
with Index.open(store, settings=SMALL) as index:
    index.promote(encoder, keep=True)
"""
POINTS = {
    "copying": ("ragindex.index.locating", "_sync_below", 1, "before"),
    "the second batch": ("ragindex.store.catalog:Catalog", "add_vectors", 2, "before"),
    "after the last batch": ("ragindex.store.snapshot:LiveIndexes", "prepare", 1, "before"),
    "half of a snapshot": ("ragindex.store.dense_files", "_sync", 1, "before"),
    "within the transaction": ("ragindex.store.registering", "activate", 1, "after"),
    "after the transaction": ("ragindex.store.catalog:Catalog", "activate_encoder", 1, "after"),
    "the end": ("ragindex.index.promotion", "prune", 1, "after"),
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_one_encoder_or_the_other_serves(index, encoders, told, point):
    owner, name, count, moment = POINTS[point]
    index.close()
    command = [sys.executable, "-c", KILLED, str(index.store), str(encoders["new"]), owner, name, str(count), moment]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode == -signal.SIGKILL, done.stderr
    switched = point in ("after the transaction", "the end")
    with Index.open(index.store, create=False, settings=SMALL) as again:
        assert again.verify().problems == ()
        assert answers(again) == told["new" if switched else "old"]
        left = {"copying": DOCUMENTS, "the second batch": DOCUMENTS - 16}
        assert again.promote(str(encoders["new"]), keep=True).embedded == left.get(point, 0)
        assert answers(again) == told["new"]
        again.compact()
        assert [path.name for path in (again.store / "encoders").iterdir()] == [short(encoders["new"])]
        assert dense_folders(again) == {short(encoders["old"]), short(encoders["new"])}
        assert again.rollback().embedded == 0
        assert answers(again) == told["old"]

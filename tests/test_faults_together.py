"""One writer and many readers, in processes and threads: every answer is of one state of the store, and of the last."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from index_kit import corpus, open_index, paths, write
from tiny import tiny_encoder

from ragindex import Index
from ragindex.cli import main
from ragindex.errors import StoreLockedError
from ragindex.search.engine import Engine
from ragindex.store.catalog import Catalog
from ragindex.store.vector_index import Scored

ROOT = Path(__file__).resolve().parent.parent

WRITE = """
import sys, time
from pathlib import Path
from ragindex import Index
from ragindex.store.catalog import Catalog

commit = Catalog.commit
def slow(catalog, collection, batch):
    print("writing", flush=True)
    sys.stdin.readline()
    return commit(catalog, collection, batch)

Catalog.commit = slow
with Index.open(Path(sys.argv[1]) / ".ragindex", encoder=sys.argv[2]) as index:
    index.add(sys.argv[1])
"""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder") / "static", layers=0)


@pytest.fixture
def folder(tmp_path: Path, encoder: Path) -> Path:
    (tmp_path / "notes").mkdir()
    write(tmp_path / "notes", corpus(20))
    with open_index(tmp_path / "notes", encoder) as index:
        index.add(tmp_path / "notes")
    return tmp_path / "notes"


@pytest.fixture
def writer(folder: Path, encoder: Path):
    """A process in the middle of an index run."""
    write(folder, {"new.txt": "A heron stands in the water.\n"})
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, str(folder), str(encoder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_readers_follow_a_writer_that_is_killed_now_and_then(encoder: Path) -> None:
    """In small; `python benchmarks/soak.py` does it for ten minutes. Nothing here depends on time."""
    script = [sys.executable, str(ROOT / "benchmarks" / "soak.py"), "--minutes", "0.1", "--readers", "2"]
    script += ["--threads", "2", "--documents", "40", "--encoder", str(encoder), "--kill-every", "3"]
    script += ["--think", "0.01", "--pause", "0.02", "--late", "600"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| stale answers" in done.stdout


def test_a_second_writer_is_refused_by_name(folder: Path, encoder: Path, writer) -> None:
    named = rf"is being written by process {writer.pid} on .* \(index .*\) since \d{{4}}-.*; wait until it ends"
    with open_index(folder, encoder) as index:
        for act in (lambda: index.add(folder), lambda: index.remove("doc001.txt"), index.repair, index.compact):
            with pytest.raises(StoreLockedError, match=named):
                act()
        assert len(index.documents()) == 20
        assert index.search("kettle", mode="lexical")
    done = CliRunner().invoke(main, ["--store", str(folder / ".ragindex"), "index", str(folder)])
    assert done.exit_code == 2
    assert str(writer.pid) in done.output


def test_a_dead_writers_lease_is_taken_over(folder: Path, encoder: Path, writer) -> None:
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    with open_index(folder, encoder) as index:
        assert index.search("heron", mode="lexical") == []
        assert index.add(folder).added == 1
        assert paths(index.search("heron", mode="lexical")) == ["new.txt"]
        assert index.verify().problems == ()


def test_a_reader_sees_a_commit_before_the_writer_has_published_it(folder: Path, encoder: Path, writer) -> None:
    """The commit is done and the writer still holds the lease: the reader lays what is new over its indexes."""
    with open_index(folder, encoder, create=False) as reader:
        assert reader.search("heron", mode="lexical") == []
        writer.stdin.write("\n")
        writer.stdin.flush()
        writer.stdout.read()  # the end of the run
        for mode in ("lexical", "dense", "hybrid"):
            assert paths(reader.search("A heron stands in the water.", k=1, mode=mode)) == ["new.txt"]


class Between:
    """Does something once, at the first call of one of the catalogue's methods."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str, act) -> None:
        real, self.left = getattr(Catalog, method), [act]

        def called(catalog: Catalog, *given: object, **named: object) -> object:
            if self.left and threading.current_thread() is threading.main_thread():
                self.left.pop()()
            return real(catalog, *given, **named)

        monkeypatch.setattr(Catalog, method, called)


@pytest.mark.parametrize("mode", ["lexical", "dense", "hybrid"])
@pytest.mark.parametrize("method", ["hits", "check_spans", "present_vectors"])
def test_a_document_that_is_replaced_while_it_is_found(folder, encoder, monkeypatch, mode: str, method: str) -> None:
    """The answer has it, as it was or as it is; it never falls between the two, and nothing is called damaged."""
    text = "The kettle boils water at one hundred degrees."

    def replace() -> None:
        write(folder, {"doc001.txt": f"{text} Twice.\n"}, age=5)
        with open_index(folder, encoder) as writer:
            writer.add(folder)

    with open_index(folder, encoder, create=False) as reader:
        reader.search(text, mode=mode)  # with everything loaded
        Between(monkeypatch, method, replace)
        hits = reader.search(text, k=20, mode=mode)
        assert "doc001.txt" in paths(hits)
        for hit in hits:
            assert hit.text.strip() in {corpus(20)[hit.path].strip(), f"{text} Twice."}


def test_a_cosine_that_cannot_be_had_any_more_is_left_out(folder: Path, encoder: Path, monkeypatch) -> None:
    """What only the lexical list found is scored from its vector, which goes with the document."""
    text = "The kettle boils water at one hundred degrees."

    def replace() -> None:
        write(folder, {"doc001.txt": f"{text} Twice.\n"}, age=5)
        with open_index(folder, encoder) as writer:
            writer.add(folder)

    with open_index(folder, encoder, create=False) as reader:
        monkeypatch.setattr(Engine, "_dense", lambda *_: Scored(np.empty(0, np.int64), np.empty(0, np.float32)))
        Between(monkeypatch, "check_spans", replace)
        cosines = {hit.path: hit.scores.dense for hit in reader.search(text, k=20)}
        assert cosines["doc001.txt"] is None
        assert cosines["doc011.txt"] is not None


def test_diversity_while_documents_are_replaced(folder: Path, encoder: Path, monkeypatch) -> None:
    def replace() -> None:
        write(folder, {f"doc{number:03}.txt": f"A goose walks by, {number}.\n" for number in range(10)}, age=5)
        with open_index(folder, encoder) as writer:
            writer.add(folder)

    with open_index(folder, encoder, create=False) as reader:
        reader.search("kettle", diversity=0.5)
        Between(monkeypatch, "present_vectors", replace)
        assert len(reader.search("kettle", k=10, diversity=0.5)) == 10


def test_a_store_that_never_comes_to_rest_is_answered_all_the_same(folder: Path, encoder: Path, monkeypatch) -> None:
    real, numbers = Catalog.hits, iter(range(1000))

    def restless(catalog: Catalog, *given: object) -> object:
        with Index.open(folder / ".ragindex", encoder=str(encoder)) as writer, monkeypatch.context() as patch:
            patch.setattr(Catalog, "hits", real)
            write(folder, {"doc001.txt": f"The kettle boils water, {next(numbers)}.\n"}, age=5)
            writer.add(folder)
        return real(catalog, *given)

    monkeypatch.setattr(Catalog, "hits", restless)
    with open_index(folder, encoder, create=False) as reader:
        assert "doc011.txt" in paths(reader.search("kettle boils", k=20, mode="lexical"))

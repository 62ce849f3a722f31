"""A full disk, a disk that fails, a folder that cannot be written: what was committed is kept, answers are right."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from fault_kit import Template, everything, template
from index_kit import open_index, write

from ragindex.errors import StoreError
from ragindex.store.connections import Connections
from ragindex.store.live_text import LiveText

# Runs in a process of its own: limits and filters cannot be taken back. Prints what became of an index run.
WORK = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from index_kit import open_index
from ragindex.errors import RagIndexError

home, encoder = Path(sys.argv[1]), Path(sys.argv[2])
{before}
try:
    with open_index(home, encoder) as index:
        index.encoder.encode_documents(["warm"])
        {within}
        index.add(home)
    print("done")
except RagIndexError as error:
    print(type(error).__name__, error)
"""

# Lets a call into the kernel fail with an error of one's choice, whoever makes it: SQLite, tantivy, FAISS or Python. A
# filter of the kernel's own (seccomp): it returns the error in the place of the calls with these numbers.
FAILING = """
import ctypes, struct
def failing(numbers, error):
    libc = ctypes.CDLL(None, use_errno=True)
    code = [struct.pack("HBBI", 0x20, 0, 0, 0)]  # load the number of the call
    for place, number in enumerate(numbers):
        code.append(struct.pack("HBBI", 0x15, len(numbers) - place, 0, number))  # equal: to the end, which fails
    code += [struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000), struct.pack("HBBI", 0x06, 0, 0, 0x00050000 | error)]
    program = b"".join(code)
    held = ctypes.create_string_buffer(program, len(program))
    filter = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(held)))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filter, 0, 0):  # no_new_privs, then seccomp
        print("no filter")
        sys.exit()
"""
CALLS = {
    "x86_64": {"fsync": [74, 75], "write": [18, 77, 285]},  # fsync, fdatasync; pwrite64, ftruncate, fallocate
    "aarch64": {"fsync": [82, 83], "write": [68, 46, 47]},
}
EIO, ENOSPC = 5, 28


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return template(tmp_path_factory.mktemp("faults"), documents=20)


@pytest.fixture
def home(made: Template, tmp_path: Path) -> Path:
    """A copy of the folder and its store, and new documents to index."""
    shutil.copytree(made.folder, tmp_path / "home")
    words = {
        f"new/file{number:03}.md": f"# New {number}\n\n" + f"A heron stands {number}.\n" * 40 for number in range(100)
    }
    write(tmp_path / "home", words)
    return tmp_path / "home"


def work(home: Path, encoder: Path, *prefix: str, before: str = "", within: str = "pass") -> str:
    """Index the folder in another process; what it printed last."""
    code = WORK.format(path=sys.path, before=before, within=within)
    command = [*prefix, sys.executable, "-c", code, str(home), str(encoder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[-1]
    if said == "no filter":
        pytest.skip("this kernel lets no process filter its own calls")
    return said


def nothing_is_lost(made: Template, home: Path) -> None:
    """Of the old documents nothing changed; of the new ones each is there as a whole or not at all; then all are."""
    with open_index(home, made.encoder) as index:
        assert index.verify().problems == ()
        for row in index.documents():
            assert index.text(row["path"]) == (home / row["path"]).read_text()
        held = len(index.documents())
        index.add(home)
        assert held <= len(index.documents()) == 120
        index.remove("new")
        index.repair()
        assert everything(index) == made.answers


def mounted(script: str) -> list[str]:
    """A prefix that runs a command in a namespace of its own, after `script` has mounted something; skips where that is
    not allowed.
    """
    tried = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if shutil.which("unshare") is None or subprocess.run(tried, capture_output=True, check=False).returncode:
        pytest.skip("a disk of one's own needs the right to mount (unshare -rm)")
    return ["unshare", "-rm", "sh", "-c", f'{script} "$@"', "sh"]


def failing(kind: str, error: int) -> dict[str, str]:
    """Lets all calls of a kind fail, from the moment at which the encoder is loaded."""
    numbers = CALLS.get(platform.machine())
    if sys.platform != "linux" or numbers is None:
        pytest.skip("calls into this kernel cannot be made to fail")
    return {"before": FAILING, "within": f"failing({numbers[kind]}, {error})"}


@pytest.mark.parametrize("free", [100, 400, 900])
def test_a_disk_that_fills_up(made: Template, home: Path, tmp_path: Path, free: int) -> None:
    """A file system of its own, which is full at the start of a run, in the middle or near its end."""
    files = [file for file in home.rglob("*") if file.is_file()]
    size = sum(-(-file.stat().st_size // 4096) for file in files) * 4 + free
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    script = f"mount -t tmpfs -o size={size}k tmpfs {disk} && cp -rp {home}/. {disk} && "
    said = work(disk, made.encoder, *mounted(f"{script} trap 'cp -rp {disk}/. {kept}' EXIT;"))
    assert said.startswith("StoreError"), said
    assert "full" in said or "No space left" in said
    nothing_is_lost(made, kept)


def test_the_catalogue_may_not_grow(made: Template, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own path for a full disk, without one."""
    connect = Connections.connect

    def full(connections: Connections) -> sqlite3.Connection:
        connection = connect(connections)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 20}")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(Connections, "connect", full)
        with open_index(home, made.encoder) as index:
            with pytest.raises(StoreError, match="is full; free some space and run again"):
                index.add(home)
            assert everything(index) == made.answers  # the index that met it goes on answering
    nothing_is_lost(made, home)


def test_a_limit_on_the_size_of_files(made: Template, home: Path) -> None:
    size = (home / ".ragindex" / "catalog.sqlite").stat().st_size + 60_000
    before = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"
    said = work(home, made.encoder, before=before)
    assert said.startswith("StoreError"), said
    assert "what was committed before is kept" in said or "cannot be written" in said
    nothing_is_lost(made, home)


@pytest.mark.parametrize("kind", ["fsync", "write"])
@pytest.mark.parametrize("error", [EIO, ENOSPC])
def test_a_disk_that_fails(made: Template, home: Path, kind: str, error: int) -> None:
    said = work(home, made.encoder, **failing(kind, error))
    assert said.startswith("StoreError"), said
    assert any(word in said for word in ("what was committed before is kept", "is full", "cannot be written")), said
    nothing_is_lost(made, home)


def test_snapshots_that_cannot_be_written_are_done_without(made: Template, home: Path) -> None:
    """The catalogue can be written, the folder of snapshots cannot: queries answer, repairing says what is wrong."""
    snapshots = home / ".ragindex" / "snapshots"
    shutil.rmtree(snapshots)
    snapshots.write_text("a file in the place of the folder")
    with open_index(home, made.encoder) as index:
        assert everything(index) == made.answers
        with pytest.raises(StoreError, match="cannot be written"):
            index.repair()
        assert everything(index) == made.answers


def test_a_damaged_lexical_index_on_a_full_disk_answers(made: Template, home: Path, monkeypatch) -> None:
    for file in (home / ".ragindex").glob("snapshots/*/lexical/*.idx"):
        file.write_bytes(file.read_bytes()[:-9])

    def full(*_: object) -> None:
        raise StoreError("The lexical index cannot be written: no space left.")

    monkeypatch.setattr(LiveText, "_rebuild_on_disk", full)
    with open_index(home, made.encoder) as index:
        assert everything(index) == made.answers
        assert any("damaged" in problem for problem in index.verify().problems)


ASK = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from fault_kit import everything
from index_kit import open_index
from ragindex.errors import RagIndexError
with open_index(Path(sys.argv[1]), Path(sys.argv[2]), create=False) as index:
    print(len(index.documents()), repr(everything(index)))
    try:
        index.add(sys.argv[1])
    except RagIndexError as error:
        print(type(error).__name__, error)
"""


def read_only(home: Path, encoder: Path) -> list[str]:
    """What a process says that may only read the folder: the number of documents and all answers, then why it cannot
    index; or the last line of its error.
    """
    prefix = mounted(f"mount --bind {home} {home} && mount -o remount,ro,bind {home} &&")
    command = [*prefix, sys.executable, "-c", ASK.format(path=sys.path), str(home), str(encoder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    return [*done.stdout.splitlines(), *done.stderr.splitlines()[-1:]]


def test_a_folder_that_cannot_be_written(made: Template, home: Path) -> None:
    told, refused = read_only(home, made.encoder)
    assert told == f"20 {made.answers!r}"
    assert refused.startswith("StoreError")
    assert "cannot be written" in refused or "read-only" in refused
    shutil.rmtree(home / ".ragindex" / "snapshots")
    assert read_only(home, made.encoder)[0] == told


def test_a_killed_writers_store_in_a_folder_that_cannot_be_written(made: Template, home: Path) -> None:
    """What it committed lies in SQLite's log, which is read along."""
    before = "import os; from ragindex.store.catalog import Catalog; commit = Catalog.commit"
    within = "Catalog.commit = lambda *given: (commit(*given), os.kill(os.getpid(), 9))"
    code = WORK.format(path=sys.path, before=before, within=within)
    subprocess.run([sys.executable, "-c", code, str(home), str(made.encoder)], timeout=600, check=False)
    log = home / ".ragindex" / "catalog.sqlite-wal"
    assert log.stat().st_size
    held = int(read_only(home, made.encoder)[0].split()[0])
    assert held > 20
    log.with_name("catalog.sqlite-shm").unlink()  # as after copying the store to another place
    said = read_only(home, made.encoder)
    without = "its log (-wal) can only be read where SQLite may write beside it"
    assert said[0].startswith(f"{held} ") or without in said[-1]
    nothing_is_lost(made, home)


def test_a_reader_who_cannot_write_follows_another_user(made: Template, home: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        reader = open_index(home, made.encoder, create=False)
    with reader:
        assert reader.search("heron", mode="lexical") == []
        with open_index(home, made.encoder) as writer:
            writer.add(home)
            assert len(reader.search("heron", mode="lexical", k=20)) == 20
            assert everything(reader) == everything(writer)
            writer.remove("new")
            assert reader.search("heron", mode="lexical") == []
        assert reader.search("heron", mode="lexical") == []
        assert len(reader.documents()) == 20


def test_what_changes_while_it_is_read_as_it_lies_is_not_believed(made: Template, home: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        connections = Connections(home / ".ragindex" / "catalog.sqlite")

    def reading() -> None:
        with connections.snapshot(), open_index(home, made.encoder) as writer:
            writer.add(home)

    with pytest.raises(StoreError, match="written by another user while it was read"):
        reading()
    with connections.snapshot() as connection:
        assert connection.execute("SELECT count(*) FROM documents").fetchone() == (120,)
    connections.close()

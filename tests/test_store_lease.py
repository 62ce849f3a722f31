import os
import signal
import subprocess
import sys

import pytest

from ragindex.errors import StoreError, StoreLockedError
from ragindex.store import lease as leases
from ragindex.store.lease import WriterLease

HOLD = """
import sys, time, pathlib
from ragindex.store.lease import WriterLease
with WriterLease(pathlib.Path(sys.argv[1]), command="index docs"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_the_second_writer_is_told_who_holds_it(tmp_path, holder):
    with pytest.raises(StoreLockedError, match=rf"process {holder.pid} on .* \(index docs\) since \d{{4}}-"):
        WriterLease(tmp_path, command="x", wait=0.0).acquire()
    assert WriterLease.try_acquire(tmp_path, command="x") is None


def test_the_kernel_frees_a_dead_holders_lease(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with WriterLease(tmp_path, command="x", wait=0.0) as lease:
        assert lease.held


def test_waiting_gets_it_when_the_holder_ends(tmp_path, holder):
    holder.stdin.write("\n")
    holder.stdin.flush()
    with WriterLease(tmp_path, command="x", wait=30.0) as lease:
        assert lease.held


def test_two_leases_of_one_process_exclude_each_other(tmp_path):
    with WriterLease(tmp_path, command="first") as first, pytest.raises(StoreLockedError, match="first"):
        WriterLease(tmp_path, command="second", wait=0.0).acquire()
    assert not first.held
    first.release()
    with WriterLease(tmp_path, command="second", wait=0.0):
        pass


def test_a_note_that_is_no_json_still_gives_a_sentence(tmp_path):
    with WriterLease(tmp_path, command="first"):
        (tmp_path / "writer.lock").write_text("garbage")
        with pytest.raises(StoreLockedError, match="another process"):
            WriterLease(tmp_path, command="second", wait=0.0).acquire()


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(StoreError, match="cannot be written"):
        WriterLease(tmp_path / "none", command="x").acquire()


def test_a_holder_whose_note_is_on_the_way_is_named(tmp_path, monkeypatch):
    """Between taking the lock and telling so there is a moment, in which another asks."""
    with WriterLease(tmp_path, command="first"):
        note = (tmp_path / "writer.lock").read_text()
        (tmp_path / "writer.lock").write_text("")
        monkeypatch.setattr(leases.time, "sleep", lambda _: (tmp_path / "writer.lock").write_text(note))
        with pytest.raises(StoreLockedError, match=rf"process {os.getpid()} on .* \(first\)"):
            WriterLease(tmp_path, command="second", wait=0.0).acquire()

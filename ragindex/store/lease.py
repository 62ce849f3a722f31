"""The writer lease: one writing process per store, released by the kernel when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from ragindex.errors import StoreError, StoreLockedError

__all__ = ["PromotionLease", "WriterLease"]

_POLL_SECONDS = 0.05
_NAMELESS = 4  # times that a holder without a name is asked again


class WriterLease:
    """An exclusive `flock` on `writer.lock`, whose content tells who holds it.

    Use it as a context manager. Entering waits up to `wait` seconds (a reader holds the lease for moments when it
    brings the lexical index up to date) and then raises StoreLockedError, or StoreError where the folder cannot be
    written.
    """

    _FILE = "writer.lock"

    def __init__(self, directory: Path, *, command: str, wait: float = 2.0) -> None:
        self._path = directory / self._FILE
        self._command = command
        self._wait = wait
        self._nameless = _NAMELESS
        self._descriptor: int | None = None

    @classmethod
    def try_acquire(cls, directory: Path, *, command: str) -> WriterLease | None:
        """The lease, already held, or None when another holds it or the folder cannot be written. Never waits."""
        lease = cls(directory, command=command, wait=0.0)
        lease._nameless = 0
        try:
            lease.acquire()
        except StoreError:
            return None
        return lease

    def acquire(self) -> None:
        """Take the lease. Raises StoreLockedError naming the holder, StoreError where the lock file cannot be
        written.
        """
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"{self._path.parent} cannot be written: {error.strerror}.") from error
        deadline, nameless = time.monotonic() + self._wait, self._nameless
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    holder = _holder(descriptor)
                    if holder is not None or nameless == 0:
                        os.close(descriptor)
                        raise StoreLockedError(
                            f"{self._path.parent} is being written by {holder or 'another process'}; "
                            "wait until it ends."
                        ) from error
                    nameless -= 1  # it took the lease a moment ago, and its note is on the way
                time.sleep(_POLL_SECONDS)
        # The file is never deleted: a process waiting on a deleted file's lock and one that made a new file would
        # both win.
        note = {"pid": os.getpid(), "host": os.uname().nodename, "command": self._command, "since": time.time()}
        with contextlib.suppress(OSError):  # the lock holds on a full disk too, it is only not told who has it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(note).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lease back; harmless when it is not held."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lease."""
        return self._descriptor is not None

    def __enter__(self) -> WriterLease:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class PromotionLease(WriterLease):
    """One change of encoders at a time, beside the writers: embedding a store takes hours in which documents may come.

    Whoever takes both leases takes this one first.
    """

    _FILE = "promotion.lock"


def _holder(descriptor: int) -> str | None:
    """Who holds it, as its note tells; None where there is none."""
    try:
        note: Any = json.loads(os.pread(descriptor, 4096, 0))
        since = datetime.fromtimestamp(float(note["since"])).astimezone().isoformat(sep=" ", timespec="seconds")
        return f"process {int(note['pid'])} on {note['host']} ({note['command']}) since {since}"
    except (ValueError, KeyError, TypeError, OverflowError, OSError):  # a clock may say anything
        return None

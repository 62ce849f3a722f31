"""Bare SQLite connections to the catalogue's file: how they are opened and kept, and their errors as sentences.

Where the folder cannot be written, SQLite cannot make the shared memory that reading beside a writer needs. It then
reads along where a writer has made it, and where there is neither writer nor log, the file as it lies (`immutable`).
Another user may begin to write at any moment, so whoever reads the file as it lies looks before and afterwards.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ragindex.errors import CorruptionError, StoreError

__all__ = ["Connections", "translated"]

_BUSY_SECONDS = 30.0
_CACHE_KIBIBYTES = 65_536
_DAMAGE = ("malformed", "not a database", "could not decode", "unsupported file format")


class _Lie(NamedTuple):
    """What tells whether a file still lies as it did: inode, size, time of change; and whether a log is beside it."""

    inode: int
    size: int
    changed: int
    logged: bool


class Connections:
    """Connections to one file; idle ones are kept for the next reader. Thread-safe."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.read_only = not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))
        self._idle: list[sqlite3.Connection] = []
        self._lie = _lie(file) if self.read_only else None  # for which the idle ones were opened
        self._closed = False

    def connect(self) -> sqlite3.Connection:
        """A new connection in autocommit mode, which is the caller's to close."""
        connection = sqlite3.connect(
            self._uri(), uri=True, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level=None
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
            if not self.read_only:
                connection.execute("PRAGMA journal_mode = WAL").close()
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA secure_delete = ON")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the data for as long as it is open; nested ones are views of their own.

        Raises StoreError when SQLite cannot do its work, CorruptionError when the file is damaged.
        """
        before = self._look()
        try:
            connection = self._taken()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                connection.rollback()
                self._give_back(connection)
        except sqlite3.Error as error:
            self._look_again(before)  # what looks like damage may be somebody writing
            raise translated(error, self.file) from error
        self._look_again(before)

    def close(self) -> None:
        """Close every idle connection, and from now on each when its reader is done."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _look(self) -> _Lie | None:
        """Where the folder cannot be written: how the file lies now; connections of another time are let go."""
        if not self.read_only:
            return None
        now = _lie(self.file)
        if now != self._lie:
            self._lie = now
            while self._idle:
                self._idle.pop().close()
        return now

    def _look_again(self, before: _Lie | None) -> None:
        if before is not None and not before.logged and _lie(self.file) != before:
            raise StoreError(f"{self.file} was written by another user while it was read; ask again.")

    def _uri(self) -> str:
        uri = self.file.resolve().as_uri()
        if not self.read_only:
            return f"{uri}?mode=rw"
        return f"{uri}?mode=ro" if _lie(self.file).logged else f"{uri}?mode=ro&immutable=1"

    def _taken(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()  # the last one given back: its page cache is the warmest
        except IndexError:
            return self.connect()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)


def translated(error: Exception, file: Path) -> StoreError:
    """What SQLite says, as a sentence that names the way out."""
    text = str(getattr(error, "orig", None) or error)
    lowered = text.lower()
    if any(word in lowered for word in _DAMAGE):
        return CorruptionError(f"{file} is damaged ({text}); `ragindex repair` saves what can be read of it.")
    if "locked" in lowered:
        return StoreError(
            f"{file} stayed locked for {_BUSY_SECONDS:.0f} seconds; end the other process that is using it."
        )
    if "full" in lowered:
        return StoreError(f"The disk that holds {file} is full; free some space and run again.")
    if "i/o error" in lowered:
        return StoreError(
            f"The disk that holds {file} failed ({text}); what was committed before is kept: see to the disk or its "
            "limits, then run again."
        )
    if "unable to open" in lowered or "readonly" in lowered:
        if file.with_name(file.name + "-wal").exists():
            return StoreError(
                f"{file} cannot be opened ({text}): its log (-wal) can only be read where SQLite may write beside it; "
                "check the permissions, or open the store once where it can be written."
            )
        return StoreError(f"{file} cannot be opened ({text}); check its permissions.")
    return StoreError(f"{file} cannot be used: {text}.")


def _lie(file: Path) -> _Lie:
    log, shared = (file.with_name(file.name + suffix) for suffix in ("-wal", "-shm"))
    try:
        found = file.stat()
        logged = log.exists() and (log.stat().st_size > 0 or shared.exists())
    except OSError:
        return _Lie(0, 0, 0, logged=False)
    return _Lie(found.st_ino, found.st_size, found.st_mtime_ns, logged)

"""Bare SQLite connections to the catalogue's file: how they are opened and kept, and their errors as sentences."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ragindex.errors import CorruptionError, StoreError

__all__ = ["Connections", "translated"]

_BUSY_SECONDS = 30.0
_CACHE_KIBIBYTES = 65_536


class Connections:
    """Connections to one file; idle ones are kept for the next reader. Thread-safe."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.read_only = not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))
        self._uri = _uri(file, read_only=self.read_only)
        self._idle: list[sqlite3.Connection] = []
        self._closed = False

    def connect(self) -> sqlite3.Connection:
        """A new connection in autocommit mode, which is the caller's to close."""
        connection = sqlite3.connect(
            self._uri, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level=None
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
        try:
            connection = self._taken()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                connection.rollback()
                self._give_back(connection)
        except sqlite3.Error as error:
            raise translated(error, self.file) from error

    def close(self) -> None:
        """Close every idle connection, and from now on each when its reader is done."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

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
    if "malformed" in lowered or "not a database" in lowered:
        return CorruptionError(f"{file} is damaged ({text}); restore a backup or delete the store and index again.")
    if "locked" in lowered:
        return StoreError(
            f"{file} stayed locked for {_BUSY_SECONDS:.0f} seconds; end the other process that is using it."
        )
    if "full" in lowered:
        return StoreError(f"The disk that holds {file} is full; free some space and run again.")
    if "unable to open" in lowered or "readonly" in lowered:
        return StoreError(f"{file} cannot be opened ({text}); check its permissions.")
    return StoreError(f"{file} cannot be used: {text}.")


def _uri(file: Path, *, read_only: bool) -> str:
    uri = file.resolve().as_uri()
    if not read_only:
        return f"{uri}?mode=rw"
    log = file.with_name(file.name + "-wal")
    # Without write permission SQLite cannot make the shared-memory file that reading beside a writer needs. With no
    # log there is no writer either, and the file may be read as it lies.
    pending = log.exists() and log.stat().st_size > 0
    return f"{uri}?mode=ro" if pending else f"{uri}?mode=ro&immutable=1"

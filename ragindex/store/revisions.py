"""Tells whether anybody has committed to the catalogue since one looked last."""

from __future__ import annotations

import sqlite3
import threading

from ragindex.store.connections import Connections, translated

__all__ = ["Revisions"]


class Revisions:
    """SQLite's own count, `data_version`: it means something on one and the same connection only, and does not count
    what that commits. So one is kept for it, and never writes. Thread-safe.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def now(self) -> int | None:
        """A number that grows with every commit; None for a catalogue that is read without SQLite's locks.

        Raises StoreError when SQLite cannot do its work.
        """
        if self._connections.read_only:
            return None
        try:
            with self._lock:
                if self._connection is None:
                    self._connection = self._connections.connect()
                return int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise translated(error, self._connections.file) from error

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

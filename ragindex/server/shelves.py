"""The collections of one store, opened when they are first asked for and kept open."""

from __future__ import annotations

import threading
from pathlib import Path

from ragindex.config import Settings
from ragindex.index import Index
from ragindex.server.failures import Refusal

__all__ = ["Library"]


class Library:
    """Indexes by name of collection. Thread-safe, as `Index` is for reads; nothing here writes documents.

    Raises UsageError and StoreError, as `Index.open` does, when `default` cannot be opened.
    """

    def __init__(self, store: str | Path, *, default: str = "default", settings: Settings | None = None) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, Index] = {}
        self.default = default
        self._open[default] = Index.open(Path(store), collection=default, create=False, settings=settings)
        self.store = self._open[default].store

    def names(self) -> list[str]:
        """The collections there are now."""
        return [str(name) for name in self._open[self.default].status()["collections"]]

    def index(self, collection: str | None = None) -> Index:
        """An open collection; None is the default one. Raises Refusal 404 when there is none of that name."""
        name = self.default if collection is None else collection
        with self._lock:
            if name in self._open:
                return self._open[name]
            if name not in self.names():
                raise Refusal(
                    404, f"There is no collection {name!r}; there are {', '.join(self.names())}.", param="collection"
                )
            self._open[name] = self._open[self.default].sibling(name)
            return self._open[name]

    def close(self) -> None:
        """Close every collection; harmless when repeated."""
        with self._lock:
            for index in self._open.values():
                index.close()

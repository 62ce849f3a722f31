"""What every adapter holds: an index that is opened when it is first used, and the vectors of texts by themselves."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

from ragindex.encoder import Encoder
from ragindex.encoder.brought import BroughtEncoder
from ragindex.index import Index
from ragindex.index.records import Records
from ragindex.ingest.records import embed_whole
from ragindex.search.query_vectors import QueryVectors

__all__ = ["Embedder", "Opening", "Source", "TextVectors"]

Source = str | Path | Index
Embedder = str | Encoder | BroughtEncoder


class Opening:
    """An index of the caller's, or a path that is opened when it is first used and closed with this object.

    embedder: asked when the path is opened, for what makes the vectors; None leaves that to the store. create: whether
    a store may be made where there is none. Thread-safe; holds no lease.
    """

    def __init__(
        self,
        source: Source,
        *,
        embedder: Callable[[], Embedder | None] = lambda: None,
        collection: str = "default",
        create: bool = True,
    ) -> None:
        self.source = source
        self.collection = source.collection if isinstance(source, Index) else collection
        self._embedder = embedder
        self._create = create
        self._lock = threading.Lock()
        self._index = source if isinstance(source, Index) else None
        self._closing: weakref.finalize[[], Opening] | None = None

    @property
    def index(self) -> Index:
        """The open index. Raises what `Index.open` does."""
        with self._lock:
            if self._index is None:
                assert not isinstance(self.source, Index)
                self._index = Index.open(
                    self.source, encoder=self._embedder(), collection=self.collection, create=self._create
                )
                self._closing = weakref.finalize(self, self._index.close)
            return self._index

    @property
    def records(self) -> Records:
        """What the adapters read and write."""
        return self.index.records

    def close(self) -> None:
        """Close what was opened here; a later use opens it again. The caller's own index stays open."""
        with self._lock:
            if self._closing is not None:
                self._closing()
                self._index, self._closing = None, None


class TextVectors:
    """Vectors of texts as lists of floats: for frameworks that embed apart from storing.

    encoder: asked once, when it is first needed. Texts longer than it reads are read in windows, as a store's are.
    """

    def __init__(self, encoder: Callable[[], Encoder], *, instruction: str | None = None) -> None:
        self._load = encoder
        self._instruction = instruction
        self._lock = threading.Lock()
        self._encoder: Encoder | None = None
        self._queries = QueryVectors(lambda: self.encoder)

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded."""
        with self._lock:
            if self._encoder is None:
                self._encoder = self._load()
            return self._encoder

    def documents(self, texts: Sequence[str]) -> list[list[float]]:
        """A unit vector for each text; zeros for one that says nothing."""
        return [[float(value) for value in vector] for vector in embed_whole(self.encoder, texts)]

    def query(self, text: str) -> list[float]:
        """The unit vector of a query."""
        return [float(value) for value in self._queries(text, self._instruction)]

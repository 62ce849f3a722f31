"""Keeps the dense and the lexical index of one collection level with the catalogue, in memory and on disk."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ragindex.errors import UsageError
from ragindex.store.catalog import Catalog
from ragindex.store.lexical_files import read_population
from ragindex.store.rows import EncoderRow, Mark

if TYPE_CHECKING:
    from ragindex.store.live_dense import LiveDense
    from ragindex.store.live_text import LiveText
    from ragindex.store.text_index import TextIndex
    from ragindex.store.vector_index import VectorIndex

__all__ = ["IndexStatus", "LiveIndexes"]


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """What `status` shows of the snapshots.

    Sizes in bytes; a generation is None where there is no snapshot; `pending`: chunks that changed since the dense
    snapshot.
    """

    generation: int
    factory: str
    dense_generation: int | None
    lexical_generation: int | None
    dense_bytes: int
    lexical_bytes: int
    pending: int


class LiveIndexes:
    """Both indexes of a collection, opened lazily and refreshed at every call; thread-safe.

    `directory` is the store's (`.ragindex`); the snapshots lie in `snapshots/<collection>/`. With `encoder_id` None
    there is no dense side. Nothing here is needed to answer correctly: whatever is missing, damaged or behind is made
    from the catalogue.
    """

    def __init__(
        self, catalog: Catalog, directory: Path, collection: int, encoder_id: int | None, dimensions: int | None
    ) -> None:
        self._catalog = catalog
        self._folder = directory / "snapshots" / str(collection)
        self._collection = collection
        self._lock = threading.Lock()
        self._encoder = _encoder(catalog, encoder_id, dimensions)
        self._dense: LiveDense | None = None
        self._text: LiveText | None = None

    def dense(self) -> VectorIndex:
        """The dense index as of now. Raises UsageError without an encoder, MissingDependencyError without FAISS."""
        side = self._dense_side()
        if side is None:
            raise UsageError("The store has no encoder yet; run `ragindex index` first.")
        return side.current()

    def lexical(self) -> TextIndex:
        """The lexical index as of now. Does not import FAISS."""
        return self._text_side().current()

    def publish(self, *, force: bool = False) -> None:
        """Under the lease, after each committed batch, and with `force` at the end of a run.

        The lexical index is always brought up to date, the dense snapshot when it is more than 1,000 rows and 10 %
        behind, or `force`. The log is cut off below what both have seen. Raises StoreError when the disk refuses.
        """
        text = self._text_side()
        text.publish(settle=force)
        dense = self._dense_side()
        written = dense is not None and dense.publish(force=force)
        marks = [text.published()] + ([] if dense is None else [dense.published()])
        if (written or force) and all(mark is not None for mark in marks):
            self._catalog.trim_changes(self._collection, min(mark.generation for mark in marks if mark is not None))

    def settled(self) -> bool:
        """Whether `publish` with `force` would change nothing, as told by small files: opens no index.

        A forced publish writes the dense snapshot last, so where that is level the lexical index is too.
        """
        from ragindex.store import dense_files

        if self._encoder is None:
            return False
        manifest = dense_files.read_manifest(self._folder)
        if manifest is None or manifest.encoder != self._encoder.fingerprint:
            return False
        if manifest.mark != self._catalog.mark(self._collection) or not (self._folder / manifest.file).is_file():
            return False
        population = read_population(self._folder / "lexical")
        return population is not None and population.settled

    def rebuild(self) -> None:
        """Under the lease: make both snapshots again from the catalogue."""
        self._text_side().rebuild()
        dense = self._dense_side()
        if dense is not None:
            dense.rebuild()

    def problems(self) -> list[str]:
        """What is wrong with the snapshots, one sentence each. None of it can falsify an answer."""
        dense = self._dense_side()
        return [*self._text_side().problems(), *([] if dense is None else dense.problems())]

    def status(self) -> IndexStatus:
        """Where the snapshots stand. Does not load the dense index."""
        from ragindex.store import dense_files

        manifest = dense_files.read_manifest(self._folder)
        now = self._catalog.mark(self._collection)
        changes = self._catalog.changes_since(self._collection, Mark() if manifest is None else manifest.mark)
        lexical = self._text_side().published()
        return IndexStatus(
            generation=now.generation,
            factory="none" if manifest is None else manifest.factory,
            dense_generation=None if manifest is None else manifest.generation,
            lexical_generation=None if lexical is None else lexical.generation,
            dense_bytes=0 if manifest is None else _size(self._folder / manifest.file),
            lexical_bytes=sum(_size(file) for file in (self._folder / "lexical").glob("*")),
            pending=self._catalog.chunk_count(self._collection)
            if changes is None
            else len(changes.added) + len(changes.removed),
        )

    def close(self) -> None:
        """Let go of the indexes' memory and files; a later call opens them again."""
        with self._lock:
            self._dense = self._text = None

    def _dense_side(self) -> LiveDense | None:
        if self._encoder is None:
            return None
        with self._lock:
            if self._dense is None:
                from ragindex.store.live_dense import LiveDense

                self._dense = LiveDense(self._catalog, self._folder, self._collection, self._encoder)
            return self._dense

    def _text_side(self) -> LiveText:
        with self._lock:
            if self._text is None:
                from ragindex.store.live_text import LiveText

                self._text = LiveText(self._catalog, self._folder, self._collection)
            return self._text


def _encoder(catalog: Catalog, encoder_id: int | None, dimensions: int | None) -> EncoderRow | None:
    if encoder_id is None:
        return None
    for row in catalog.encoders():
        if row.id == encoder_id and dimensions in (None, row.dimensions):
            return row
    raise UsageError(f"The store knows no encoder {encoder_id} of {dimensions} dimensions.")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0

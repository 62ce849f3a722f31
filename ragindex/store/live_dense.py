"""Keeps the dense index of one collection and encoder level with the catalogue."""

from __future__ import annotations

import threading
from pathlib import Path

from ragindex.store import dense_files
from ragindex.store.catalog import Catalog
from ragindex.store.faiss_index import FaissIndex
from ragindex.store.rows import EncoderRow, IdArray, Mark, VectorBatch

__all__ = ["LiveDense"]

_FEW = 1_000  # changed rows that are replayed rather than published
_SHARE = 0.1
_READER_FACTOR = (
    4  # a reader that lives long folds its delta in later than a writer does: it has nothing to show for it
)


class LiveDense:
    """Opened at the first use: from the snapshot if it is sound, else from the catalogue; then changes are replayed."""

    def __init__(self, catalog: Catalog, folder: Path, collection: int, encoder: EncoderRow) -> None:
        self._catalog = catalog
        self._folder = folder
        self._collection = collection
        self._encoder = encoder
        self._lock = threading.RLock()
        self._index: FaissIndex | None = None
        self._mark = Mark()

    def current(self) -> FaissIndex:
        """The index as of the catalogue's last commit. Raises MissingDependencyError without FAISS."""
        with self._lock:
            index = self._index if self._index is not None else self._open()
            if self._catalog.mark(self._collection) != self._mark:
                index = self._advance(index) or self._rebuilt()
                if index.pending > _READER_FACTOR * _tolerated(len(index)):
                    index = index.compacted()
            self._index = index
            return index

    def publish(self, *, force: bool) -> bool:
        """Under the lease: write the snapshot if the one on disk is far behind, or at all behind and `force`.
        Whether it did.
        """
        now = self._catalog.mark(self._collection)
        manifest = self._sound_manifest()
        if manifest is not None:
            behind = now.generation - manifest.generation
            if manifest.mark == now or (not force and 0 <= behind <= _tolerated(manifest.count)):
                return False
        elif not force and now.generation <= _FEW:
            return False
        with self._lock:
            index = self.current().compacted()
            dense_files.publish(self._folder, index, self._mark, self._encoder.fingerprint)
            self._index = index
        return True

    def prepare(self) -> None:
        """Under the lease: leave a snapshot that whoever opens it brings up to date by replaying a little."""
        mark = self.replayable()
        if mark is None or self._catalog.changes_since(self._collection, mark) is None:
            self.publish(force=True)

    def replayable(self) -> Mark | None:
        """The mark of the snapshot on disk; None where there is none, or making it again costs less than to replay."""
        manifest = self._sound_manifest()
        if manifest is None:
            return None
        behind = self._catalog.generation(self._collection) - manifest.generation
        return manifest.mark if 0 <= behind <= _tolerated(manifest.count) else None

    def rebuild(self) -> None:
        """Under the lease: make the snapshot again from the catalogue."""
        with self._lock:
            self._index = self._rebuilt()
            dense_files.publish(self._folder, self._index, self._mark, self._encoder.fingerprint)

    def published(self) -> Mark | None:
        """The mark of the snapshot on disk, unless it is of another encoder."""
        manifest = self._sound_manifest()
        return None if manifest is None else manifest.mark

    def problems(self) -> list[str]:
        """What is wrong with the snapshot on disk; being behind is not wrong."""
        if self.published() is None:
            return []
        if self._loaded() is None:
            return [
                f"The dense snapshot in {self._folder} is damaged; it is ignored, `ragindex repair` makes it again."
            ]
        return []

    def _sound_manifest(self) -> dense_files.Manifest | None:
        manifest = dense_files.read_manifest(self._folder)
        if manifest is None or manifest.encoder != self._encoder.fingerprint:
            return None
        return manifest if (self._folder / manifest.file).is_file() else None

    def _open(self) -> FaissIndex:
        index = self._loaded()
        if index is not None:
            index = self._advance(index)
        return index if index is not None else self._rebuilt()

    def _loaded(self) -> FaissIndex | None:
        snapshot = dense_files.read_snapshot(self._folder)
        if snapshot is None or snapshot.manifest.encoder != self._encoder.fingerprint:
            return None
        try:
            index = FaissIndex.from_bytes(snapshot.data, self._encoder.dimensions, self._fetch)
        except ValueError:
            return None
        if len(index) != snapshot.manifest.count:
            return None
        self._mark = snapshot.manifest.mark
        return index

    def _advance(self, index: FaissIndex) -> FaissIndex | None:
        """Replay what happened since the mark; None when the log does not tell or the counts disagree afterwards."""
        changes = self._catalog.changes_since(self._collection, self._mark)
        if changes is None:
            return None
        index.remove(changes.removed)
        # A moved chunk is logged again but its vector is the same.
        fresh = self._fetch(index.missing(changes.added))
        index.add(fresh.ids, fresh.vectors)
        self._mark = changes.mark
        expected = self._catalog.chunk_count(self._collection)
        settled = self._catalog.mark(self._collection) == changes.mark
        return None if settled and len(index) != expected else index

    def _rebuilt(self) -> FaissIndex:
        # The mark comes first: rows committed meanwhile are met again in the log, where they do no harm.
        self._mark = self._catalog.mark(self._collection)
        batches = self._catalog.iter_vectors(self._collection, self._encoder.id)
        return FaissIndex.build(self._encoder.dimensions, self._fetch, batches)

    def _fetch(self, ids: IdArray) -> VectorBatch:
        return self._catalog.present_vectors(self._encoder.id, ids)


def _tolerated(count: int) -> int:
    return max(_FEW, int(_SHARE * count))

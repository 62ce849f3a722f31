"""Keeps the dense index of one collection and encoder level with the catalogue."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ragindex.store import dense_files
from ragindex.store.catalog import Catalog
from ragindex.store.dense_base import Source
from ragindex.store.faiss_index import FaissIndex
from ragindex.store.gpu import Gpu
from ragindex.store.rows import EncoderRow, IdArray, Mark, VectorBatch
from ragindex.store.schemes import SCHEMES, Scheme, choose, read_plan
from ragindex.store.tuning import Tuning
from ragindex.store.vector_file import VectorFile

__all__ = ["LiveDense"]

_FEW = 1_000  # changed rows that are replayed rather than published
_SHARE = 0.1
_READER_FACTOR = (
    4  # a reader that lives long folds its delta in later than a writer does: it has nothing to show for it
)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What lies on disk, opened; `vectors` is None where it has none or they cannot be read."""

    manifest: dense_files.Manifest
    index: FaissIndex
    vectors: VectorFile | None


class LiveDense:
    """Opened at the first use: from the snapshot if it is sound, else from the catalogue; then changes are replayed."""

    def __init__(
        self, catalog: Catalog, folder: Path, collection: int, encoder: EncoderRow, *, search_on: str = "cpu"
    ) -> None:
        self._catalog = catalog
        self._folder = folder
        self._collection = collection
        self._encoder = encoder
        self._lock = threading.RLock()
        self._index: FaissIndex | None = None
        self._mark = Mark()
        self._search_on = search_on
        self._gpu: Gpu | None = None

    def searched(self) -> FaissIndex:
        """As `current`, where it is to be searched. Raises MissingDependencyError without the GPU that this needs, and
        StoreError as `Gpu.copied` does.
        """
        index = self.current()
        if self._search_on == "gpu":
            with self._lock:
                self._gpu = self._gpu or Gpu()
            index.run_on(self._gpu)
        return index

    def current(self) -> FaissIndex:
        """The index as of the catalogue's last commit. Raises MissingDependencyError without FAISS."""
        with self._lock:
            index = self._index if self._index is not None else self._open()
            if self._catalog.mark(self._collection) != self._mark:
                index = self._advance(index) or self._rebuilt()
                if index.pending > _READER_FACTOR * _tolerated(len(index)):
                    index = index.compacted() or self._rebuilt()
            self._index = index
            return index

    def publish(self, *, force: bool) -> bool:
        """Under the lease: write the snapshot if the one on disk is far behind, or with `force` if it is behind by more
        than is left to be replayed, or of another scheme than is wanted. Whether it did.
        """
        now = self._catalog.mark(self._collection)
        manifest = self._sound_manifest()
        if manifest is not None:
            behind = now.generation - manifest.generation
            if not force and 0 <= behind <= _tolerated(manifest.count):
                return False
            level = dense_files.is_level(manifest, self._catalog, self._collection)
            if force and level and manifest.scheme == self._wanted().name:
                return False
        elif not force and now.generation <= _FEW:
            return False
        with self._lock:
            index = self.current()
            compacted = index.compacted() if index.scheme == self._wanted() else None
            self._index = compacted or self._rebuilt()
            self._write(self._index)
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
            self._write(self._index)

    def published(self) -> Mark | None:
        """The mark of the snapshot on disk, unless it is of another encoder."""
        manifest = self._sound_manifest()
        return None if manifest is None else manifest.mark

    def problems(self) -> list[str]:
        """What is wrong with the snapshot on disk; being behind is not wrong. Reads all of it."""
        if self.published() is None:
            return []
        loaded = self._loaded()
        what = f"dense snapshot in {self._folder}"
        if loaded is None:
            return [f"The {what} is damaged; it is ignored, `ragindex repair` makes it again."]
        if not loaded.manifest.vectors or (loaded.vectors is not None and not loaded.vectors.damaged()):
            return []
        return [f"Vectors beside the {what} are damaged; the catalogue's are used, `ragindex repair` makes them again."]

    def _sound_manifest(self) -> dense_files.Manifest | None:
        manifest = dense_files.read_manifest(self._folder)
        if manifest is None or manifest.encoder != self._encoder.fingerprint:
            return None
        return manifest if all(file.is_file() for file in manifest.files(self._folder)) else None

    def _open(self) -> FaissIndex:
        loaded, index = self._loaded(), None
        if loaded is not None:
            self._mark = loaded.manifest.mark
            index = self._advance(loaded.index)
        return index if index is not None else self._rebuilt()

    def _loaded(self) -> _Loaded | None:
        snapshot = dense_files.read_snapshot(self._folder)
        if snapshot is None or snapshot.manifest.encoder != self._encoder.fingerprint:
            return None
        manifest, dimensions = snapshot.manifest, self._encoder.dimensions
        scheme = SCHEMES.get(manifest.scheme)
        if scheme is None:
            return None
        tuning = Tuning(manifest.near, manifest.far, manifest.recall)
        try:
            index = FaissIndex.read(dimensions, self._fetch, scheme, data=snapshot.data, tuning=tuning)
        except ValueError:
            return None
        if len(index) != manifest.count:
            return None
        vectors = dense_files.open_vectors(self._folder, manifest, index.ids, dimensions)
        index.attach(vectors)
        return _Loaded(manifest, index, vectors)

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
        source = Source(self._catalog.chunk_count(self._collection), self._vectors)
        return FaissIndex.build(self._encoder.dimensions, self._fetch, self._wanted(), source)

    def _wanted(self) -> Scheme:
        count = self._catalog.chunk_count(self._collection)
        return choose(read_plan(self._catalog, self._collection), count, self._encoder.dimensions).scheme

    def _write(self, index: FaissIndex) -> None:
        manifest = dense_files.publish(
            self._folder, index, mark=self._mark, encoder=self._encoder.fingerprint, vectors=self._vectors()
        )
        index.attach(dense_files.open_vectors(self._folder, manifest, index.ids, self._encoder.dimensions))

    def _vectors(self) -> Iterator[VectorBatch]:
        return self._catalog.iter_vectors(self._collection, self._encoder.id)

    def _fetch(self, ids: IdArray) -> VectorBatch:
        return self._catalog.present_vectors(self._encoder.id, ids)


def _tolerated(count: int) -> int:
    return max(_FEW, int(_SHARE * count))

"""Keeps the lexical index of one collection level with the catalogue."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ragindex.errors import RagIndexError, StoreError
from ragindex.store.catalog import Catalog
from ragindex.store.lease import WriterLease
from ragindex.store.lexical_files import read_population
from ragindex.store.rows import Changes, Float32Array, IdArray, Mark, TextEntry
from ragindex.store.tantivy_index import TantivyIndex
from ragindex.store.text_index import TextIndex
from ragindex.store.vector_index import Scored, merged

__all__ = ["LiveText"]

_NONE = np.empty(0, np.int64)
_BATCH = 2_048
_FED = "A live index is fed by the catalogue; commit there instead."


class LiveText:
    """Opened at the first use.

    An index on disk that is behind is brought up to date by whoever can take the writer's lease; a reader that cannot
    lays the missing rows over it in memory.
    """

    def __init__(self, catalog: Catalog, folder: Path, collection: int) -> None:
        self._catalog = catalog
        self._folder = folder
        self._path = folder / "lexical"
        self._collection = collection
        self._lock = threading.RLock()
        self._disk: TantivyIndex | None = None
        self._view: _View | None = None

    def current(self) -> TextIndex:
        """The index as of the catalogue's last commit."""
        with self._lock:
            now = self._catalog.mark(self._collection)
            if self._view is None or self._view.mark != now:
                self._view = self._refreshed(now)
            return self._view

    def publish(self, *, settle: bool = False) -> None:
        """Under the lease: bring the index on disk up to date.

        tantivy counts deleted chunks in its statistics until it happens to merge them away, so scores depend on how an
        index came about. To `settle` is to make it again where many chunks were deleted, or doing so takes no time.
        """
        with self._lock:
            if not (self._opened() and self._caught_up()) or (settle and self._unsettled()):
                self._rebuild_on_disk()
            self._view = None

    def _unsettled(self) -> bool:
        population = read_population(self._path)
        return population is not None and not population.settled

    def rebuild(self) -> None:
        """Under the lease: make the index on disk again."""
        with self._lock:
            self._rebuild_on_disk()
            self._view = None

    def published(self) -> Mark | None:
        """The mark of the index on disk."""
        with self._lock:
            return self._disk_mark()

    def problems(self) -> list[str]:
        """What is wrong with the index on disk; being behind is not wrong."""
        if not self._path.exists():
            return []
        with self._lock:
            mark = self._disk_mark()
            if mark is None or self._disk is None:
                return [f"The lexical index in {self._path} is damaged; `ragindex repair` makes it again."]
            damaged = TantivyIndex.damaged_files(self._path)
            sentences = [f"{name} of the lexical index is damaged; run `ragindex repair`." for name in damaged]
            expected = self._catalog.chunk_count(self._collection)
            if mark == self._catalog.mark(self._collection) and len(self._disk) != expected:
                sentences.append(f"The lexical index holds {len(self._disk)} chunks instead of {expected}.")
            return sentences

    def _refreshed(self, now: Mark) -> _View:
        if self._disk_mark() == now and self._agrees(now):
            return _View(now, self._disk, None, _NONE, self._broken)
        lease = None if self._catalog.read_only else WriterLease.try_acquire(self._catalog.directory, command="query")
        if lease is not None:
            published = False
            # A query is answered on a full disk too.
            with contextlib.closing(_Released(lease)), contextlib.suppress(StoreError):
                self.publish()
                published = True
            mark = self._disk_mark()
            if published and mark is not None:
                return _View(mark, self._disk, None, _NONE, self._broken)
        return self._overlaid()

    def _overlaid(self) -> _View:
        """What the disk lacks, laid over it in memory; everything, where there is no usable disk."""
        view = self._view
        if view is not None and view.overlay is not None and view.disk is self._disk:
            changes = self._catalog.changes_since(self._collection, view.mark)
            if changes is not None:
                view.overlay.apply(changes.removed, self._entries(changes), None)
                hidden = np.union1d(view.hidden, np.concatenate([changes.added, changes.removed])).astype(np.int64)
                return _View(changes.mark, view.disk, view.overlay, hidden, self._broken)
        mark = self._disk_mark()
        changes = None if mark is None else self._catalog.changes_since(self._collection, mark)
        overlay = TantivyIndex(None)
        if changes is None:
            now = self._catalog.mark(self._collection)
            overlay.apply(_NONE, self._catalog.iter_texts(self._collection), None)
            return _View(now, None, overlay, _NONE, self._broken)
        overlay.apply(_NONE, self._entries(changes), None)
        hidden = np.sort(np.concatenate([changes.added, changes.removed]))
        return _View(changes.mark, self._disk, overlay, hidden, self._broken)

    def _caught_up(self) -> bool:
        """Replay onto the disk what it lacks; False when it must be made again."""
        mark = self._disk_mark()
        changes = None if mark is None else self._catalog.changes_since(self._collection, mark)
        if changes is None or self._disk is None:
            return False
        if changes.mark != mark:
            try:
                self._disk.apply(changes.removed, self._entries(changes), changes.mark)
            except (OSError, ValueError):
                return False
        return self._agrees(changes.mark)

    def _agrees(self, mark: Mark) -> bool:
        expected = self._catalog.chunk_count(self._collection)
        # Another commit in between says nothing about this index.
        return self._catalog.mark(self._collection) != mark or (self._disk is not None and len(self._disk) == expected)

    def _rebuild_on_disk(self) -> None:
        draft, old = self._folder / "lexical.part", self._folder / "lexical.old"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for left in (draft, old):
                shutil.rmtree(left, ignore_errors=True)
            mark = self._catalog.mark(self._collection)
            TantivyIndex(draft).apply(_NONE, self._catalog.iter_texts(self._collection), mark)
            if self._path.exists():
                self._path.replace(old)  # whole: to be killed while deleting would leave half an index in its place
            draft.replace(self._path)
            shutil.rmtree(old, ignore_errors=True)
        except (OSError, ValueError) as error:
            raise StoreError(f"The lexical index in {self._folder} cannot be written: {error}.") from error
        self._disk = None
        self._opened()

    def _entries(self, changes: Changes) -> Iterator[Sequence[TextEntry]]:
        for start in range(0, len(changes.added), _BATCH):
            yield self._catalog.texts(changes.added[start : start + _BATCH])

    def _opened(self) -> bool:
        if self._disk is None:
            # Damaged files surface as ValueError, OSError or others that tantivy does not name; all of them mean
            # "make it again".
            with contextlib.suppress(Exception):
                if not TantivyIndex.damaged_files(self._path):
                    self._disk = TantivyIndex(self._path, create=False)
        return self._disk is not None

    def _disk_mark(self) -> Mark | None:
        if not self._opened() or self._disk is None:
            return None
        try:
            self._disk.reload()
            return self._disk.mark()
        except Exception:  # noqa: BLE001 - tantivy reports damage as whatever error
            self._disk = None
            return None

    def _broken(self) -> TextIndex:
        """Called when the index on disk fails in the middle of a search: go on without it."""
        with self._lock:
            self._disk = None
            lease = (
                None if self._catalog.read_only else WriterLease.try_acquire(self._catalog.directory, command="query")
            )
            if lease is not None:
                rebuilt = False
                with contextlib.closing(_Released(lease)), contextlib.suppress(StoreError):
                    self._rebuild_on_disk()
                    rebuilt = True
                self._view = None
                if rebuilt:
                    return self.current()
            overlay = TantivyIndex(None)
            now = self._catalog.mark(self._collection)
            overlay.apply(_NONE, self._catalog.iter_texts(self._collection), None)
            self._view = _View(now, None, overlay, _NONE, self._broken)
            return self._view


class _Released:
    """Gives a lease back when closed."""

    def __init__(self, lease: WriterLease) -> None:
        self.close = lease.release


class _View:
    """What a search sees: the disk without the hidden ids, and the overlay."""

    def __init__(
        self,
        mark: Mark,
        disk: TantivyIndex | None,
        overlay: TantivyIndex | None,
        hidden: IdArray,
        broken: Callable[[], TextIndex],
    ) -> None:
        self.mark = mark
        self.disk = disk
        self.overlay = overlay
        self.hidden = hidden
        self._broken = broken

    def add(self, entries: Sequence[TextEntry]) -> None:  # noqa: ARG002
        """Not offered: a live index follows the catalogue."""
        raise StoreError(_FED)

    def remove(self, ids: IdArray) -> None:  # noqa: ARG002
        """Not offered: a live index follows the catalogue."""
        raise StoreError(_FED)

    def search(self, query: str, k: int, allowed: IdArray | None = None) -> Scored:
        """The k best chunks that share a word with `query` among `allowed` (ascending ids; None: all)."""
        parts = [] if self.overlay is None else [self.overlay.search(query, k, allowed)]
        if self.disk is not None:
            try:
                parts.append(self.disk.search(query, k, allowed, excluded=self.hidden if len(self.hidden) else None))
            except RagIndexError:
                raise
            except Exception:  # noqa: BLE001 - tantivy meets damage only when it reads it, as whatever error
                return self._broken().search(query, k, allowed)
        return merged(parts, k)

    def ceiling(self, query: str) -> float:
        """The limit of BM25 for `query`, by the statistics of the larger part."""
        part = self._larger()
        return part.ceiling(query) if part is not None else 0.0

    def order_gains(self, query: str, texts: Sequence[str]) -> Float32Array:
        """What each text (n,) gains by holding words of `query` in the same order, by the statistics of the larger
        part.
        """
        part = self._larger()
        return part.order_gains(query, texts) if part is not None else np.zeros(len(texts), np.float32)

    def _larger(self) -> TantivyIndex | None:
        parts = [part for part in (self.disk, self.overlay) if part is not None]
        return max(parts, key=len, default=None)

    def __len__(self) -> int:
        total = 0 if self.overlay is None else len(self.overlay)
        if self.disk is None:
            return total
        return total + len(self.disk) - self.disk.count(self.hidden)

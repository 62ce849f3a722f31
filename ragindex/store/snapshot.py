"""Keeps the dense and the lexical index of one collection level with the catalogue, in memory and on disk."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ragindex.errors import UsageError
from ragindex.store.catalog import Catalog
from ragindex.store.lexical_files import read_population
from ragindex.store.rows import EncoderRow, Mark
from ragindex.store.schemes import Choice, choose, read_plan

if TYPE_CHECKING:
    from ragindex.store.live_dense import LiveDense
    from ragindex.store.live_text import LiveText
    from ragindex.store.text_index import TextIndex
    from ragindex.store.vector_index import VectorIndex

__all__ = ["IndexStatus", "LiveIndexes", "dense_folder", "prune"]

_SNAPSHOTS = "snapshots"
_DENSE = "dense-"  # and the beginning of the encoder's fingerprint: the folder of one encoder's dense snapshot


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """What `status` shows of the snapshots.

    Sizes in bytes, `dense_bytes` without `vector_bytes`, the vectors on disk that candidates are rescored with; a
    generation is None where there is no snapshot; `pending`: chunks that changed since the dense snapshot. `scheme` and
    `recall`, of the ten nearest as measured when it was built, are those of the snapshot, `choice` what is wanted now.
    """

    generation: int
    factory: str
    scheme: str | None
    recall: float | None
    choice: Choice | None
    dense_generation: int | None
    lexical_generation: int | None
    dense_bytes: int
    vector_bytes: int
    lexical_bytes: int
    pending: int


class LiveIndexes:
    """Both indexes of a collection, opened lazily and refreshed at every call; thread-safe.

    `directory` is the store's (`.ragindex`); the snapshots lie in `snapshots/<collection>/`, the dense ones in a
    folder for each encoder. With `encoder_id` None there is no dense side. Nothing here is needed to answer correctly:
    whatever is missing, damaged or behind is made from the catalogue.
    """

    def __init__(
        self,
        catalog: Catalog,
        directory: Path,
        collection: int,
        encoder_id: int | None,
        dimensions: int | None,
        *,
        search_on: str = "cpu",
    ) -> None:
        self._catalog = catalog
        self._directory = directory
        self._folder = directory / _SNAPSHOTS / str(collection)
        self._collection = collection
        self._lock = threading.Lock()
        self._search_on = search_on
        self.encoder = _encoder(catalog, encoder_id, dimensions)
        self._dense: LiveDense | None = None
        self._text: LiveText | None = None

    def under(self, encoder: EncoderRow) -> LiveIndexes:
        """The indexes of the same collection with another encoder's vectors; the lexical one is shared."""
        other = LiveIndexes(
            self._catalog, self._directory, self._collection, encoder.id, encoder.dimensions, search_on=self._search_on
        )
        with self._lock:
            other._text = self._text
        return other

    def dense(self) -> VectorIndex:
        """The dense index as of now. Raises UsageError without an encoder, MissingDependencyError without FAISS."""
        side = self._dense_side()
        if side is None:
            raise UsageError("The store has no encoder yet; run `ragindex index` first.")
        return side.searched()

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
            marks.append(self._way_back())
            self._catalog.trim_changes(self._collection, min(mark.generation for mark in marks if mark is not None))

    def prepare(self) -> None:
        """Under the lease, before `encoder` begins to serve: leave a dense snapshot, so that nobody's first query has
        to wait for one. Raises StoreError when the disk refuses, MissingDependencyError without FAISS.
        """
        dense = self._dense_side()
        if dense is not None:
            dense.prepare()

    def settled(self) -> bool:
        """Whether `publish` with `force` would change nothing, as told by small files wherever they can tell.

        A forced publish sees to the dense snapshot last, so where that stands at the last change the lexical index does
        too.
        """
        from ragindex.store import dense_files

        if self.encoder is None:
            return False
        folder = self._dense_folder(self.encoder)
        manifest = dense_files.read_manifest(folder)
        if manifest is None or manifest.encoder != self.encoder.fingerprint:
            return False
        if not all(file.is_file() for file in manifest.files(folder)):
            return False
        if not dense_files.is_level(manifest, self._catalog, self._collection):
            return False
        now = self._catalog.mark(self._collection)
        if manifest.mark != now and self._text_side().published() != now:
            return False
        if manifest.scheme != self._choice(self.encoder).scheme.name:
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
        from ragindex.store import dense_files

        dense = self._dense_side()
        found = [*self._text_side().problems(), *([] if dense is None else dense.problems())]
        if self.encoder is not None and dense_files.is_unread(self._dense_folder(self.encoder)):
            found.append(
                f"The dense snapshot in {self._dense_folder(self.encoder)} is damaged or of another version; it is "
                "ignored, `ragindex repair` makes it again."
            )
        return found

    def status(self) -> IndexStatus:
        """Where the snapshots stand. Does not load the dense index."""
        from ragindex.store import dense_files

        folder = self._folder if self.encoder is None else self._dense_folder(self.encoder)
        manifest = None if self.encoder is None else dense_files.read_manifest(folder)
        now = self._catalog.mark(self._collection)
        changes = self._catalog.changes_since(self._collection, Mark() if manifest is None else manifest.mark)
        lexical = self._text_side().published()
        return IndexStatus(
            generation=now.generation,
            factory="none" if manifest is None else manifest.factory,
            scheme=None if manifest is None else manifest.scheme,
            recall=None if manifest is None else manifest.recall,
            choice=None if self.encoder is None else self._choice(self.encoder),
            dense_generation=None if manifest is None else manifest.generation,
            lexical_generation=None if lexical is None else lexical.generation,
            dense_bytes=0 if manifest is None else _size(folder / manifest.file),
            vector_bytes=_size(folder / manifest.vectors) if manifest is not None and manifest.vectors else 0,
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
        if self.encoder is None:
            return None
        with self._lock:
            if self._dense is None:
                self._dense = self._dense_of(self.encoder)
            return self._dense

    def _dense_of(self, encoder: EncoderRow) -> LiveDense:
        from ragindex.store.live_dense import LiveDense

        folder = self._dense_folder(encoder)
        return LiveDense(self._catalog, folder, self._collection, encoder, search_on=self._search_on)

    def _choice(self, encoder: EncoderRow) -> Choice:
        count = self._catalog.chunk_count(self._collection)
        return choose(read_plan(self._catalog, self._collection), count, encoder.dimensions)

    def _dense_folder(self, encoder: EncoderRow) -> Path:
        return dense_folder(self._directory, self._collection, encoder)

    def _way_back(self) -> Mark | None:
        """Where the previous encoder's snapshot stands, as long as going back to it would mean to replay a little."""
        previous = self._catalog.previous_encoder()
        return None if previous is None else self._dense_of(previous).replayable()

    def _text_side(self) -> LiveText:
        with self._lock:
            if self._text is None:
                from ragindex.store.live_text import LiveText

                self._text = LiveText(self._catalog, self._folder, self._collection)
            return self._text


def dense_folder(directory: Path, collection: int, encoder: EncoderRow) -> Path:
    """Where the dense snapshot of a collection of the store in `directory` lies, under this encoder."""
    return directory / _SNAPSHOTS / str(collection) / _dense_name(encoder)


def prune(directory: Path, encoders: Collection[EncoderRow]) -> None:
    """Under the lease: delete the dense snapshots of all but these encoders, in every collection of the store."""
    kept = {_dense_name(encoder) for encoder in encoders}
    for folder in (directory / _SNAPSHOTS).glob(f"*/{_DENSE}*"):
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)  # what cannot be deleted only takes up space


def _encoder(catalog: Catalog, encoder_id: int | None, dimensions: int | None) -> EncoderRow | None:
    if encoder_id is None:
        return None
    for row in catalog.encoders():
        if row.id == encoder_id and dimensions in (None, row.dimensions):
            return row
    raise UsageError(f"The store knows no encoder {encoder_id} of {dimensions} dimensions.")


def _dense_name(encoder: EncoderRow) -> str:
    return _DENSE + encoder.fingerprint[:12]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0

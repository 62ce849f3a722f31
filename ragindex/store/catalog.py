"""The catalogue: the truth of a store, and the only way to its SQL.

Questions are plain SQL; what writes goes through SQLAlchemy, which the first write imports: a query does without.
Every method is one transaction. Reading is thread-safe; writing belongs under the `WriterLease`. Besides the errors
that a method names, each raises StoreError when SQLite cannot do its work and CorruptionError when the file is
damaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ragindex.errors import StoreError, UsageError
from ragindex.store.allowing import Allowing, Lists
from ragindex.store.database import FILE_NAME, HEAD, Database
from ragindex.store.feeding import Feeding
from ragindex.store.finding import Finding
from ragindex.store.listing import Listing
from ragindex.store.reading import Reading
from ragindex.store.recovering import Recovering
from ragindex.store.registry import Registry
from ragindex.store.rows import (
    Batch,
    Changes,
    ChunkRow,
    Counts,
    DocumentRow,
    DocumentWrite,
    EncoderRow,
    FailureRow,
    FailureState,
    FailureWrite,
    FileState,
    Float16Array,
    Mark,
    Move,
    TextEntry,
    VectorBatch,
)

if TYPE_CHECKING:
    from ragindex.store.mending import CopiesOf

__all__ = [
    "HEAD",
    "Batch",
    "Catalog",
    "Changes",
    "ChunkRow",
    "Counts",
    "DocumentRow",
    "DocumentWrite",
    "EncoderRow",
    "FailureRow",
    "FailureState",
    "FailureWrite",
    "FileState",
    "Mark",
    "Move",
    "TextEntry",
    "VectorBatch",
]


class Catalog(Registry, Reading, Listing, Finding, Allowing, Feeding, Recovering):
    """An open store; `directory` is the store's (`.ragindex`). Use `Catalog.open`, and close it or use it in a
    `with`.
    """

    def __init__(self, directory: Path, database: Database) -> None:
        self.directory = directory
        self._database = database
        self._lists = Lists()

    @classmethod
    def open(cls, directory: Path, *, create: bool = True) -> Catalog:
        """Open the store in `directory`, making an empty one if there is none and `create` allows.

        A folder that cannot be written is opened for reading. Raises StoreError when there is no store, SchemaError
        when it was written by another version of the schema, CorruptionError when the file is not a catalogue.
        """
        file = directory / FILE_NAME
        if not file.is_file():
            if not create:
                raise StoreError(f"There is no store in {directory}; `ragindex index PATH` makes one.")
            from ragindex.store import migrate

            migrate.create(directory)
        return cls(directory, Database(file))

    def close(self) -> None:
        """Close the store; harmless when it is closed."""
        self._database.close()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def read_only(self) -> bool:
        """Whether the folder cannot be written."""
        return self._database.read_only

    def commit(self, collection: int, batch: Batch) -> int:
        """Apply a batch completely or not at all; returns the collection's generation after it.

        Replacing, moving or removing a document logs its chunks, so that indexes can follow. Raises UsageError for a
        batch that contradicts itself and CorruptionError for a vector that is missing, not finite or of the wrong
        length.
        """
        from ragindex.store import writing

        try:
            with self._database.writing() as connection:
                return writing.apply(connection, collection, batch)
        except UnicodeEncodeError as error:
            raise UsageError(f"A text or path is not valid Unicode and cannot be stored: {error}.") from error

    def add_vectors(self, encoder_id: int, vectors: Mapping[bytes, Float16Array]) -> None:
        """Store vectors (d,) by key without touching documents: how a store is embedded anew before the encoder is
        swapped. Under the lease, or for an encoder that does not serve under the `PromotionLease`.
        """
        from ragindex.store import writing

        with self._database.writing() as connection:
            writing.store_vectors(connection, encoder_id, vectors)

    def sweep_vectors(self) -> int:
        """Delete the vectors that no chunk refers to, and all but those of the active and the previous encoder.
        Returns how many went.
        """
        from ragindex.store import writing

        with self._database.writing() as connection:
            return writing.sweep_vectors(connection)

    def vacuum(self) -> None:
        """Give free pages back to the file system. Needs as much free disk as the catalogue is large."""
        self._database.vacuum()

    def integrity(self) -> list[str]:
        """What is wrong with the store, one sentence each; empty when every chunk is what it claims to be."""
        from ragindex.store import integrity

        with self._database.snapshot() as connection:
            return integrity.problems(connection)

    def is_readable(self) -> bool:
        """Whether SQLite finds its own pages and indexes in order."""
        from ragindex.store import integrity

        with self._database.snapshot() as connection:
            return not integrity.structure(connection)

    def unlike(self, copies: CopiesOf) -> list[str]:
        """The paths of chunks whose vectors differ from these copies of them, one for each such chunk."""
        from ragindex.store.copies import differing

        query = "SELECT path FROM chunks JOIN documents ON documents.id = document_id WHERE chunks.id = ?"
        with self._database.snapshot() as connection:
            return [
                connection.execute(query, (one.chunk_id,)).fetchone()[0]
                for batch in copies.batches
                for one in differing(connection, copies.encoder_id, batch)
            ]

    def mend(self, copies: Iterable[CopiesOf]) -> None:
        """Under the lease: mend rows from each other and from copies of vectors; see `mending`."""
        from ragindex.store import mending

        with self._database.mending() as connection:
            mending.mend(connection, copies)

"""What the indexes are fed from: the history of a collection, its vectors and its texts."""

# ruff: noqa: S608 - statements are put together from constants; whatever a user wrote is a parameter
from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from ragindex.errors import CorruptionError
from ragindex.store.database import Database
from ragindex.store.reading import listed, unpacked
from ragindex.store.registry import headings
from ragindex.store.rows import Changes, DocumentSpans, Float32Array, IdArray, Mark, TextEntry, VectorBatch

__all__ = ["Feeding"]

_VECTORS = (
    "SELECT chunks.id, vectors.data FROM chunks "
    "JOIN vectors ON vectors.key = chunks.vector_key AND vectors.encoder_id = ?"
)
_TEXTS = (
    "SELECT chunks.id, chunks.text, documents.title, chunks.heading, documents.path, chunks.vector_key FROM chunks "
    "JOIN documents ON documents.id = chunks.document_id"
)


class Feeding:
    """Bulk reads for the indexes. An index that takes a mark first and the rows after it may replay changes it has
    seen.
    """

    _database: Database

    def generation(self, collection: int) -> int:
        """The number of the collection's last change; grows with every commit that touches a chunk. One indexed
        read.
        """
        return self.mark(collection).generation

    def mark(self, collection: int) -> Mark:
        """Where the collection's history stands now."""
        query = "SELECT generation, token FROM collections WHERE id = ?"
        with self._database.snapshot() as connection:
            row = connection.execute(query, (collection,)).fetchone()
        return Mark() if row is None else Mark(*row)

    def chunk_count(self, collection: int) -> int:
        """How many chunks the collection has."""
        query = "SELECT count(*) FROM chunks WHERE collection_id = ?"
        with self._database.snapshot() as connection:
            return int(connection.execute(query, (collection,)).fetchone()[0])

    def changes_since(self, collection: int, mark: Mark) -> Changes | None:
        """What happened after `mark`; None when the log no longer reaches back to it, or never knew it."""
        place = "SELECT generation, token, log_start FROM collections WHERE id = ?"
        commit = "SELECT token FROM changes WHERE collection_id = ? AND seq = ?"
        log = "SELECT chunk_id, op FROM changes WHERE collection_id = ? AND seq > ? ORDER BY seq"
        with self._database.snapshot() as connection:
            row = connection.execute(place, (collection,)).fetchone()
            if row is None or not row[2] <= mark.generation <= row[0]:
                return None
            now = Mark(row[0], row[1])
            tokens = {0: 0, now.generation: now.token}
            if mark.generation not in tokens:
                found = connection.execute(commit, (collection, mark.generation)).fetchone()
                tokens[mark.generation] = -1 if found is None else found[0] or -1
            if tokens[mark.generation] != mark.token:
                return None
            last = dict(connection.execute(log, (collection, mark.generation)).fetchall())
        return Changes(_ids(last, 1), _ids(last, -1), now)

    def trim_changes(self, collection: int, generation: int) -> int:
        """Forget the log below `generation`, the oldest one that a published snapshot stands at. Returns rows deleted.

        The change numbered `generation` stays: its token proves that a snapshot belongs to this history.
        """
        from ragindex.store import writing

        with self._database.writing() as connection:
            return writing.trim_changes(connection, collection, generation)

    def vectors(self, encoder_id: int, chunk_ids: Sequence[int] | IdArray) -> Float32Array:
        """The vectors (n, d) of chunks in the order asked for. Raises CorruptionError when one has none."""
        batch = self.present_vectors(encoder_id, chunk_ids)
        if len(batch.ids) != len(chunk_ids):
            missing = sorted(set(map(int, chunk_ids)) - set(batch.ids.tolist()))
            raise CorruptionError(
                f"Chunk {missing[0] if missing else 0} has no vector of the active encoder; run `ragindex repair`."
            )
        return batch.vectors

    def present_vectors(self, encoder_id: int, chunk_ids: Sequence[int] | IdArray) -> VectorBatch:
        """The vectors of those chunks that still exist, in the order asked for."""
        wanted = [int(chunk_id) for chunk_id in chunk_ids]
        query = f"{_VECTORS} WHERE chunks.id IN (SELECT value FROM json_each(?))"
        with self._database.snapshot() as connection:
            dimensions = _dimensions(connection, encoder_id)
            found = dict(connection.execute(query, (encoder_id, listed(wanted))).fetchall())
        kept = [chunk_id for chunk_id in wanted if chunk_id in found]
        return _batch(kept, [found[chunk_id] for chunk_id in kept], dimensions)

    def iter_vectors(self, collection: int, encoder_id: int, *, batch: int = 8192) -> Iterator[VectorBatch]:
        """Every chunk's vector by ascending id, in one consistent view, `batch` at a time."""
        query = f"{_VECTORS} WHERE chunks.collection_id = ? ORDER BY chunks.id"
        with self._database.snapshot() as connection:
            dimensions = _dimensions(connection, encoder_id)
            with closing(connection.execute(query, (encoder_id, collection))) as rows:
                while some := rows.fetchmany(batch):
                    yield _batch([row[0] for row in some], [row[1] for row in some], dimensions)

    def texts(self, chunk_ids: Sequence[int] | IdArray) -> list[TextEntry]:
        """What the lexical index is told of those chunks that still exist, by ascending id."""
        query = f"{_TEXTS} WHERE chunks.id IN (SELECT value FROM json_each(?)) ORDER BY chunks.id"
        with self._database.snapshot() as connection:
            return [_entry(row) for row in connection.execute(query, (listed(chunk_ids),))]

    def iter_texts(self, collection: int, *, batch: int = 2048) -> Iterator[list[TextEntry]]:
        """Every chunk as the lexical index is told of it, by ascending id, in one consistent view."""
        query = f"{_TEXTS} WHERE chunks.collection_id = ? ORDER BY chunks.id"
        with (
            self._database.snapshot() as connection,
            closing(connection.execute(query, (collection,))) as rows,
        ):
            while some := rows.fetchmany(batch):
                yield [_entry(row) for row in some]

    def iter_unembedded(self, encoder_id: int, *, after: int = 0, batch: int = 512) -> Iterator[list[TextEntry]]:
        """The chunks of all collections, of those with ids above `after`, that have no vector of this encoder; by
        ascending id.

        Each batch is a view of its own, so what is committed meanwhile is met too and no long transaction keeps the
        write-ahead log from being folded in.
        """
        query = (
            f"{_TEXTS} WHERE chunks.id > ? AND NOT EXISTS "
            "(SELECT 1 FROM vectors WHERE vectors.key = chunks.vector_key AND vectors.encoder_id = ?) "
            "ORDER BY chunks.id LIMIT ?"
        )
        last = after
        while True:
            with self._database.snapshot() as connection:
                entries = [_entry(row) for row in connection.execute(query, (last, encoder_id, batch))]
            if not entries:
                return
            yield entries
            last = entries[-1].chunk_id

    def document_spans(self, chunk_id: int) -> DocumentSpans | None:
        """The document that a chunk is of, with all of its chunks; None when the chunk is gone."""
        whole = (
            "SELECT document_id, title, document_texts.text, path FROM chunks "
            "JOIN documents ON documents.id = document_id JOIN document_texts USING (document_id) WHERE chunks.id = ?"
        )
        parts = 'SELECT id, start, "end" FROM chunks WHERE document_id = ? ORDER BY ordinal'
        with self._database.snapshot() as connection:
            row = connection.execute(whole, (chunk_id,)).fetchone()
            if row is None:
                return None
            spans = {part[0]: (part[1], part[2]) for part in connection.execute(parts, (row[0],))}
        return DocumentSpans(row[1], unpacked(row[2], row[3]), spans)


def _dimensions(connection: sqlite3.Connection, encoder_id: int) -> int:
    row = connection.execute("SELECT dimensions FROM encoders WHERE id = ?", (encoder_id,)).fetchone()
    return 0 if row is None else int(row[0])


def _ids(last: dict[int, int], op: int) -> IdArray:
    import numpy as np

    return np.array(sorted(chunk_id for chunk_id, kind in last.items() if kind == op), np.int64)


def _batch(ids: list[int], blobs: list[bytes], dimensions: int) -> VectorBatch:
    import numpy as np

    if any(len(blob) != 2 * dimensions for blob in blobs):
        raise CorruptionError("A stored vector has the wrong length; run `ragindex verify` for details.")
    vectors = np.frombuffer(b"".join(blobs), "<f2").reshape(len(ids), dimensions).astype(np.float32)
    if not np.isfinite(vectors).all():
        raise CorruptionError("A stored vector is not finite; run `ragindex verify` for details.")
    return VectorBatch(np.array(ids, np.int64), vectors)


def _entry(row: tuple[Any, ...]) -> TextEntry:
    if not all(isinstance(value, str) for value in (row[1], row[2], row[4])):
        raise CorruptionError(f"The stored text of chunk {row[0]} is damaged; run `ragindex repair`.")
    return TextEntry(row[0], row[1], row[2], headings(row[3]), row[4], row[5])

"""What the indexes are fed from: the history of a collection, its vectors and its texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sqlalchemy import LargeBinary, Row, Select, delete, func, select, type_coerce, update

from ragindex.errors import CorruptionError
from ragindex.store.database import Database
from ragindex.store.reading import listed
from ragindex.store.rows import Changes, Float32Array, IdArray, Mark, TextEntry, VectorBatch
from ragindex.store.schema import Change, ChunkModel, CollectionModel, DocumentModel, EncoderModel, VectorModel

__all__ = ["Feeding"]


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
        query = select(CollectionModel.generation, CollectionModel.token).where(CollectionModel.id == collection)
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        return Mark() if row is None else Mark(*row)

    def chunk_count(self, collection: int) -> int:
        """How many chunks the collection has."""
        query = select(func.count()).select_from(ChunkModel).where(ChunkModel.collection_id == collection)
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def changes_since(self, collection: int, mark: Mark) -> Changes | None:
        """What happened after `mark`; None when the log no longer reaches back to it, or never knew it."""
        place = select(CollectionModel.generation, CollectionModel.token, CollectionModel.log_start)
        own = Change.collection_id == collection
        with self._database.reading() as connection:
            row = connection.execute(place.where(CollectionModel.id == collection)).first()
            if row is None or not row.log_start <= mark.generation <= row.generation:
                return None
            now = Mark(row.generation, row.token)
            tokens = {0: 0, now.generation: now.token}
            commit = select(Change.token).where(own, Change.seq == mark.generation)
            if mark.generation not in tokens:
                tokens[mark.generation] = connection.execute(commit).scalar_one_or_none() or -1
            if tokens[mark.generation] != mark.token:
                return None
            log = select(Change.chunk_id, Change.op).where(own, Change.seq > mark.generation).order_by(Change.seq)
            last = {row[0]: row[1] for row in connection.execute(log)}
        return Changes(_ids(last, 1), _ids(last, -1), now)

    def trim_changes(self, collection: int, generation: int) -> int:
        """Forget the log below `generation`, the oldest one that a published snapshot stands at. Returns rows deleted.

        The change numbered `generation` stays: its token proves that a snapshot belongs to this history.
        """
        with self._database.writing() as connection:
            place = select(CollectionModel.generation).where(CollectionModel.id == collection)
            newest = connection.execute(place).scalar_one_or_none() or 0
            start = min(generation, newest)
            old = delete(Change).where(Change.collection_id == collection, Change.seq < start)
            gone = connection.execute(old).rowcount
            moved = update(CollectionModel).where(CollectionModel.id == collection, CollectionModel.log_start < start)
            connection.execute(moved.values(log_start=start))
        return gone

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
        query = _vectors(encoder_id).where(ChunkModel.id.in_(listed(wanted)))
        with self._database.reading() as connection:
            found = {row[0]: row[1] for row in connection.execute(query)}
            dimensions = self._dimensions(encoder_id)
        kept = [chunk_id for chunk_id in wanted if chunk_id in found]
        return _batch(kept, [found[chunk_id] for chunk_id in kept], dimensions)

    def iter_vectors(self, collection: int, encoder_id: int, *, batch: int = 8192) -> Iterator[VectorBatch]:
        """Every chunk's vector by ascending id, in one consistent view, `batch` at a time."""
        dimensions = self._dimensions(encoder_id)
        query = _vectors(encoder_id).where(ChunkModel.collection_id == collection).order_by(ChunkModel.id)
        with self._database.reading() as connection:
            rows = connection.execute(query.execution_options(yield_per=batch))
            for some in rows.partitions(batch):
                yield _batch([row[0] for row in some], [row[1] for row in some], dimensions)

    def texts(self, chunk_ids: Sequence[int] | IdArray) -> list[TextEntry]:
        """What the lexical index is told of those chunks that still exist, by ascending id."""
        query = _texts().where(ChunkModel.id.in_(listed([int(chunk_id) for chunk_id in chunk_ids])))
        with self._database.reading() as connection:
            return [_entry(row) for row in connection.execute(query.order_by(ChunkModel.id))]

    def iter_texts(self, collection: int, *, batch: int = 2048) -> Iterator[list[TextEntry]]:
        """Every chunk as the lexical index is told of it, by ascending id, in one consistent view."""
        query = _texts().where(ChunkModel.collection_id == collection).order_by(ChunkModel.id)
        with self._database.reading() as connection:
            rows = connection.execute(query.execution_options(yield_per=batch))
            for some in rows.partitions(batch):
                yield [_entry(row) for row in some]

    def _dimensions(self, encoder_id: int) -> int:
        query = select(EncoderModel.dimensions).where(EncoderModel.id == encoder_id)
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one_or_none() or 0)


def _ids(last: dict[int, int], op: int) -> IdArray:
    return np.array(sorted(chunk_id for chunk_id, kind in last.items() if kind == op), np.int64)


def _vectors(encoder_id: int) -> Select[*tuple[Any, ...]]:
    match = (VectorModel.key == ChunkModel.vector_key) & (VectorModel.encoder_id == encoder_id)
    # Raw bytes: an array per row would cost more than the query.
    return select(ChunkModel.id, type_coerce(VectorModel.data, LargeBinary)).join(VectorModel, match)


def _batch(ids: list[int], blobs: list[bytes], dimensions: int) -> VectorBatch:
    if any(len(blob) != 2 * dimensions for blob in blobs):
        raise CorruptionError("A stored vector has the wrong length; run `ragindex verify` for details.")
    vectors = np.frombuffer(b"".join(blobs), "<f2").reshape(len(ids), dimensions).astype(np.float32)
    if not np.isfinite(vectors).all():
        raise CorruptionError("A stored vector is not finite; run `ragindex verify` for details.")
    return VectorBatch(np.array(ids, np.int64), vectors)


def _texts() -> Select[*tuple[Any, ...]]:
    model = ChunkModel
    columns = select(model.id, model.text, DocumentModel.title, model.heading, DocumentModel.path, model.vector_key)
    return columns.join(DocumentModel, DocumentModel.id == model.document_id)


def _entry(row: Row[*tuple[Any, ...]]) -> TextEntry:
    return TextEntry(row[0], row[1], row[2], tuple(row[3]), row[4], row[5])

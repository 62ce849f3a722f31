"""The catalogue's answers about documents and chunks: planning a run, showing hits, listing, filtering."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Row, Select, distinct, func, select

from ragindex.errors import CorruptionError, UsageError
from ragindex.filters import Filter
from ragindex.store.database import Database
from ragindex.store.filter_sql import condition, needs_chunks
from ragindex.store.registry import ACTIVE_ENCODER
from ragindex.store.rows import ChunkRow, Counts, DocumentRow, FailureRow, FailureState, FileState, IdArray
from ragindex.store.schema import (
    ChunkModel,
    DocumentModel,
    DocumentTextModel,
    FailureModel,
    SettingModel,
    VectorModel,
)

__all__ = ["Reading", "listed"]

_PARAMETERS = 500  # per statement, where values are bytes and cannot travel as one JSON list


class Reading:
    """Queries of one transaction each."""

    _database: Database

    def file_states(self, collection: int, prefix: str | None = None) -> dict[str, FileState]:
        """What is remembered of each indexed file, by path; `prefix` limits it to a folder ("docs") or one file."""
        model = DocumentModel
        query = select(model.path, model.size, model.mtime_ns, model.sha256, model.checked_ns, model.loader)
        query = query.where(model.collection_id == collection, *_within(model.path.expression, prefix))
        with self._database.reading() as connection:
            return {row[0]: FileState(*row) for row in connection.execute(query)}

    def failure_states(self, collection: int, prefix: str | None = None) -> dict[str, FailureState]:
        """What is remembered of each file that failed, by path; `prefix` as in `file_states`."""
        model = FailureModel
        query = select(model.path, model.size, model.mtime_ns, model.sha256, model.reason, model.failed_at)
        query = query.where(model.collection_id == collection, *_within(model.path.expression, prefix))
        with self._database.reading() as connection:
            return {row[0]: FailureState(*row) for row in connection.execute(query)}

    def missing_keys(self, encoder_id: int, keys: Collection[bytes]) -> set[bytes]:
        """Those of the keys for which the store has no vector of this encoder."""
        missing = set(keys)
        waiting = iter(list(missing))
        with self._database.reading() as connection:
            while some := list(islice(waiting, _PARAMETERS)):
                query = select(VectorModel.key).where(VectorModel.encoder_id == encoder_id, VectorModel.key.in_(some))
                missing.difference_update(connection.execute(query).scalars())
        return missing

    def hits(self, chunk_ids: Sequence[int] | IdArray) -> list[ChunkRow]:
        """The chunks in the order asked for; ones that were removed meanwhile are left out."""
        wanted = [int(chunk_id) for chunk_id in chunk_ids]
        with self._database.reading() as connection:
            rows = connection.execute(_chunks().where(ChunkModel.id.in_(listed(wanted))))
            found = {row[0]: _chunk(row) for row in rows}
        return [found[chunk_id] for chunk_id in wanted if chunk_id in found]

    def allowed(self, collection: int, filter: Filter | None) -> IdArray | None:  # noqa: A002
        """The ids of the chunks that a filter lets through, ascending (n,); None: no filter, everything."""
        if filter is None:
            return None
        # One string instead of a row per id: half of the time where a filter lets much through.
        query = select(func.group_concat(ChunkModel.id))
        if needs_chunks(filter):
            query = query.join(DocumentModel, DocumentModel.id == ChunkModel.document_id)
            query = query.where(ChunkModel.collection_id == collection, condition(filter))
        else:
            documents = select(DocumentModel.id).where(DocumentModel.collection_id == collection, condition(filter))
            # Nothing else is asked of a chunk, so that the index on (document, ordinal) answers and no row is read.
            query = query.where(ChunkModel.document_id.in_(documents))
        with self._database.reading() as connection:
            listed_ids = connection.execute(query).scalar_one()
        return np.sort(np.fromstring(listed_ids or "", np.int64, sep=","))

    def documents(self, collection: int, prefix: str | None = None) -> list[DocumentRow]:
        """Every document with its counts, by path; `prefix` as in `file_states`."""
        model = DocumentModel
        totals = select(
            ChunkModel.document_id, func.count().label("chunks"), func.sum(ChunkModel.tokens).label("tokens")
        ).where(ChunkModel.collection_id == collection)
        per = totals.group_by(ChunkModel.document_id).subquery()
        query = (
            select(
                model.id,
                model.path,
                model.title,
                model.sha256,
                model.size,
                func.coalesce(per.c.chunks, 0),
                func.coalesce(per.c.tokens, 0),
                DocumentTextModel.length,
                model.document_metadata,
                model.indexed_at,
            )
            .join(DocumentTextModel, DocumentTextModel.document_id == model.id)
            .outerjoin(per, per.c.document_id == model.id)
            .where(model.collection_id == collection, *_within(model.path.expression, prefix))
            .order_by(model.path)
        )
        with self._database.reading() as connection:
            return [DocumentRow(*row) for row in connection.execute(query)]

    def document_text(self, collection: int, path: str) -> str:
        """The whole text of a document. Raises UsageError when the collection has no such document."""
        query = select(DocumentTextModel.text).join(DocumentModel, DocumentModel.id == DocumentTextModel.document_id)
        query = query.where(DocumentModel.collection_id == collection, DocumentModel.path == path)
        with self._database.reading() as connection:
            data = connection.execute(query).scalar_one_or_none()
        if data is None:
            raise UsageError(f"{path!r} is not indexed; `ragindex list` shows what is.")
        try:
            return zlib.decompress(data).decode()
        except (zlib.error, UnicodeDecodeError) as error:
            raise CorruptionError(
                f"The stored text of {path!r} is damaged; run `ragindex index` on it again."
            ) from error

    def chunks_of(self, collection: int, path: str) -> list[ChunkRow]:
        """The chunks of a document in order; empty when there is no such document."""
        query = _chunks().where(DocumentModel.collection_id == collection, DocumentModel.path == path)
        with self._database.reading() as connection:
            return [_chunk(row) for row in connection.execute(query.order_by(ChunkModel.ordinal))]

    def neighbours(self, chunk_id: int, before: int, after: int) -> list[ChunkRow]:
        """The chunk with up to `before` chunks above it and `after` below it in its document, in order."""
        place = select(ChunkModel.document_id, ChunkModel.ordinal).where(ChunkModel.id == chunk_id)
        with self._database.reading() as connection:
            row = connection.execute(place).first()
            if row is None:
                return []
            query = _chunks().where(
                ChunkModel.document_id == row[0], ChunkModel.ordinal.between(row[1] - before, row[1] + after)
            )
            return [_chunk(row) for row in connection.execute(query.order_by(ChunkModel.ordinal))]

    def failures(self, collection: int) -> list[FailureRow]:
        """The files that could not be indexed, by path."""
        query = select(FailureModel.path, FailureModel.reason, FailureModel.failed_at)
        query = query.where(FailureModel.collection_id == collection).order_by(FailureModel.path)
        with self._database.reading() as connection:
            return [FailureRow(*row) for row in connection.execute(query)]

    def counts(self, collection: int) -> Counts:
        """The size of a collection."""
        chunks = select(func.count(), func.coalesce(func.sum(ChunkModel.tokens), 0))
        active = select(SettingModel.value).where(SettingModel.key == ACTIVE_ENCODER)
        with self._database.reading() as connection:
            total, tokens = connection.execute(chunks.where(ChunkModel.collection_id == collection)).one()
            encoder_id = connection.execute(active).scalar_one_or_none()
            vectors = select(func.count(distinct(VectorModel.id))).join(
                ChunkModel, ChunkModel.vector_key == VectorModel.key
            )
            own = vectors.where(VectorModel.encoder_id == encoder_id, ChunkModel.collection_id == collection)
            count = {
                model: connection.execute(
                    select(func.count()).select_from(model).where(model.collection_id == collection)
                ).scalar_one()
                for model in (DocumentModel, FailureModel)
            }
            return Counts(
                documents=count[DocumentModel],
                chunks=total,
                vectors=connection.execute(own).scalar_one(),
                failures=count[FailureModel],
                tokens=tokens,
            )


def listed(ids: Sequence[int]) -> Select[*tuple[Any, ...]]:
    """A subquery of ids that travel as one parameter, however many they are."""
    values = func.json_each(json.dumps(list(ids))).table_valued("value", name="listed")
    return select(values.c.value)


def _within(path: ColumnElement[str], prefix: str | None) -> list[ColumnElement[bool]]:
    folder = (prefix or "").rstrip("/")
    if prefix in (None, "", "."):
        return []
    # "0" is the character after "/": everything inside of the folder, found through the index on the path.
    return [(path == folder) | ((path > f"{folder}/") & (path < f"{folder}0"))]


def _chunks() -> Select[*tuple[Any, ...]]:
    model = ChunkModel
    return select(
        model.id,
        model.document_id,
        DocumentModel.path,
        DocumentModel.title,
        model.heading,
        model.page,
        model.line_start,
        model.line_end,
        model.start,
        model.end,
        model.text,
        DocumentModel.document_metadata,
        model.ordinal,
        model.tokens,
    ).join(DocumentModel, DocumentModel.id == model.document_id)


def _chunk(row: Row[*tuple[Any, ...]]) -> ChunkRow:
    values = list(row)
    values[4] = tuple(values[4])
    return ChunkRow(*values)

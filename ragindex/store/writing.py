"""Applies one batch to a collection in one transaction: documents, chunks, vectors, failures and the log of changes."""

from __future__ import annotations

import json
import math
import secrets
import time
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Select, delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from ragindex.errors import CorruptionError, UsageError
from ragindex.store.registry import ACTIVE_ENCODER, PREVIOUS_ENCODER
from ragindex.store.rows import Batch, DocumentWrite, FailureWrite, FileState, Move
from ragindex.store.schema import (
    Change,
    ChunkModel,
    CollectionModel,
    DocumentModel,
    DocumentTextModel,
    EncoderModel,
    FailureModel,
    SettingModel,
    VectorModel,
)
from ragindex.types import Metadata

__all__ = ["KEY_BYTES", "apply", "store_vectors", "sweep_vectors", "trim_changes"]

KEY_BYTES = 16
_COMPRESSION = 3  # zlib level; higher ones cost more time than they save disk on chunks of prose


def apply(connection: Connection, collection: int, batch: Batch) -> int:
    """Apply `batch` and return the collection's new generation (the old one when no chunk changed)."""
    _check(batch)
    log = _Log(collection, secrets.randbits(62))
    _remove(connection, log, batch.removes)
    _move(connection, log, batch.moves)
    _write(connection, log, batch.writes)
    _touch(connection, collection, batch.touches)
    _describe(connection, collection, batch.metadata)
    _fail(connection, log, batch.failures)
    settled = [*batch.removes, *batch.cleared_failures, *(write.document.path for write in batch.writes)]
    settled += [path for move in batch.moves for path in (move.old, move.new)]
    _clear_failures(connection, collection, set(settled) - {failure.path for failure in batch.failures})
    return log.flush(connection)


class _Log:
    """The changes of one commit, in order."""

    def __init__(self, collection: int, token: int) -> None:
        self.collection = collection
        self.token = token
        self._rows: list[dict[str, int]] = []

    def note(self, chunk_ids: Iterable[int], op: int) -> None:
        common = {"collection_id": self.collection, "op": op, "token": self.token}
        self._rows.extend({"chunk_id": chunk_id, **common} for chunk_id in chunk_ids)

    def flush(self, connection: Connection) -> int:
        own = CollectionModel.id == self.collection
        if not self._rows:
            return int(connection.execute(select(CollectionModel.generation).where(own)).scalar_one())
        connection.execute(insert(Change), self._rows)
        generation = int(connection.execute(select(func.max(Change.seq))).scalar_one())
        connection.execute(update(CollectionModel).where(own).values(generation=generation, token=self.token))
        return generation


def _check(batch: Batch) -> None:
    paths = [write.document.path for write in batch.writes]
    if len(set(paths)) != len(paths):
        raise UsageError("A batch writes the same path twice.")
    both = set(paths) & {failure.path for failure in batch.failures}
    if both:
        raise UsageError(f"A batch both writes {min(both)!r} and records its failure.")
    for write in batch.writes:
        if len(write.keys) != len(write.chunks):
            raise UsageError(
                f"{write.document.path!r} has {len(write.chunks)} chunks but {len(write.keys)} vector keys."
            )
        if any(len(key) != KEY_BYTES for key in write.keys):
            raise UsageError(f"A vector key of {write.document.path!r} is not {KEY_BYTES} bytes long.")
    if any(move.state.path != move.new for move in batch.moves):
        raise UsageError("A move carries the state of another path than its new one.")


def _remove(connection: Connection, log: _Log, paths: Collection[str]) -> None:
    if not paths:
        return
    documents = select(DocumentModel.id).where(
        DocumentModel.collection_id == log.collection, DocumentModel.path.in_(_listed(paths))
    )
    _remove_documents(connection, log, list(connection.execute(documents).scalars()))


def _remove_documents(connection: Connection, log: _Log, document_ids: Sequence[int]) -> None:
    chunks = select(ChunkModel.id).where(ChunkModel.document_id.in_(_listed(document_ids))).order_by(ChunkModel.id)
    log.note(connection.execute(chunks).scalars(), -1)
    connection.execute(delete(ChunkModel).where(ChunkModel.document_id.in_(_listed(document_ids))))
    connection.execute(delete(DocumentTextModel).where(DocumentTextModel.document_id.in_(_listed(document_ids))))
    connection.execute(delete(DocumentModel).where(DocumentModel.id.in_(_listed(document_ids))))


def _move(connection: Connection, log: _Log, moves: Sequence[Move]) -> None:
    """Rename in two steps, so that chains and swaps of paths never meet the unique constraint half-way."""
    parked: list[tuple[int, Move]] = []
    for move in moves:
        own = (DocumentModel.collection_id == log.collection) & (DocumentModel.path == move.old)
        found = connection.execute(select(DocumentModel.id).where(own)).scalar_one_or_none()
        if found is None:
            raise UsageError(f"{move.old!r} cannot be moved: it is not indexed.")
        connection.execute(update(DocumentModel).where(own).values(path=f"\0{found}"))
        parked.append((found, move))
    _remove(connection, log, [move.new for move in moves])
    for identifier, move in parked:
        row = update(DocumentModel).where(DocumentModel.id == identifier)
        connection.execute(row.values(path=move.new, **_state(move.state)))
        if move.metadata:
            known = select(DocumentModel.document_metadata).where(DocumentModel.id == identifier)
            merged = {**connection.execute(known).scalar_one(), **_plain(move.metadata)}
            connection.execute(row.values(document_metadata=merged))
        chunks = select(ChunkModel.id).where(ChunkModel.document_id == identifier).order_by(ChunkModel.id)
        ids = list(connection.execute(chunks).scalars())
        # The lexical index holds the words of the path, so the chunks are put there again.
        log.note(ids, -1)
        log.note(ids, 1)


def _write(connection: Connection, log: _Log, writes: Sequence[DocumentWrite]) -> None:
    if not writes:
        return
    _remove(connection, log, [write.document.path for write in writes])
    _store_vectors(connection, writes)
    texts: list[dict[str, Any]] = []
    chunks: list[dict[str, Any]] = []
    for write, identifier in zip(writes, _document_ids(connection, log.collection, writes), strict=True):
        packed = zlib.compress(write.document.text.encode(), _COMPRESSION)
        texts.append({"document_id": identifier, "length": len(write.document.text), "text": packed})
        chunks.extend(_chunk_rows(log.collection, identifier, write))
    connection.execute(insert(DocumentTextModel), texts)
    if chunks:
        before = _last_id(connection, "chunks")
        connection.execute(insert(ChunkModel), chunks)
        added = select(ChunkModel.id).where(ChunkModel.id > before).order_by(ChunkModel.id)
        log.note(connection.execute(added).scalars(), 1)


def _document_ids(connection: Connection, collection: int, writes: Sequence[DocumentWrite]) -> list[int]:
    """The ids of the documents, new ones, in their order. One statement for all: a record is a document, and by
    themselves they would take longer than everything else about them.
    """
    now = time.time()
    rows = [
        {
            "collection_id": collection,
            "path": write.document.path,
            "title": write.document.title,
            "metadata": _plain(write.document.metadata),
            "indexed_at": now,
            **_state(write.state),
        }
        for write in writes
    ]
    before = _last_id(connection, "documents")
    connection.execute(insert(DocumentModel), rows)
    added = select(DocumentModel.id).where(DocumentModel.id > before).order_by(DocumentModel.id)
    return list(connection.execute(added).scalars())


def _last_id(connection: Connection, table: str) -> int:
    """The highest id that a table has given out."""
    query = "SELECT seq FROM sqlite_sequence WHERE name = ?"
    return connection.exec_driver_sql(query, (table,)).scalar_one_or_none() or 0


def _chunk_rows(collection: int, document_id: int, write: DocumentWrite) -> Iterable[dict[str, Any]]:
    for chunk, key in zip(write.chunks, write.keys, strict=True):
        yield {
            "document_id": document_id,
            "collection_id": collection,
            "ordinal": chunk.ordinal,
            "start": chunk.start,
            "end": chunk.end,
            "line_start": chunk.line_start,
            "line_end": chunk.line_end,
            "page": chunk.page,
            "tokens": chunk.tokens,
            "heading": list(chunk.heading),
            "vector_key": key,
            "text": chunk.text,
        }


def _store_vectors(connection: Connection, writes: Sequence[DocumentWrite]) -> None:
    for encoder_id in sorted({write.encoder_id for write in writes}):
        given: dict[bytes, Any] = {}
        wanted: set[bytes] = set()
        for write in writes:
            if write.encoder_id == encoder_id:
                given.update(write.vectors)
                wanted.update(write.keys)
        store_vectors(connection, encoder_id, given)
        _check_complete(connection, encoder_id, wanted - given.keys())


def store_vectors(connection: Connection, encoder_id: int, vectors: Mapping[bytes, Any]) -> None:
    """Add vectors; a key that already has one keeps it, unless that was lost and zeros stand in its place.

    Raises CorruptionError for a wrong length or a non-finite value, UsageError for an encoder that was never
    registered.
    """
    query = select(EncoderModel.dimensions).where(EncoderModel.id == encoder_id)
    dimensions = connection.execute(query).scalar_one_or_none()
    if dimensions is None:
        raise UsageError(f"There is no encoder {encoder_id} in the store; register it before writing its vectors.")
    rows = []
    for key, vector in vectors.items():
        data = np.asarray(vector, "<f2")
        if data.shape != (dimensions,) or not np.isfinite(data).all():
            raise CorruptionError(
                f"The encoder made a vector that is not {dimensions} finite numbers; nothing was stored."
            )
        rows.append({"encoder_id": encoder_id, "key": key, "data": data})
    if rows:
        statement = upsert(VectorModel)
        lost = VectorModel.data == func.zeroblob(2 * dimensions)
        renewed = {"data": statement.excluded.data}
        connection.execute(
            statement.on_conflict_do_update(index_elements=["key", "encoder_id"], set_=renewed, where=lost), rows
        )


def sweep_vectors(connection: Connection) -> int:
    """Delete the vectors that no chunk refers to, and all but those of the active and the previous encoder. Returns
    how many went.
    """
    used = select(ChunkModel.vector_key)
    kept = select(SettingModel.value).where(SettingModel.key.in_([ACTIVE_ENCODER, PREVIOUS_ENCODER]))
    doomed = VectorModel.encoder_id.not_in(kept) | VectorModel.key.not_in(used)
    return connection.execute(delete(VectorModel).where(doomed)).rowcount


def trim_changes(connection: Connection, collection: int, generation: int) -> int:
    """Forget the log below `generation`; returns how many rows went."""
    place = select(CollectionModel.generation).where(CollectionModel.id == collection)
    newest = connection.execute(place).scalar_one_or_none() or 0
    start = min(generation, newest)
    gone = connection.execute(delete(Change).where(Change.collection_id == collection, Change.seq < start)).rowcount
    moved = update(CollectionModel).where(CollectionModel.id == collection, CollectionModel.log_start < start)
    connection.execute(moved.values(log_start=start))
    return gone


def _check_complete(connection: Connection, encoder_id: int, keys: Collection[bytes]) -> None:
    waiting = list(keys)
    for start in range(0, len(waiting), 500):
        some = waiting[start : start + 500]
        query = select(func.count()).where(VectorModel.encoder_id == encoder_id, VectorModel.key.in_(some))
        if connection.execute(query).scalar_one() != len(some):
            raise CorruptionError("A chunk was to be stored without its vector; nothing was stored.")


def _touch(connection: Connection, collection: int, states: Sequence[FileState]) -> None:
    for state in states:
        own = (DocumentModel.collection_id == collection) & (DocumentModel.path == state.path)
        connection.execute(update(DocumentModel).where(own).values(**_state(state)))


def _describe(connection: Connection, collection: int, metadata: Mapping[str, Metadata]) -> None:
    for path, values in metadata.items():
        own = (DocumentModel.collection_id == collection) & (DocumentModel.path == path)
        connection.execute(update(DocumentModel).where(own).values(document_metadata=_plain(values)))


def _fail(connection: Connection, log: _Log, failures: Sequence[FailureWrite]) -> None:
    if not failures:
        return
    # A file that changed and can no longer be read must not keep answering with its old text.
    _remove(connection, log, [failure.path for failure in failures])
    statement = upsert(FailureModel)
    columns = ("reason", "sha256", "size", "mtime_ns", "failed_at")
    renewed = {name: getattr(statement.excluded, name) for name in columns}
    now = time.time()
    rows = [
        {
            "collection_id": log.collection,
            "path": failure.path,
            "reason": failure.reason,
            "sha256": failure.sha256,
            "size": failure.size,
            "mtime_ns": failure.mtime_ns,
            "failed_at": now,
        }
        for failure in failures
    ]
    connection.execute(statement.on_conflict_do_update(index_elements=["collection_id", "path"], set_=renewed), rows)


def _clear_failures(connection: Connection, collection: int, paths: Collection[str]) -> None:
    if paths:
        own = (FailureModel.collection_id == collection) & FailureModel.path.in_(_listed(paths))
        connection.execute(delete(FailureModel).where(own))


def _listed(values: Iterable[int | str]) -> Select[*tuple[Any, ...]]:
    """A subquery of values that travel as one parameter, however many they are."""
    table = func.json_each(json.dumps(list(values))).table_valued("value", name="listed")
    return select(table.c.value)


def _state(state: FileState) -> dict[str, Any]:
    return {
        "sha256": state.sha256,
        "size": state.size,
        "mtime_ns": state.mtime_ns,
        "checked_ns": state.checked_ns,
        "loader": state.loader,
    }


def _plain(metadata: Metadata) -> dict[str, Any]:
    """JSON has no NaN and no infinity: such a number is stored as missing."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in metadata.items()
    }

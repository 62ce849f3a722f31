"""Checks a catalogue for `verify`: the database's own structure, and that every chunk is what it claims to be."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from sqlalchemy import Connection, LargeBinary, Row, select, type_coerce

from ragindex.store.registry import ACTIVE_ENCODER
from ragindex.store.rows import RECORD
from ragindex.store.schema import ChunkModel, DocumentModel, DocumentTextModel, EncoderModel, SettingModel, VectorModel

__all__ = ["problems"]

_NORM_TOLERANCE = 1e-2  # half floats of a unit vector stay well within
_LIMIT = 100  # sentences; a thoroughly damaged store needs no longer list


def problems(connection: Connection) -> list[str]:
    """Everything that is wrong, one sentence each, at most 100; empty when all is well."""
    found: list[str] = []
    for sentence in _all(connection):
        found.append(sentence)
        if len(found) == _LIMIT:
            found.append("Further problems were left out.")
            break
    return found


def _all(connection: Connection) -> Iterator[str]:
    for row in connection.exec_driver_sql("PRAGMA integrity_check"):
        if row[0] != "ok":
            yield f"SQLite finds: {row[0]}."
    for row in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield f"Row {row[1]} of {row[0]} refers to a missing row of {row[2]}."
    yield from _texts(connection)
    yield from _vectors(connection)


def _texts(connection: Connection) -> Iterator[str]:
    documents = select(DocumentModel.id, DocumentModel.path, DocumentTextModel.text, DocumentTextModel.length)
    documents = documents.outerjoin(DocumentTextModel, DocumentTextModel.document_id == DocumentModel.id)
    model = ChunkModel
    spans = select(model.ordinal, model.start, model.end, model.text).order_by(model.ordinal)
    rows = connection.execute(documents.order_by(DocumentModel.id).execution_options(yield_per=64))
    for identifier, path, packed, length in rows:
        try:
            text = zlib.decompress(packed or b"").decode()
        except (zlib.error, UnicodeDecodeError):
            yield f"The stored text of {path!r} is missing or damaged."
            continue
        if len(text) != length:
            yield f"The stored text of {path!r} has {len(text)} characters instead of {length}."
        for position, chunk in enumerate(connection.execute(spans.where(model.document_id == identifier))):
            yield from _span(path, text, position, chunk)


def _span(path: str, text: str, position: int, chunk: Row[*tuple[Any, ...]]) -> Iterator[str]:
    if chunk.ordinal != position:
        yield f"The chunks of {path!r} are not numbered in sequence: {chunk.ordinal} stands at place {position}."
    if text[chunk.start : chunk.end] != chunk.text:
        yield f"Chunk {chunk.ordinal} of {path!r} does not equal the text of the document at its place."


def _vectors(connection: Connection) -> Iterator[str]:
    active = select(SettingModel.value).where(SettingModel.key == ACTIVE_ENCODER)
    encoder_id = connection.execute(active).scalar_one_or_none()
    if encoder_id is None:
        return
    size = select(EncoderModel.dimensions).where(EncoderModel.id == encoder_id)
    dimensions = connection.execute(size).scalar_one_or_none() or 0
    match = (VectorModel.key == ChunkModel.vector_key) & (VectorModel.encoder_id == encoder_id)
    columns = (ChunkModel.id, DocumentModel.path, DocumentModel.loader, type_coerce(VectorModel.data, LargeBinary))
    query = select(*columns)
    query = query.join(DocumentModel, DocumentModel.id == ChunkModel.document_id).outerjoin(VectorModel, match)
    for chunk_id, path, loader, data in connection.execute(query.execution_options(yield_per=4096)):
        # Nothing but zeros stands for a record without a vector.
        fault = "" if loader == RECORD and data == bytes(2 * dimensions) else _fault(data, dimensions)
        if fault:
            yield f"Chunk {chunk_id} of {path!r} {fault}."


def _fault(data: bytes | None, dimensions: int) -> str:
    if data is None:
        return "has no vector of the active encoder"
    if len(data) != 2 * dimensions:
        return f"has a vector of {len(data)} bytes instead of {2 * dimensions}"
    vector = np.frombuffer(data, "<f2").astype(np.float64)
    if not np.isfinite(vector).all():
        return "has a vector that is not finite"
    norm = float(np.linalg.norm(vector))
    return "" if abs(norm - 1) <= _NORM_TOLERANCE else f"has a vector of length {norm:.3f} instead of 1"

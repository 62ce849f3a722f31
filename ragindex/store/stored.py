"""Documents as their bytes in the catalogue say, damaged or not: what `integrity` judges and `mending` mends.

Whatever cannot be read, be it no text, no number or no JSON, comes as None; nothing here raises for it. Only where
SQLite itself cannot follow its own pages there is an error.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from ragindex.store.rows import RECORD

__all__ = ["StoredChunk", "StoredDocument", "differently_described", "stored_documents"]

_MOST = 1 << 30  # bytes that a damaged text may claim to unpack to

_DOCUMENTS = (
    "SELECT documents.id, CAST(path AS BLOB), loader, sha256 = '', CAST(metadata AS BLOB), document_texts.text, length "
    "FROM documents LEFT JOIN document_texts ON document_texts.document_id = documents.id ORDER BY documents.id"
)
_CHUNKS = (
    'SELECT id, ordinal, start, "end", CAST(text AS BLOB), CAST(heading AS BLOB) FROM chunks WHERE document_id = ? '
    "ORDER BY ordinal"
)


class StoredChunk(NamedTuple):
    """A chunk; `headed`: its headings are what they should be, a list of texts."""

    chunk_id: int
    ordinal: int
    start: int | None
    end: int | None
    text: str | None
    headed: bool


class StoredDocument(NamedTuple):
    """A document. `described`: its metadata is an object of JSON; `reread`: it is marked to be read again; `given`: it
    is no file, so that only the program it came from has it.
    """

    document_id: int
    path: str
    given: bool
    reread: bool
    described: bool
    text: str | None
    length: int | None
    chunks: list[StoredChunk]

    @property
    def sound(self) -> str | None:
        """The text, where nothing contradicts it."""
        return self.text if self.text is not None and len(self.text) == self.length else None


def stored_documents(connection: sqlite3.Connection) -> Iterator[StoredDocument]:
    """Every document of every collection, in the order in which they came."""
    for row in connection.execute(_DOCUMENTS):
        identifier, path, loader, reread, metadata, packed, length = row
        chunks = [_chunk(chunk) for chunk in connection.execute(_CHUNKS, (identifier,))]
        given = loader in (RECORD, "memory")  # the second is what `Index.put` notes, for documents that are no files
        described = isinstance(_json(metadata), dict)
        text = _unpacked(packed)
        yield StoredDocument(identifier, _shown(path), given, bool(reread), described, text, _number(length), chunks)


def differently_described(connection: sqlite3.Connection) -> dict[int, str]:
    """Documents, by id with their paths, whose metadata is not what filters look up: it is held twice, and nothing
    tells which copy is right.
    """
    query = (
        "SELECT DISTINCT documents.id, CAST(documents.path AS BLOB) FROM documents, "
        "json_each(CASE WHEN json_valid(metadata) THEN metadata END) AS told "
        "WHERE sha256 <> '' AND told.type IN ('text', 'integer', 'real') AND length(told.value) <= 200 "
        "AND NOT EXISTS (SELECT 1 FROM document_fields AS held WHERE held.document_id = documents.id "
        "AND held.key = told.key AND held.value = told.value)"
    )
    return {row[0]: _shown(row[1]) for row in connection.execute(query)}


def _chunk(row: tuple[object, ...]) -> StoredChunk:
    identifier, ordinal, start, end, text, heading = row
    assert isinstance(identifier, int)
    headings = _json(heading)
    headed = isinstance(headings, list) and all(isinstance(title, str) for title in headings)
    return StoredChunk(identifier, _number(ordinal) or 0, _number(start), _number(end), _text(text), headed)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _text(value: object) -> str | None:
    try:
        return value.decode() if isinstance(value, bytes) else None
    except UnicodeDecodeError:
        return None


def _shown(path: object) -> str:
    return path.decode(errors="replace") if isinstance(path, bytes) else str(path)


def _json(value: object) -> object:
    try:
        return json.loads(_text(value) or "")
    except ValueError:
        return None


def _unpacked(packed: object) -> str | None:
    if not isinstance(packed, bytes):
        return None
    try:
        reader = zlib.decompressobj()
        text = reader.decompress(packed, _MOST)
        return text.decode() if reader.eof else None
    except (zlib.error, UnicodeDecodeError, MemoryError):
        return None

"""Checks a catalogue for `verify`: the database's own structure, and that every chunk is what it claims to be.

What protects what: a document's text carries the checksum of its compression; a chunk must equal its place in that
text; vectors must be unit vectors, and those that a dense snapshot holds as well must equal its copies, for which the
snapshot's checksums stand (see `copies`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import numpy as np

from ragindex.store.registry import ACTIVE_ENCODER, SALVAGED
from ragindex.store.rows import RECORD
from ragindex.store.stored import StoredDocument, differently_described, stored_documents

__all__ = ["problems", "structure", "vector_fault"]

_NORM_TOLERANCE = 1e-2  # half floats of a unit vector stay well within
_LIMIT = 100  # sentences; a thoroughly damaged store needs no longer list
_MEND = "run `ragindex repair`"


def problems(connection: sqlite3.Connection) -> list[str]:
    """Everything that is wrong, one sentence each, at most 100; empty when all is well."""
    found: list[str] = []
    try:
        for sentence in _all(connection):
            found.append(sentence)
            if len(found) == _LIMIT:
                found.append("Further problems were left out.")
                break
    except sqlite3.DatabaseError as error:
        found.append(f"SQLite cannot read on ({error}); {_MEND}, which saves what can be read.")
    return found


def structure(connection: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with its own pages and indexes, and rows that refer to none."""
    try:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
        broken = connection.execute("PRAGMA foreign_key_check").fetchall()
    except sqlite3.DatabaseError as error:
        return [f"SQLite finds: {error}; {_MEND}."]
    lines = [line for sentence in found for line in sentence.splitlines()]
    return [
        *(f"SQLite finds: {line}; {_MEND}." for line in lines),
        *(f"Row {row[1]} of {row[0]} refers to a missing row of {row[2]}; {_MEND}." for row in broken),
    ]


def _all(connection: sqlite3.Connection) -> Iterator[str]:
    yield from structure(connection)
    salvaged = connection.execute("SELECT 1 FROM settings WHERE key = ? AND value = 'true'", (SALVAGED,)).fetchone()
    if salvaged is not None:
        yield (
            "Documents may have been lost to damage; run `ragindex index` on all folders of the store, and put again "
            "what is no file: only what is missing will be embedded."
        )
    marked = set()
    for document in stored_documents(connection):
        if document.reread:
            marked.add(document.document_id)
            remedy = "put it again" if document.given else "run `ragindex index` on its folder"
            yield f"Parts of {document.path!r} were lost; {remedy}: only what is missing will be embedded."
        else:
            yield from _document(document)
    for path in differently_described(connection).values():
        yield f"The metadata of {path!r} is not what filters know of it; {_MEND}."
    yield from _vectors(connection, marked)


def _document(document: StoredDocument) -> Iterator[str]:
    path, text = document.path, document.sound
    if not document.described:
        yield f"The metadata of {path!r} is damaged; {_MEND}."
    if document.text is None:
        yield f"The stored text of {path!r} is missing or damaged; {_MEND}."
    elif text is None:
        yield f"The stored text of {path!r} has {len(document.text)} characters instead of {document.length}; {_MEND}."
    for position, chunk in enumerate(document.chunks):
        if chunk.ordinal != position:
            yield (
                f"The chunks of {path!r} are not numbered in sequence: {chunk.ordinal} stands at place {position}; "
                f"{_MEND}."
            )
        if text is not None and (chunk.text is None or text[chunk.start : chunk.end] != chunk.text):
            yield f"Chunk {chunk.ordinal} of {path!r} does not equal the text of the document at its place; {_MEND}."
        if not chunk.headed:
            yield f"The headings of chunk {chunk.ordinal} of {path!r} are damaged; {_MEND}."


def _vectors(connection: sqlite3.Connection, marked: set[int]) -> Iterator[str]:
    active = connection.execute("SELECT value FROM settings WHERE key = ?", (ACTIVE_ENCODER,)).fetchone()
    if active is None:
        return
    size = connection.execute("SELECT dimensions FROM encoders WHERE id = ?", active).fetchone()
    dimensions = 0 if size is None else int(size[0])
    query = (
        "SELECT chunks.id, document_id, CAST(path AS BLOB), loader, vectors.data FROM chunks "
        "JOIN documents ON documents.id = document_id "
        "LEFT JOIN vectors ON vectors.key = chunks.vector_key AND vectors.encoder_id = ?"
    )
    for chunk_id, document_id, path, loader, data in connection.execute(query, active):
        # Nothing but zeros stands for a record without a vector.
        if document_id in marked or (loader == RECORD and data == bytes(2 * dimensions)):
            continue
        fault = vector_fault(data, dimensions)
        if fault:
            yield f"Chunk {chunk_id} of {path.decode(errors='replace')!r} {fault}; {_MEND}."


def vector_fault(data: object, dimensions: int) -> str:
    """What is wrong with the bytes of a unit vector; empty when nothing is."""
    if data is None:
        return "has no vector of the active encoder"
    if not isinstance(data, bytes) or len(data) != 2 * dimensions:
        return f"has a vector of {len(data) if isinstance(data, bytes) else 0} bytes instead of {2 * dimensions}"
    vector = np.frombuffer(data, "<f2").astype(np.float64)
    if not np.isfinite(vector).all():
        return "has a vector that is not finite"
    norm = float(np.linalg.norm(vector))
    return "" if abs(norm - 1) <= _NORM_TOLERANCE else f"has a vector of length {norm:.3f} instead of 1"

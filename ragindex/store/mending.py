"""Mends what is wrong with rows of the catalogue from what else the store knows, embedding nothing.

A chunk's text is in its document's, a document's text in its chunks where these leave nothing out, a vector in a dense
snapshot. What cannot be told any more is left in a state that answers nothing wrongly: its document is marked, so that
the next index run reads it again and embeds only what is missing.
"""

from __future__ import annotations

import secrets
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ragindex.store.copies import Copies, differing
from ragindex.store.integrity import vector_fault
from ragindex.store.registry import ACTIVE_ENCODER, PREVIOUS_COVERS, PREVIOUS_ENCODER
from ragindex.store.rows import RECORD
from ragindex.store.stored import StoredChunk, StoredDocument, differently_described, stored_documents

__all__ = ["CopiesOf", "begin_history", "mark_unread", "mend"]

_COMPRESSION = 3
_ANY = 1 << 62  # above every chunk's id


class CopiesOf(NamedTuple):
    """What a dense snapshot holds of an encoder's vectors."""

    encoder_id: int
    batches: Iterable[Copies]


class _Update(NamedTuple):
    statement: str
    parameters: tuple[Any, ...]


def mend(connection: sqlite3.Connection, snapshots: Iterable[CopiesOf]) -> None:
    """In a transaction, of a catalogue whose pages SQLite can read: mend texts, chunks and vectors."""
    updates: list[_Update] = []
    lost = list(differently_described(connection))
    for document in stored_documents(connection):
        found = list(_mended(document))
        updates += [update for update in found if update is not None]
        lost += [document.document_id] if None in found else []
    for snapshot in snapshots:
        for copies in snapshot.batches:
            updates += [
                _vector(snapshot.encoder_id, one.key, one.data)
                for one in differing(connection, snapshot.encoder_id, copies)
            ]
    for update in updates:
        connection.execute(update.statement, update.parameters)
    mark_unread(connection, lost)
    if _void(connection) or updates:
        begin_history(connection)


def mark_unread(connection: sqlite3.Connection, documents: Iterable[int]) -> None:
    """Let the next index run read these documents again, whatever their files' sizes and times say."""
    connection.executemany("UPDATE documents SET size = -1, sha256 = '' WHERE id = ?", ((one,) for one in documents))


def begin_history(connection: sqlite3.Connection) -> None:
    """Let every index, on disk and in the memory of other processes, know that replaying will not bring it level."""
    known = "SELECT max(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0), max(generation))"
    start = connection.execute(f"{known} FROM collections").fetchone()[0] + 1
    connection.execute("DELETE FROM changes")
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'changes'")
    connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('changes', ?)", (start,))
    history = "UPDATE collections SET generation = ?, log_start = ?, token = ?"
    connection.execute(history, (start, start, secrets.randbits(62)))


def _mended(document: StoredDocument) -> Iterator[_Update | None]:
    """What mends a document; None for something that cannot be mended."""
    text = document.sound
    if text is None:
        text = _stitched(document)
        if text is None:
            yield None
        else:
            packed = zlib.compress(text.encode(), _COMPRESSION)
            statement = "UPDATE document_texts SET text = ?, length = ? WHERE document_id = ?"
            yield _Update(statement, (packed, len(text), document.document_id))
    if not document.described:
        yield _Update("UPDATE documents SET metadata = '{}' WHERE id = ?", (document.document_id,))
        yield None
    for position, chunk in enumerate(document.chunks):
        if chunk.ordinal != position:
            yield None
        if not chunk.headed:
            yield _Update("UPDATE chunks SET heading = '[]' WHERE id = ?", (chunk.chunk_id,))
            yield None
        if text is not None:
            yield from _in_place(text, chunk)
        elif chunk.text is None:
            yield _Update("UPDATE chunks SET text = '' WHERE id = ?", (chunk.chunk_id,))


def _in_place(text: str, chunk: StoredChunk) -> Iterator[_Update | None]:
    """A chunk that does not equal its place: either its text is damaged or the place is."""
    start, end = chunk.start, chunk.end
    spanned = start is not None and end is not None and 0 <= start <= end <= len(text)
    if spanned and text[start:end] == chunk.text:
        return
    elsewhere = -1 if not chunk.text else _nearest(text, chunk.text, start or 0)
    if elsewhere >= 0 and chunk.text is not None:
        place = (elsewhere, elsewhere + len(chunk.text), chunk.chunk_id)
        yield _Update('UPDATE chunks SET start = ?, "end" = ? WHERE id = ?', place)
    elif spanned:
        yield _Update("UPDATE chunks SET text = ? WHERE id = ?", (text[start:end], chunk.chunk_id))
    else:
        yield _Update("UPDATE chunks SET text = '', start = 0, \"end\" = 0 WHERE id = ?", (chunk.chunk_id,))
        yield None


def _nearest(text: str, part: str, place: int) -> int:
    before, after = text.rfind(part, 0, max(place, 0) + len(part)), text.find(part, max(place, 0))
    found = [one for one in (before, after) if one >= 0]
    return min(found, key=lambda one: abs(one - place), default=-1)


def _stitched(document: StoredDocument) -> str | None:
    """The text as its chunks tell it; None where they leave something out or contradict each other."""
    text = ""
    for chunk in document.chunks:
        if chunk.text is None or chunk.start is None or not 0 <= chunk.start <= len(text):
            return None
        if not chunk.text.startswith(text[chunk.start :][: len(chunk.text)]):
            return None
        text = text[: chunk.start] + chunk.text + text[chunk.start + len(chunk.text) :]
    return text if text and len(text) == document.length else None


def _vector(encoder_id: int, key: bytes, data: bytes) -> _Update:
    statement = (
        "INSERT INTO vectors (encoder_id, key, data) VALUES (?, ?, ?) "
        "ON CONFLICT (key, encoder_id) DO UPDATE SET data = excluded.data"
    )
    return _Update(statement, (encoder_id, key, data))


class _Faulty(NamedTuple):
    """Vectors of an encoder that are no unit vectors, by key, and the documents whose chunks refer to them."""

    encoder_id: int
    dimensions: int
    keys: set[bytes]
    documents: set[int]


def _void(connection: sqlite3.Connection) -> bool:
    """See to the vectors that are beyond mending; whether there were any.

    In the place of the active encoder's come zeros, which are near to nothing, and the documents that need them are
    marked. Those of the previous encoder are made when it is gone back to.
    """
    active, previous = _faulty(connection, ACTIVE_ENCODER), _faulty(connection, PREVIOUS_ENCODER)
    for key in active.keys:
        update = _vector(active.encoder_id, key, bytes(2 * active.dimensions))
        connection.execute(update.statement, update.parameters)
    mark_unread(connection, sorted(active.documents))
    for key in previous.keys:
        connection.execute("DELETE FROM vectors WHERE encoder_id = ? AND key = ?", (previous.encoder_id, key))
    if previous.keys:
        connection.execute("UPDATE settings SET value = '0' WHERE key = ?", (PREVIOUS_COVERS,))
    return bool(active.keys or previous.keys)


def _faulty(connection: sqlite3.Connection, setting: str) -> _Faulty:
    query = (
        "SELECT encoders.id, dimensions FROM encoders JOIN settings ON settings.value = encoders.id "
        "WHERE settings.key = ?"
    )
    encoder = connection.execute(query, (setting,)).fetchone()
    if encoder is None:
        return _Faulty(0, 0, set(), set())
    found = _Faulty(encoder[0], encoder[1], set(), set())
    covered = connection.execute("SELECT value FROM settings WHERE key = ?", (PREVIOUS_COVERS,)).fetchone()
    last = int(covered[0]) if covered is not None and setting == PREVIOUS_ENCODER else _ANY
    vectors = (
        "SELECT document_id, vector_key, loader, vectors.data FROM chunks JOIN documents ON documents.id = document_id "
        "LEFT JOIN vectors ON vectors.key = chunks.vector_key AND vectors.encoder_id = ? WHERE chunks.id <= ?"
    )
    nothing = bytes(2 * found.dimensions)
    for document_id, key, loader, data in connection.execute(vectors, (found.encoder_id, last)):
        if vector_fault(data, found.dimensions) and not (loader == RECORD and data == nothing):
            found.documents.add(document_id)
            found.keys.add(key)
    return found

"""The catalogue's answers about documents and chunks: planning a run, showing hits."""

# ruff: noqa: S608 - statements are put together from constants; whatever a user wrote is a parameter
from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from ragindex.errors import CorruptionError, UsageError
from ragindex.store.database import Database
from ragindex.store.filter_sql import Condition
from ragindex.store.registry import ACTIVE_ENCODER, headings, json_value
from ragindex.store.rows import ChunkRow, Counts, FailureRow, FailureState, FileState, IdArray

__all__ = ["CHUNKS", "Reading", "as_chunk", "listed", "unpacked", "within"]

_UNPACKED = 100_000  # characters
_PARAMETERS = 500  # per statement, where values are bytes and cannot travel as one JSON list
CHUNKS = (
    'SELECT chunks.id, document_id, path, title, heading, page, line_start, line_end, start, chunks."end", text, '
    "metadata, ordinal, tokens, loader FROM chunks JOIN documents ON documents.id = chunks.document_id"
)


class Reading:
    """Queries of one transaction each."""

    _database: Database

    def file_states(self, collection: int, prefix: str | None = None) -> dict[str, FileState]:
        """What is remembered of each indexed file, by path; `prefix` limits it to a folder ("docs") or one file."""
        scope = within(prefix)
        query = (
            "SELECT path, size, mtime_ns, sha256, checked_ns, loader FROM documents "
            f"WHERE collection_id = ? AND {scope.sql}"
        )
        with self._database.snapshot() as connection:
            rows = connection.execute(query, (collection, *scope.parameters)).fetchall()
        return {row[0]: FileState._make(row) for row in rows}

    def failure_states(self, collection: int, prefix: str | None = None) -> dict[str, FailureState]:
        """What is remembered of each file that failed, by path; `prefix` as in `file_states`."""
        scope = within(prefix)
        query = (
            "SELECT path, size, mtime_ns, sha256, reason, failed_at FROM failures "
            f"WHERE collection_id = ? AND {scope.sql}"
        )
        with self._database.snapshot() as connection:
            return {row[0]: FailureState(*row) for row in connection.execute(query, (collection, *scope.parameters))}

    def missing_keys(self, encoder_id: int, keys: Collection[bytes]) -> set[bytes]:
        """Those of the keys for which the store has no vector of this encoder, or has lost it and holds zeros."""
        waiting = list(set(keys))
        missing = set(waiting)
        with self._database.snapshot() as connection:
            for start in range(0, len(waiting), _PARAMETERS):
                some = waiting[start : start + _PARAMETERS]
                marks = ", ".join("?" * len(some))
                query = (
                    f"SELECT key FROM vectors WHERE encoder_id = ? AND key IN ({marks}) "
                    "AND data <> zeroblob(length(data))"
                )
                missing.difference_update(row[0] for row in connection.execute(query, (encoder_id, *some)))
        return missing

    def hits(self, chunk_ids: Sequence[int] | IdArray) -> list[ChunkRow]:
        """The chunks in the order asked for; ones that were removed meanwhile are left out."""
        wanted = [int(chunk_id) for chunk_id in chunk_ids]
        query = f"{CHUNKS} WHERE chunks.id IN (SELECT value FROM json_each(?))"
        with self._database.snapshot() as connection:
            found = {row[0]: as_chunk(row) for row in connection.execute(query, (listed(wanted),))}
        return [found[chunk_id] for chunk_id in wanted if chunk_id in found]

    def check_spans(self, rows: Sequence[ChunkRow]) -> None:
        """Raise CorruptionError when a chunk does not equal its place in the document's text, which has a checksum.

        Documents above 100,000 characters are left out: to unpack their texts would take longer than to search.
        """
        query = (
            "SELECT document_id, text, sha256 FROM document_texts JOIN documents ON documents.id = document_id "
            "WHERE document_id IN (SELECT value FROM json_each(?)) AND length <= ?"
        )
        wanted = listed({row.document_id for row in rows})
        with self._database.snapshot() as connection:
            held = {row[0]: row[1:] for row in connection.execute(query, (wanted, _UNPACKED))}
        texts: dict[int, str] = {}
        for row in rows:
            packed, digest = held.get(row.document_id, (None, None))
            if packed is None:
                continue
            # Repairing takes the digest of a document that it cannot mend.
            remedy = "ragindex repair" if digest else "ragindex index"
            if row.document_id not in texts:
                texts[row.document_id] = unpacked(packed, row.path, remedy)
            if texts[row.document_id][row.start : row.end] != row.text:
                raise CorruptionError(f"The stored text of {row.path!r} is damaged; run `{remedy}`.")

    def document_text(self, collection: int, path: str) -> str:
        """The whole text of a document. Raises UsageError when the collection has no such document."""
        query = (
            "SELECT text FROM document_texts JOIN documents ON documents.id = document_texts.document_id "
            "WHERE collection_id = ? AND path = ?"
        )
        with self._database.snapshot() as connection:
            row = connection.execute(query, (collection, path)).fetchone()
        if row is None:
            raise UsageError(f"{path!r} is not indexed; `ragindex list` shows what is.")
        return unpacked(row[0], path)

    def chunks_of(self, collection: int, path: str) -> list[ChunkRow]:
        """The chunks of a document in order; empty when there is no such document."""
        query = f"{CHUNKS} WHERE documents.collection_id = ? AND path = ? ORDER BY ordinal"
        with self._database.snapshot() as connection:
            return [as_chunk(row) for row in connection.execute(query, (collection, path))]

    def neighbours(self, chunk_id: int, before: int, after: int) -> list[ChunkRow]:
        """The chunk with up to `before` chunks above it and `after` below it in its document, in order."""
        place = "SELECT document_id, ordinal FROM chunks WHERE id = ?"
        query = f"{CHUNKS} WHERE document_id = ? AND ordinal BETWEEN ? AND ? ORDER BY ordinal"
        with self._database.snapshot() as connection:
            row = connection.execute(place, (chunk_id,)).fetchone()
            if row is None:
                return []
            span = (row[0], row[1] - before, row[1] + after)
            return [as_chunk(row) for row in connection.execute(query, span)]

    def failures(self, collection: int) -> list[FailureRow]:
        """The files that could not be indexed, by path."""
        query = "SELECT path, reason, failed_at FROM failures WHERE collection_id = ? ORDER BY path"
        with self._database.snapshot() as connection:
            return [FailureRow(*row) for row in connection.execute(query, (collection,))]

    def counts(self, collection: int) -> Counts:
        """The size of a collection."""
        query = (
            "SELECT (SELECT count(*) FROM documents WHERE collection_id = :own), "
            "(SELECT count(*) FROM chunks WHERE collection_id = :own), "
            "(SELECT count(DISTINCT vectors.id) FROM vectors JOIN chunks ON chunks.vector_key = vectors.key "
            "WHERE collection_id = :own AND encoder_id = (SELECT value FROM settings WHERE key = :active)), "
            "(SELECT count(*) FROM failures WHERE collection_id = :own), "
            "(SELECT coalesce(sum(tokens), 0) FROM chunks WHERE collection_id = :own)"
        )
        with self._database.snapshot() as connection:
            return Counts(*connection.execute(query, {"own": collection, "active": ACTIVE_ENCODER}).fetchone())


def unpacked(text: bytes, path: str, remedy: str = "ragindex repair") -> str:
    """A stored text. Raises CorruptionError, naming the command that mends it, when it is damaged."""
    try:
        return zlib.decompress(text).decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise CorruptionError(f"The stored text of {path!r} is damaged; run `{remedy}`.") from error


def listed(ids: Iterable[int]) -> str:
    """Ids as one parameter for `json_each`, however many they are."""
    return json.dumps([int(one) for one in ids])


def within(prefix: str | None) -> Condition:
    """The paths in a folder, or the one path; everything for None and the base itself."""
    folder = (prefix or "").rstrip("/")
    if prefix in (None, "", "."):
        return Condition("1", ())
    # "0" is the character after "/": everything inside of the folder, found through the index on the path.
    return Condition("(path = ? OR (path > ? AND path < ?))", (folder, f"{folder}/", f"{folder}0"))


def as_chunk(row: tuple[Any, ...]) -> ChunkRow:
    """The row that a statement beginning with `CHUNKS` gives. Raises CorruptionError when it is none."""
    values = list(row)
    values[4], values[11] = headings(values[4]), json_value(values[11])
    chunk = ChunkRow(*values)
    numbers = (chunk.line_start, chunk.line_end, chunk.start, chunk.end, chunk.ordinal, chunk.tokens)
    texts = (chunk.path, chunk.title, chunk.text)
    if not all(type(value) is int for value in numbers) or not all(type(value) is str for value in texts):
        raise CorruptionError(f"What is stored of chunk {chunk.chunk_id} is damaged; run `ragindex repair`.")
    return chunk

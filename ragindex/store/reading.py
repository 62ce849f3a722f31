"""The catalogue's answers about documents and chunks: planning a run, showing hits, listing, filtering."""

# ruff: noqa: S608 - statements are put together from constants; whatever a user wrote is a parameter
from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from ragindex.errors import CorruptionError, UsageError
from ragindex.filters import Filter
from ragindex.store.database import Database
from ragindex.store.filter_sql import Condition, condition, needs_chunks
from ragindex.store.registry import ACTIVE_ENCODER, json_value
from ragindex.store.rows import ChunkRow, Counts, DocumentRow, FailureRow, FailureState, FileState, IdArray

__all__ = ["CHUNKS", "Reading", "as_chunk", "listed", "unpacked"]

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
        within = _within(prefix)
        query = (
            "SELECT path, size, mtime_ns, sha256, checked_ns, loader FROM documents "
            f"WHERE collection_id = ? AND {within.sql}"
        )
        with self._database.snapshot() as connection:
            rows = connection.execute(query, (collection, *within.parameters)).fetchall()
        return {row[0]: FileState._make(row) for row in rows}

    def failure_states(self, collection: int, prefix: str | None = None) -> dict[str, FailureState]:
        """What is remembered of each file that failed, by path; `prefix` as in `file_states`."""
        within = _within(prefix)
        query = (
            "SELECT path, size, mtime_ns, sha256, reason, failed_at FROM failures "
            f"WHERE collection_id = ? AND {within.sql}"
        )
        with self._database.snapshot() as connection:
            return {row[0]: FailureState(*row) for row in connection.execute(query, (collection, *within.parameters))}

    def missing_keys(self, encoder_id: int, keys: Collection[bytes]) -> set[bytes]:
        """Those of the keys for which the store has no vector of this encoder."""
        waiting = list(set(keys))
        missing = set(waiting)
        with self._database.snapshot() as connection:
            for start in range(0, len(waiting), _PARAMETERS):
                some = waiting[start : start + _PARAMETERS]
                marks = ", ".join("?" * len(some))
                query = f"SELECT key FROM vectors WHERE encoder_id = ? AND key IN ({marks})"
                missing.difference_update(row[0] for row in connection.execute(query, (encoder_id, *some)))
        return missing

    def hits(self, chunk_ids: Sequence[int] | IdArray) -> list[ChunkRow]:
        """The chunks in the order asked for; ones that were removed meanwhile are left out."""
        wanted = [int(chunk_id) for chunk_id in chunk_ids]
        query = f"{CHUNKS} WHERE chunks.id IN (SELECT value FROM json_each(?))"
        with self._database.snapshot() as connection:
            found = {row[0]: as_chunk(row) for row in connection.execute(query, (listed(wanted),))}
        return [found[chunk_id] for chunk_id in wanted if chunk_id in found]

    def allowed(self, collection: int, filter: Filter | None) -> IdArray | None:  # noqa: A002
        """The ids of the chunks that a filter lets through, ascending (n,); None: no filter, everything."""
        if filter is None:
            return None
        import numpy as np

        test = condition(filter)
        # One string instead of a row per id: half of the time where a filter lets much through.
        if needs_chunks(filter):
            query = (
                "SELECT group_concat(chunks.id) FROM chunks JOIN documents ON documents.id = chunks.document_id "
                f"WHERE chunks.collection_id = ? AND {test.sql}"
            )
        else:
            # Nothing but its document is asked of a chunk, so that the index on (document, ordinal) answers.
            query = (
                "SELECT group_concat(chunks.id) FROM chunks WHERE document_id IN "
                f"(SELECT documents.id FROM documents WHERE documents.collection_id = ? AND {test.sql})"
            )
        with self._database.snapshot() as connection:
            listed_ids = connection.execute(query, (collection, *test.parameters)).fetchone()[0]
        return np.sort(np.fromstring(listed_ids or "", np.int64, sep=","))

    def documents(self, collection: int, prefix: str | None = None) -> list[DocumentRow]:
        """Every document with its counts, by path; `prefix` as in `file_states`."""
        within = _within(prefix)
        query = (
            "SELECT documents.id, path, title, sha256, size, coalesce(per.chunks, 0), coalesce(per.tokens, 0), length, "
            "metadata, indexed_at FROM documents JOIN document_texts ON document_texts.document_id = documents.id "
            "LEFT JOIN (SELECT document_id, count(*) AS chunks, sum(tokens) AS tokens FROM chunks "
            "WHERE collection_id = ? GROUP BY document_id) AS per ON per.document_id = documents.id "
            f"WHERE documents.collection_id = ? AND {within.sql} ORDER BY path"
        )
        with self._database.snapshot() as connection:
            rows = connection.execute(query, (collection, collection, *within.parameters))
            return [_document(row) for row in rows]

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


def unpacked(text: bytes, path: str) -> str:
    """A stored text. Raises CorruptionError when it is damaged."""
    try:
        return zlib.decompress(text).decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise CorruptionError(f"The stored text of {path!r} is damaged; run `ragindex index` on it again.") from error


def listed(ids: Iterable[int]) -> str:
    """Ids as one parameter for `json_each`, however many they are."""
    return json.dumps([int(one) for one in ids])


def _within(prefix: str | None) -> Condition:
    """The paths in a folder, or the one path; everything for None and the base itself."""
    folder = (prefix or "").rstrip("/")
    if prefix in (None, "", "."):
        return Condition("1", ())
    # "0" is the character after "/": everything inside of the folder, found through the index on the path.
    return Condition("(path = ? OR (path > ? AND path < ?))", (folder, f"{folder}/", f"{folder}0"))


def _document(row: tuple[Any, ...]) -> DocumentRow:
    values = list(row)
    values[8] = json_value(values[8])
    return DocumentRow(*values)


def as_chunk(row: tuple[Any, ...]) -> ChunkRow:
    """The row that a statement beginning with `CHUNKS` gives."""
    values = list(row)
    values[4], values[11] = tuple(json_value(values[4])), json_value(values[11])
    return ChunkRow(*values)

"""The catalogue's answers without a query: chunks by a filter or by the names of their documents."""

# ruff: noqa: S608 - statements are put together from constants; whatever a user wrote is a parameter
from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from ragindex.filters import Filter
from ragindex.store.database import Database
from ragindex.store.filter_sql import Condition, condition, is_led
from ragindex.store.reading import CHUNKS, as_chunk
from ragindex.store.rows import ChunkRow, FileState

__all__ = ["Finding"]

_NAMED = "collection_id = ? AND path IN (SELECT value FROM json_each(?))"


class Finding:
    """Queries of one transaction each. loader: of documents that this loader made, and no others."""

    _database: Database

    def find(
        self,
        collection: int,
        filter: Filter | None = None,  # noqa: A002
        *,
        loader: str | None = None,
        offset: int = 0,
        limit: int | None = None,
    ) -> list[ChunkRow]:
        """The chunks that a filter lets through, oldest first."""
        if filter is not None and is_led(filter):
            found = _matching(collection, filter, loader)
            test = Condition(f"chunks.id IN (SELECT chunks.id {found.sql})", found.parameters)
        else:  # one chunk after the other, until there are enough
            matched = _test(collection, filter, loader)
            test = Condition(f"chunks.collection_id = ? AND {matched.sql}", (collection, *matched.parameters))
        query = f"{CHUNKS} WHERE {test.sql} ORDER BY chunks.id LIMIT ? OFFSET ?"
        bounds = (-1 if limit is None else limit, offset)
        with self._database.snapshot() as connection:
            return [as_chunk(row) for row in connection.execute(query, (*test.parameters, *bounds))]

    def names(self, collection: int, filter: Filter | None = None, *, loader: str) -> list[str]:  # noqa: A002
        """The paths of the documents of which a chunk is let through, oldest first."""
        found = _matching(collection, filter, loader)
        query = f"SELECT path {found.sql} ORDER BY chunks.id"
        with self._database.snapshot() as connection:
            rows = connection.execute(query, found.parameters)
            return list(dict.fromkeys(row[0] for row in rows))

    def count(self, collection: int, filter: Filter | None = None) -> int:  # noqa: A002
        """How many chunks a filter lets through."""
        found = _matching(collection, filter, None)
        with self._database.snapshot() as connection:
            return int(connection.execute(f"SELECT count(*) {found.sql}", found.parameters).fetchone()[0])

    def states_of(self, collection: int, paths: Collection[str]) -> dict[str, FileState]:
        """What is remembered of these documents, by path; of those that are there."""
        query = f"SELECT path, size, mtime_ns, sha256, checked_ns, loader FROM documents WHERE {_NAMED}"
        with self._database.snapshot() as connection:
            rows = connection.execute(query, (collection, json.dumps(list(paths)))).fetchall()
        return {row[0]: FileState._make(row) for row in rows}

    def chunks_named(self, collection: int, paths: Collection[str], *, loader: str) -> dict[str, ChunkRow]:
        """The first chunk of each of these documents, by path; of those that are there."""
        query = f"{CHUNKS} WHERE documents.{_NAMED} AND loader = ? AND ordinal = 0"
        parameters: tuple[Any, ...] = (collection, json.dumps(list(paths)), loader)
        with self._database.snapshot() as connection:
            found = [as_chunk(row) for row in connection.execute(query, parameters)]
        return {row.path: row for row in found}


def _matching(collection: int, filter: Filter | None, loader: str | None) -> Condition:  # noqa: A002
    """Chunks by way of their documents."""
    test = _test(collection, filter, loader)
    # See `Allowing`.
    plus = "+" if filter is not None and is_led(filter) else ""
    source = "FROM documents CROSS JOIN chunks ON chunks.document_id = documents.id"
    return Condition(f"{source} WHERE {plus}documents.collection_id = ? AND {test.sql}", (collection, *test.parameters))


def _test(collection: int, filter: Filter | None, loader: str | None) -> Condition:  # noqa: A002
    test = Condition("1") if filter is None else condition(filter, collection=collection)
    return test if loader is None else Condition(f"({test.sql}) AND loader = ?", (*test.parameters, loader))

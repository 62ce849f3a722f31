"""The catalogue's documents as a list, a page of it at a time."""

# ruff: noqa: S608 - statements are put together from constants; whatever a user wrote is a parameter
from __future__ import annotations

import sqlite3
from typing import Any

from ragindex.store.database import Database
from ragindex.store.filter_sql import Condition
from ragindex.store.reading import within
from ragindex.store.registry import json_value
from ragindex.store.rows import DocumentRow

__all__ = ["Listing"]


class Listing:
    """Queries of one transaction each.

    prefix: a folder ("docs") or one document, None for all; contains: a part of the path or the title, in any case.
    """

    _database: Database

    def documents(
        self,
        collection: int,
        prefix: str | None = None,
        *,
        contains: str = "",
        limit: int | None = None,
        offset: int = 0,
    ) -> list[DocumentRow]:
        """Documents with their counts, by path: `limit` of them (None: all) after the first `offset`."""
        test = _test(collection, prefix, contains)
        # What is counted is counted for the page alone.
        query = (
            "SELECT documents.id, path, title, sha256, size, "
            "(SELECT count(*) FROM chunks WHERE document_id = documents.id), "
            "(SELECT coalesce(sum(tokens), 0) FROM chunks WHERE document_id = documents.id), "
            "coalesce((SELECT length FROM document_texts WHERE document_id = documents.id), 0), metadata, indexed_at "
            f"FROM documents WHERE {test.sql} ORDER BY path LIMIT ? OFFSET ?"
        )
        bounds = (-1 if limit is None else limit, offset)
        with self._database.snapshot() as connection:
            _teach(connection)
            return [_document(row) for row in connection.execute(query, (*test.parameters, *bounds))]

    def document_count(self, collection: int, prefix: str | None = None, *, contains: str = "") -> int:
        """How many documents `documents` would list without a limit."""
        test = _test(collection, prefix, contains)
        with self._database.snapshot() as connection:
            _teach(connection)
            query = f"SELECT count(*) FROM documents WHERE {test.sql}"
            return int(connection.execute(query, test.parameters).fetchone()[0])


def _test(collection: int, prefix: str | None, contains: str) -> Condition:
    scope = within(prefix)
    test = Condition(f"collection_id = ? AND {scope.sql}", (collection, *scope.parameters))
    if not contains:
        return test
    wanted = contains.casefold()
    part = "(instr(casefold(path), ?) > 0 OR instr(casefold(title), ?) > 0)"
    return Condition(f"{test.sql} AND {part}", (*test.parameters, wanted, wanted))


def _teach(connection: sqlite3.Connection) -> None:
    """SQLite's own functions know the case of ASCII alone."""
    connection.create_function("casefold", 1, str.casefold, deterministic=True)


def _document(row: tuple[Any, ...]) -> DocumentRow:
    values = list(row)
    values[8] = json_value(values[8])
    return DocumentRow(*values)

"""The SQLite file under the catalogue, in two layers: what asks uses bare connections, what writes SQLAlchemy.

A query is a dozen small questions, and to ask them through SQLAlchemy costs more time than to answer them; importing
it takes longer than everything else that a query process does.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ragindex.errors import CorruptionError, SchemaError, StoreError
from ragindex.store.connections import Connections, translated
from ragindex.store.revisions import Revisions

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

__all__ = ["BACKUP", "FILE_NAME", "HEAD", "Database", "schema_version"]

FILE_NAME = "catalog.sqlite"
BACKUP = f"{FILE_NAME}.bak-"  # and the schema of the store before it was changed
HEAD = "0002"  # the revision this program reads and writes; a test holds it equal to the newest migration


class Database:
    """Connections to one catalogue. Each transaction has a connection to itself, so threads may read and write at
    once.
    """

    def __init__(self, file: Path, *, check_schema: bool = True) -> None:
        self.file = file
        self._connections = Connections(file)
        self._revisions = Revisions(self._connections)
        self.read_only = self._connections.read_only
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        try:
            if check_schema:
                self._check_schema()
        except BaseException:
            self.close()
            raise

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's side of the file; made when it is first needed."""
        from sqlalchemy import create_engine
        from sqlalchemy.pool import QueuePool

        with self._lock:
            if self._engine is None:
                connect = self._connections.connect
                self._engine = create_engine(
                    "sqlite://", creator=connect, poolclass=QueuePool, max_overflow=-1, json_serializer=_compact_json
                )
            return self._engine

    def snapshot(self) -> AbstractContextManager[sqlite3.Connection]:
        """One consistent view of the data for as long as it is open, for plain SQL."""
        return self._connections.snapshot()

    def reading(self) -> AbstractContextManager[Connection]:
        """`snapshot` for SQLAlchemy's statements."""
        return self._transaction("BEGIN")

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is committed at the end and undone by an exception. A commit survives loss of power."""
        self._check_writable()
        with self._transaction("BEGIN IMMEDIATE") as connection:
            self._check_unchanged(connection)
            yield connection

    def revision(self) -> int | None:
        """A number that grows with every commit of whatever process; None where that cannot be told."""
        return self._revisions.now()

    @contextmanager
    def mending(self) -> Iterator[sqlite3.Connection]:
        """`writing` for plain SQL, which puts up with rows that are not what they should be."""
        self._check_writable()
        try:
            with closing(self._connections.connect()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise translated(error, self.file) from error

    def vacuum(self) -> None:
        """Rewrite the file without its free pages."""
        self._check_writable()
        try:
            connection = self._connections.connect()
            try:
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise translated(error, self.file) from error

    def close(self) -> None:
        """Close every idle connection; the last one of all processes folds the write-ahead log into the file."""
        self._revisions.close()
        self._connections.close()
        if self._engine is not None:
            self._engine.dispose()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with self.engine.connect() as connection:
                connection.exec_driver_sql(begin)
                yield connection
                connection.commit()
        except (sqlite3.Error, SQLAlchemyError) as error:
            raise translated(error, self.file) from error

    def _check_writable(self) -> None:
        if self.read_only:
            raise StoreError(f"{self.file.parent} is read-only; make it writable to change the index.")

    def _check_unchanged(self, connection: Connection) -> None:
        """Another program may have upgraded the store since this one opened it."""
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        if found != HEAD:
            raise SchemaError(
                f"{self.file} was brought to the schema {found} while this program was using {HEAD}; nothing was "
                "written, start the program again."
            )

    def _check_schema(self) -> None:
        found = schema_version(self)
        if found > HEAD:
            kept = sorted(self.file.parent.glob(f"{BACKUP}{HEAD}*"))
            way_back = f", or put {kept[-1].name}, the store before it was upgraded, in its place" if kept else ""
            raise SchemaError(
                f"{self.file} was written by a newer ragindex (schema {found}, this program knows {HEAD}); "
                f"upgrade the program{way_back}."
            )
        if found < HEAD:
            raise SchemaError(f"{self.file} has the schema {found} of an older ragindex; run `ragindex db upgrade`.")


def schema_version(database: Database) -> str:
    """The revision written in the file. Raises CorruptionError where there is none."""
    with database.snapshot() as connection:
        known = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'").fetchone()[0]
        if known == 0:
            raise CorruptionError(
                f"{database.file} is not a ragindex catalogue; restore it from a backup or index again."
            )
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    version = "0000" if row is None else str(row[0])
    if not version.isdigit():
        raise CorruptionError(f"{database.file} does not tell its schema any more; run `ragindex repair`.")
    return version


def _compact_json(value: object) -> str:
    """How values are written into columns of JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

"""The SQLite file under the catalogue: connections, transactions, and its errors as sentences."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from ragindex.errors import CorruptionError, SchemaError, StoreError
from ragindex.store.schema import HEAD

__all__ = ["FILE_NAME", "Database", "schema_version"]

FILE_NAME = "catalog.sqlite"
_BUSY_SECONDS = 30.0
_CACHE_KIBIBYTES = 65_536


class Database:
    """Connections to one catalogue. Each transaction has a connection to itself, so threads may read and write at
    once.
    """

    def __init__(self, file: Path, *, check_schema: bool = True) -> None:
        self.file = file
        self.read_only = not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))
        self._uri = _uri(file, read_only=self.read_only)
        self._engine = create_engine(
            "sqlite://", creator=self._connect, poolclass=QueuePool, max_overflow=-1, json_serializer=_compact_json
        )
        try:
            if check_schema:
                self._check_schema()
        except BaseException:
            self.close()
            raise

    @property
    def engine(self) -> Engine:
        """For migrations only."""
        return self._engine

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view of the data for as long as it is open."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is committed at the end and undone by an exception. A commit survives loss of power."""
        if self.read_only:
            raise StoreError(f"{self.file.parent} is read-only; make it writable to change the index.")
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    def vacuum(self) -> None:
        """Rewrite the file without its free pages."""
        if self.read_only:
            raise StoreError(f"{self.file.parent} is read-only; make it writable to change the index.")
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql("VACUUM")
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
        except (sqlite3.Error, SQLAlchemyError) as error:
            raise _translated(error, self.file) from error

    def close(self) -> None:
        """Close every idle connection; the last one of all processes folds the write-ahead log into the file."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql(begin)
                yield connection
                connection.commit()
        except (sqlite3.Error, SQLAlchemyError) as error:
            raise _translated(error, self.file) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._uri, uri=True, timeout=_BUSY_SECONDS, check_same_thread=False, isolation_level=None
        )
        try:
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIBIBYTES}")
            if not self.read_only:
                connection.execute("PRAGMA journal_mode = WAL").close()
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA secure_delete = ON")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _check_schema(self) -> None:
        found = schema_version(self)
        if found > HEAD:
            raise SchemaError(
                f"{self.file} was written by a newer ragindex (schema {found}, this program knows {HEAD}); "
                "upgrade the program."
            )
        if found < HEAD:
            raise SchemaError(f"{self.file} has the schema {found} of an older ragindex; run `ragindex db upgrade`.")


def schema_version(database: Database) -> str:
    """The revision written in the file. Raises CorruptionError where there is none."""
    with database.reading() as connection:
        query = "SELECT count(*) FROM sqlite_master WHERE name = 'alembic_version'"
        if connection.exec_driver_sql(query).scalar_one() == 0:
            raise CorruptionError(
                f"{database.file} is not a ragindex catalogue; restore it from a backup or index again."
            )
        row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
    return "0000" if row is None else str(row[0])


def _uri(file: Path, *, read_only: bool) -> str:
    uri = file.resolve().as_uri()
    if not read_only:
        return f"{uri}?mode=rw"
    log = file.with_name(file.name + "-wal")
    # Without write permission SQLite cannot make the shared-memory file that reading beside a writer needs. With no
    # log there is no writer either, and the file may be read as it lies.
    pending = log.exists() and log.stat().st_size > 0
    return f"{uri}?mode=ro" if pending else f"{uri}?mode=ro&immutable=1"


def _compact_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _translated(error: Exception, file: Path) -> StoreError:
    text = str(getattr(error, "orig", None) or error)
    lowered = text.lower()
    if "malformed" in lowered or "not a database" in lowered:
        return CorruptionError(f"{file} is damaged ({text}); restore a backup or delete the store and index again.")
    if "locked" in lowered:
        return StoreError(
            f"{file} stayed locked for {_BUSY_SECONDS:.0f} seconds; end the other process that is using it."
        )
    if "full" in lowered:
        return StoreError(f"The disk that holds {file} is full; free some space and run again.")
    if "unable to open" in lowered or "readonly" in lowered:
        return StoreError(f"{file} cannot be opened ({text}); check its permissions.")
    return StoreError(f"{file} cannot be used: {text}.")

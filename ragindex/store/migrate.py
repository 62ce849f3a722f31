"""Creates, upgrades and backs up the catalogue's file; the only module that imports Alembic."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from ragindex.errors import StoreError
from ragindex.resources import resource
from ragindex.store.database import FILE_NAME, HEAD, Database, schema_version

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["backup", "create", "current", "upgrade"]


def create(directory: Path) -> None:
    """Make an empty catalogue in `directory`, all at once: a half-made file is never seen, the first of two
    creators wins.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        draft = directory / f".{FILE_NAME}.{os.getpid()}"
        draft.unlink(missing_ok=True)
        draft.touch()
    except OSError as error:
        raise StoreError(f"{directory} cannot be written: {error.strerror}.") from error
    try:
        _to_head(draft)
        with contextlib.suppress(FileExistsError):
            os.link(draft, directory / FILE_NAME)
    finally:
        for suffix in ("", "-wal", "-shm"):
            draft.with_name(draft.name + suffix).unlink(missing_ok=True)


def current(directory: Path) -> str:
    """The schema version of the store. Raises StoreError where there is no store."""
    database = Database(_existing(directory), check_schema=False)
    try:
        return schema_version(database)
    finally:
        database.close()


def upgrade(directory: Path) -> Path | None:
    """Bring an older store to this program's schema, under the writer's lease.

    Returns the backup that was made first, `catalog.sqlite.bak-<old version>`, or None when there was nothing to do.
    Raises SchemaError for a store of a newer ragindex.
    """
    version = current(directory)
    if version >= HEAD:
        Database(directory / FILE_NAME).close()
        return None
    copy = backup(directory, directory / f"{FILE_NAME}.bak-{version}")
    _to_head(directory / FILE_NAME)
    return copy


def backup(directory: Path, target: Path) -> Path:
    """Copy the catalogue to the file `target` while others may read and write it. Returns `target`."""
    source = _existing(directory)
    draft = target.with_name(target.name + ".part")
    try:
        draft.unlink(missing_ok=True)
        with (
            contextlib.closing(sqlite3.connect(source)) as reader,
            contextlib.closing(sqlite3.connect(draft)) as writer,
        ):
            reader.backup(writer)
            # A single self-contained file is what one wants of a backup.
            writer.execute("PRAGMA journal_mode = DELETE")
        draft.replace(target)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"The backup to {target} failed: {error}.") from error
    return target


def configuration(database: Database) -> Config:
    """Alembic's settings; `migrations/env.py` takes the engine from `attributes`."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resource("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["database"] = database
    return config


def _to_head(file: Path) -> None:
    from alembic import command

    database = Database(file, check_schema=False)
    try:
        command.upgrade(configuration(database), "head")
    finally:
        database.close()


def _existing(directory: Path) -> Path:
    file = directory / FILE_NAME
    if not file.is_file():
        raise StoreError(f"There is no store in {directory}; `ragindex index PATH` makes one.")
    return file

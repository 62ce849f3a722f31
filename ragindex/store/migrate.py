"""Creates, upgrades, downgrades and backs up the catalogue's file; the only module that imports Alembic.

A change of schema is one transaction, made under the leases and after a backup. Whatever stops it, the store is either
as it was or as it should become.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragindex.errors import SchemaError, StoreError, UsageError
from ragindex.resources import resource
from ragindex.store.database import BACKUP, FILE_NAME, HEAD, Database, schema_version
from ragindex.store.lease import PromotionLease, WriterLease

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["backup", "configuration", "create", "current", "downgrade", "upgrade"]


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
        _run(draft, lambda settings: _command().upgrade(settings, "head"))
        with contextlib.suppress(FileExistsError):
            os.link(draft, directory / FILE_NAME)
    finally:
        _discard(draft)


def current(directory: Path) -> str:
    """The schema version of the store. Raises StoreError where there is no store."""
    database = Database(_existing(directory), check_schema=False)
    try:
        return schema_version(database)
    finally:
        database.close()


def upgrade(directory: Path) -> Path | None:
    """Bring an older store to this program's schema.

    Returns the backup that was made first, `catalog.sqlite.bak-<old version>` (a number is added rather than an older
    one replaced), or None when there was nothing to do. Raises SchemaError for a store of a newer ragindex,
    StoreLockedError while another process writes, StoreError where there is no room for the backup or the upgrade
    fails; the store is as it was then.
    """
    if current(directory) >= HEAD:
        Database(directory / FILE_NAME).close()
        return None
    return _change(directory, HEAD, lambda settings: _command().upgrade(settings, "head"))


def downgrade(directory: Path, version: str) -> Path | None:
    """Take a store back to the schema of an older program, keeping everything that it can hold. This program cannot
    open it then.

    Returns and raises what `upgrade` does, and UsageError for a version that is not an older one.
    """
    from alembic.script import ScriptDirectory

    found = current(directory)
    known = sorted(script.revision for script in ScriptDirectory(str(resource("migrations"))).walk_revisions())
    if version not in known or version > found:
        below = ", ".join(one for one in known if one < found) or "none"
        raise UsageError(f"The schema {found} cannot be taken back to {version!r}; older ones: {below}.")
    if version == found:
        return None
    return _change(directory, version, lambda settings: _command().downgrade(settings, version))


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
        _sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"The backup to {target} failed: {error}.") from error
    finally:
        _discard(draft)
    return target


def configuration(database: Database) -> Config:
    """Alembic's settings; `migrations/env.py` takes the engine from `attributes`."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(resource("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["database"] = database
    return config


def _change(directory: Path, version: str, command: Callable[[Config], None]) -> Path | None:
    """Run a command of Alembic's under the leases, after a backup. None when another process was faster."""
    why = f"db: schema {version}"
    with PromotionLease(directory, command=why), WriterLease(directory, command=why):
        before = current(directory)
        if before == version:
            return None
        copy = backup(directory, _free_name(directory, before))
        try:
            _run(directory / FILE_NAME, command)
            after = current(directory)
        except Exception as error:
            raise StoreError(
                f"The schema could not be changed from {before} to {version} ({error}); the store is as it was, "
                f"and a backup is in {copy}."
            ) from error
        if after != version:
            raise SchemaError(f"The store has the schema {after} instead of {version}; a backup is in {copy}.")
    return copy


def _free_name(directory: Path, version: str) -> Path:
    """Where the backup goes. Raises StoreError when the disk has no room for it."""
    files = [directory / f"{FILE_NAME}{suffix}" for suffix in ("", "-wal")]
    needed = sum(file.stat().st_size for file in files if file.exists())
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise StoreError(
            f"The backup of {directory / FILE_NAME} needs {needed / 1e6:,.0f} MB and the disk has {free / 1e6:,.0f} MB "
            "free; make room and run again, nothing was changed."
        )
    plain = directory / f"{BACKUP}{version}"
    numbered = (plain.with_name(f"{plain.name}.{number}") for number in count(2))
    return next(name for name in chain([plain], numbered) if not name.exists())


def _run(file: Path, command: Callable[[Config], None]) -> None:
    database = Database(file, check_schema=False)
    try:
        command(configuration(database))
    finally:
        database.close()


def _command() -> Any:
    from alembic import command

    return command


def _existing(directory: Path) -> Path:
    file = directory / FILE_NAME
    if not file.is_file():
        raise StoreError(f"There is no store in {directory}; `ragindex index PATH` makes one.")
    return file


def _discard(draft: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        draft.with_name(draft.name + suffix).unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

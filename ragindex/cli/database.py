"""`db`: the catalogue's schema version and copies of it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from ragindex.cli.options import debug_option, json_option, locate, store_option
from ragindex.cli.terminal import emit, emit_json
from ragindex.errors import UsageError

__all__ = ["db"]


@click.group()
@store_option
@debug_option
def db() -> None:
    """Upgrade or back up the catalogue."""


@db.command(short_help="Show the schema version.")
@store_option
@debug_option
@json_option
@click.pass_context
def current(ctx: click.Context, *, as_json: bool) -> None:
    """Show the schema version of the store and of this program."""
    from ragindex.store.database import HEAD
    from ragindex.store.migrate import current as schema_of

    found = schema_of(locate(ctx))
    if as_json:
        emit_json({"current": found, "head": HEAD})
    elif found == HEAD:
        emit(f"Schema {found}: up to date.")
    else:
        fix = "run `ragindex db upgrade`" if found < HEAD else "upgrade ragindex"
        emit(f"Schema {found}, this program uses {HEAD}: {fix}.")


@db.command(short_help="Bring the store to this program's schema.")
@store_option
@debug_option
@json_option
@click.pass_context
def upgrade(ctx: click.Context, *, as_json: bool) -> None:
    """Bring the store to this program's schema; a backup is made first."""
    from ragindex.store.migrate import current as schema_of
    from ragindex.store.migrate import upgrade as upgrade_store

    store = locate(ctx)
    copy = upgrade_store(store)
    version = schema_of(store)
    if as_json:
        emit_json({"current": version, "backup": None if copy is None else str(copy)})
    elif copy is None:
        emit(f"Schema {version}: nothing to do.")
    else:
        emit(f"Upgraded to schema {version}; the state before is in {copy}.")


@db.command(short_help="Copy the catalogue to a file.")
@click.argument("target", metavar="[TARGET]", required=False, type=click.Path(path_type=Path))
@store_option
@debug_option
@json_option
@click.pass_context
def backup(ctx: click.Context, *, target: Path | None, as_json: bool) -> None:
    """Copy the catalogue, from which everything else can be made again, to the file TARGET.

    Without TARGET, or when it is a folder, the copy gets a name with the time in it. Safe while others write.
    """
    from ragindex.store.migrate import backup as backup_store

    store = locate(ctx)
    file = target or store
    if file.is_dir():
        file /= f"catalog-{datetime.now().astimezone():%Y%m%d-%H%M%S}.sqlite"
    if file.exists():
        raise UsageError(f"{file} exists; choose another name for the backup.")
    copy = backup_store(store, file)
    if as_json:
        emit_json({"backup": str(copy), "bytes": copy.stat().st_size})
    else:
        emit(f"Backed up to {copy}.")

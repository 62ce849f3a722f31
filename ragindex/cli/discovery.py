"""Finds the store a command works on: --store, RAGINDEX_STORE, or the nearest `.ragindex/` upward, like git."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ragindex.errors import UsageError

__all__ = ["STORE_NAME", "existing_store", "find_store", "is_store"]

STORE_NAME = ".ragindex"
_CATALOG = "catalog.sqlite"  # ragindex.store.database.FILE_NAME, which would bring SQLAlchemy along


def find_store(flag: Path | None, environment: Mapping[str, str], start: Path) -> Path | None:
    """The store directory that `flag` or the environment names (it need not exist), else the nearest one upward.

    None when nothing is named and there is none. `start` is an absolute folder.
    """
    named = flag or (Path(environment["RAGINDEX_STORE"]) if environment.get("RAGINDEX_STORE") else None)
    if named is not None:
        return start / named.expanduser()
    for folder in (start, *start.parents):
        if (folder / STORE_NAME).is_dir():
            return folder / STORE_NAME
    return None


def is_store(folder: Path) -> bool:
    """Whether a catalogue lies in `folder`."""
    return (folder / _CATALOG).is_file()


def existing_store(flag: Path | None, environment: Mapping[str, str], start: Path) -> Path:
    """Like `find_store`, but the store must exist. Raises UsageError saying how to make one."""
    store = find_store(flag, environment, start)
    if store is None:
        raise UsageError("No store found here or above; make one with `ragindex index PATH`.")
    if not is_store(store):
        if is_store(store / STORE_NAME):
            raise UsageError(f"{store} is not a store but holds one; use `--store {store / STORE_NAME}`.")
        raise UsageError(f"There is no store in {store}; make one with `ragindex index PATH --store {store}`.")
    return store

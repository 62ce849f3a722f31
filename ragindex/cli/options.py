"""Options that several commands share, and the one way in which a command opens its store."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ragindex.cli.discovery import STORE_NAME, existing_store, find_store
from ragindex.config import Settings, load_settings

if TYPE_CHECKING:
    from ragindex.index import Index

__all__ = [
    "MODES",
    "collection_option",
    "debug_option",
    "debugging",
    "filter_option",
    "instruction_option",
    "json_option",
    "locate",
    "locate_or_new",
    "open_index",
    "settings_for",
    "store_given",
    "store_option",
]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

MODES = ("hybrid", "dense", "lexical")
_STORE_KEY = "ragindex.store"
_DEBUG_KEY = "ragindex.debug"


def _remember_store(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:  # `ctx.meta` is shared by a group and its commands, so the option may stand before or after
        ctx.meta[_STORE_KEY] = value


def _remember_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_DEBUG_KEY] = True


store_option = click.option(
    "--store",
    metavar="DIR",
    type=click.Path(path_type=Path),
    expose_value=False,
    callback=_remember_store,
    help="The store to use instead of the nearest .ragindex from here upward (also: RAGINDEX_STORE).",
)
debug_option = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_remember_debug,
    help="Show a traceback when something goes wrong.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON value on stdout.")
filter_option = click.option(
    "--filter",
    "filter_text",
    metavar="EXPR",
    help="""Search only documents that match, for example "path like 'ops/%' and size < 10000".""",
)
instruction_option = click.option(
    "--instruction", metavar="TEXT", help="What the encoder is told about the query; '' for nothing."
)
_collection = click.option(
    "--collection", metavar="NAME", default="default", show_default=True, help="The collection within the store."
)


def collection_option(function: Decorated) -> Decorated:
    """--collection, --store and --debug: what every command on a store takes."""
    return _collection(store_option(debug_option(function)))


def debugging(ctx: click.Context) -> bool:
    """Whether --debug was given, before or after the command."""
    return bool(ctx.meta.get(_DEBUG_KEY))


def store_given(ctx: click.Context) -> bool:
    """Whether --store was given, before or after the command."""
    return _STORE_KEY in ctx.meta


def locate(ctx: click.Context) -> Path:
    """The store directory to use. Raises UsageError when there is none."""
    return existing_store(ctx.meta.get(_STORE_KEY), os.environ, Path.cwd())


def locate_or_new(ctx: click.Context) -> Path:
    """The store directory to use, or where one should be made."""
    return find_store(ctx.meta.get(_STORE_KEY), os.environ, Path.cwd()) or Path.cwd() / STORE_NAME


def settings_for(store: Path, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings of the folder that holds `store`, under the environment and `overrides`."""
    return load_settings(store.absolute().parent, os.environ, overrides)


def open_index(ctx: click.Context, *, collection: str) -> Index:
    """Open the store that exists for reading and upkeep. Raises UsageError when there is none."""
    store = locate(ctx)
    from ragindex.index import Index  # takes half a second to import, which an error need not wait for

    return Index.open(store, collection=collection, create=False, settings=settings_for(store))

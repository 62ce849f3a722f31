"""`serve`: a store over HTTP, with its search page."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from ragindex.cli.options import collection_option, json_option, locate, settings_for
from ragindex.cli.terminal import emit, emit_json, note
from ragindex.cli.tokens import read_token

__all__ = ["serve"]

_PORT = 8420
_TOKEN = "RAGINDEX_SERVE_TOKEN"  # noqa: S105 - the name of a variable


@click.command(short_help="Serve the store over HTTP, with a search page.")
@click.option("--host", metavar="HOST", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65_535),
    default=_PORT,
    show_default=True,
    help="The port to listen on; 0 takes a free one.",
)
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help=f"Ask every request for the token in this file (also: {_TOKEN}).",
)
@click.option(
    "--allow-host",
    "hosts",
    metavar="NAME",
    multiple=True,
    help="A further name that the server goes by, for example behind a proxy; may be repeated.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    help="How long an answer may take.",
)
@click.option(
    "--queue",
    metavar="N",
    type=click.IntRange(min=0),
    default=128,
    show_default=True,
    help="How many requests may wait; further ones are told to come again.",
)
@collection_option
@json_option
@click.pass_context
def serve(
    ctx: click.Context,
    *,
    host: str,
    port: int,
    token_file: Path | None,
    hosts: tuple[str, ...],
    timeout: float,
    queue: int,
    collection: str,
    as_json: bool,
) -> None:
    """Serve the store at http://127.0.0.1:8420/: a search page, a JSON API, and embeddings under OpenAI's interface.

    Only this machine reaches it, unless --host says otherwise; then a token is required. Ctrl-C ends it after what
    runs is answered. With --json, the address is printed as JSON once the server answers.
    """
    from ragindex import server
    from ragindex.listening import address_of, is_loopback, listen

    store = locate(ctx)
    limits = replace(server.Limits(), seconds=timeout, waiting=queue, running=_workers())
    access = server.Access(
        token=read_token(token_file, _TOKEN),
        loopback=is_loopback(host),
        hosts=frozenset(map(server.host_name, hosts)) | {host.lower()},
    )
    library = server.Library(store, default=collection, settings=settings_for(store))
    sock = listen(host, port)
    url = f"{address_of(host, sock.getsockname()[1])}/"

    def ready() -> None:
        if as_json:
            emit_json({"url": url, "store": str(library.store), "token_required": access.token is not None})
        else:
            emit(f"Serving {library.store} at {url} (Ctrl-C ends it)")
        sys.stdout.flush()

    server.serve(server.create_app(library, access=access, limits=limits), sock, limits=limits, ready=ready)
    note("Stopped.")


def _workers() -> int:
    """Searches spend half of their time outside of Python, so two of them keep a core busy."""
    return max(4, 2 * (os.cpu_count() or 1))

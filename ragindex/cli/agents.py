"""`mcp`: a store for agents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ragindex.cli.options import collection_option, json_option, open_index
from ragindex.cli.terminal import emit_json, note, note_interrupt
from ragindex.cli.tokens import read_token

if TYPE_CHECKING:
    from ragindex.index import Index

__all__ = ["mcp"]

_PORT = 8421
_TOKEN = "RAGINDEX_MCP_TOKEN"  # noqa: S105 - the name of a variable
_HTTP_ONLY = ("host", "port", "token_file", "names", "as_json")


@click.command(short_help="Serve the store to agents (Model Context Protocol).")
@click.option("--http", "over_http", is_flag=True, help="Serve over HTTP instead of standard input and output.")
@click.option("--host", metavar="HOST", default="127.0.0.1", show_default=True, help="With --http: where to listen.")
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65_535),
    default=_PORT,
    show_default=True,
    help="With --http: the port to listen on; 0 takes a free one.",
)
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help=f"With --http: ask for the token in this file (also: {_TOKEN}).",
)
@click.option(
    "--allow-host",
    "names",
    metavar="NAME",
    multiple=True,
    help="With --http: a further name that clients reach it by; may be repeated.",
)
@click.option(
    "--link-base",
    metavar="URL",
    help="Link results below this address instead of to files, for example https://wiki.example/docs/.",
)
@collection_option
@json_option
@click.pass_context
def mcp(
    ctx: click.Context,
    *,
    over_http: bool,
    host: str,
    port: int,
    token_file: Path | None,
    names: tuple[str, ...],
    link_base: str | None,
    collection: str,
    as_json: bool,
) -> None:
    """Serve the store to agents with the tools search, fetch, status and why_not.

    On standard input and output, a client such as an editor starts this command itself and ends it; standard output
    belongs to the protocol. With --http it serves http://127.0.0.1:8421/mcp until Ctrl-C; only this machine reaches
    it, unless --host says otherwise; then a token is required. With --json, the address is printed as JSON once the
    server answers.
    """
    given = [name for name in _HTTP_ONLY if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    if given and not over_http:
        option = next(parameter.opts[0] for parameter in ctx.command.params if parameter.name == given[0])
        raise click.UsageError(f"{option} is for a server over HTTP; add --http.")
    if link_base is not None and not link_base.startswith(("http://", "https://")):
        raise click.UsageError("--link-base must begin with http:// or https://.")
    with open_index(ctx, collection=collection) as index:
        if over_http:
            _serve_http(index, host, port, read_token(token_file, _TOKEN), names, link_base=link_base, as_json=as_json)
        else:
            _serve_stdio(index, link_base)


def _serve_stdio(index: Index, link_base: str | None) -> None:
    from ragindex import mcp_server
    from ragindex.mcp_server.links import Links

    library = mcp_server.Library(index, links=Links(site=link_base, base=index.base))
    server = mcp_server.create_server(library)
    if sys.stdin.isatty():
        note("Serving the Model Context Protocol on standard input and output, for a client; Ctrl-C ends it.")
    try:
        mcp_server.serve_stdio(server)
    except KeyboardInterrupt:
        note_interrupt("Stopped.")


def _serve_http(
    index: Index,
    host: str,
    port: int,
    token: str | None,
    names: tuple[str, ...],
    *,
    link_base: str | None,
    as_json: bool,
) -> None:
    from ragindex import mcp_server
    from ragindex.listening import is_loopback
    from ragindex.mcp_server.links import Links

    access = mcp_server.Access(host=host, names=names, token=token)
    base = index.base if is_loopback(host) else None  # elsewhere, links to files lead nowhere
    library = mcp_server.Library(index, links=Links(site=link_base, base=base))
    server = mcp_server.HttpServer(mcp_server.create_server(library), access=access, port=port)

    def ready() -> None:
        if as_json:
            emit_json({"url": server.url, "store": str(index.store), "token_required": token is not None})
            sys.stdout.flush()
        else:
            note(f"Serving {index.store} at {server.url} (Ctrl-C ends it)")

    server.run(ready=ready)
    note_interrupt("Stopped.")

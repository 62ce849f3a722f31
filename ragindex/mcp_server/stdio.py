"""The server on standard input and output: one client, which started this process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, cast

import anyio
import anyio.lowlevel
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

__all__ = ["serve_stdio"]

_INPUT = 0  # the descriptor
_READ = 65_536  # bytes at a time


def serve_stdio(server: Server[Any]) -> None:
    """Serve until standard input ends; raises KeyboardInterrupt on Ctrl-C. While it lasts, whatever else is printed
    goes to standard error, and whoever else reads standard input finds it empty.
    """
    with _claimed_input() as descriptor:
        anyio.run(_serve, server, descriptor)


async def _serve(server: Server[Any], descriptor: int) -> None:
    # The transport would read in a thread, and a thread that waits for a line cannot be told to stop: Ctrl-C would
    # hang until the client says something. It asks of its input no more than that it be iterated over.
    lines = cast("anyio.AsyncFile[str]", _lines(descriptor))
    async with stdio_server(stdin=lines) as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


async def _lines(descriptor: int) -> AsyncIterator[str]:
    rest: list[bytes] = []
    while True:
        try:
            await anyio.wait_readable(descriptor)
        except PermissionError:  # a regular file cannot be waited for: it is always readable
            await anyio.lowlevel.checkpoint()
        read = os.read(descriptor, _READ)
        *whole, last = read.split(b"\n")
        for line in whole:
            yield (b"".join(rest) + line).decode("utf-8", "replace")
            rest.clear()
        rest.append(last)
        if not read:
            break
    if any(rest):
        yield b"".join(rest).decode("utf-8", "replace")


@contextmanager
def _claimed_input() -> Iterator[int]:
    own = os.dup(_INPUT)
    try:
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, _INPUT)
        os.close(empty)
        yield own
    finally:
        os.dup2(own, _INPUT)
        os.close(own)

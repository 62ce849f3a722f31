"""A server's life: ready, the signals that end it, and the end in good order."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from ragindex.listening.graceful import GracefulServer, configured
from ragindex.server.limits import Limits

__all__ = ["serve", "server"]

_CONNECTIONS_PER_PLACE = 8  # open connections for each request that may be inside


def serve(
    app: FastAPI, sock: socket.socket, *, limits: Limits | None = None, ready: Callable[[], None] | None = None
) -> None:
    """Serve until SIGINT or SIGTERM, then finish what runs and return; a second SIGINT leaves it unanswered.

    `ready` is called once the server answers. From the signal on nobody can connect, and idle connections are closed.
    """
    with sock:
        server(app, limits=limits, ready=ready).run(sockets=[sock])


def server(app: FastAPI, *, limits: Limits | None = None, ready: Callable[[], None] | None = None) -> uvicorn.Server:
    """The server that `serve` runs; whoever runs it elsewhere than in the main thread ends it by `should_exit`."""
    limits = limits or Limits()
    connections = _CONNECTIONS_PER_PLACE * limits.admitted
    return GracefulServer(configured(app, connections=connections, patience=int(limits.seconds) + 1), ready=ready)

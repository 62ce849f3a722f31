"""A server's life: the socket it listens on, ready, the signals that end it, and the end in good order."""

from __future__ import annotations

import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from ragindex.errors import UsageError
from ragindex.server.limits import Limits

__all__ = ["Address", "is_loopback", "listen", "serve", "server"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_BACKLOG = 512
_CONNECTIONS_PER_PLACE = 8  # open connections for each request that may be inside


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The page's address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there. Raises UsageError for an unknown name."""
    return ipaddress.ip_address(_resolved(host, 0)[1][0]).is_loopback


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises UsageError when the address cannot be had."""
    family, address = _resolved(host, port)
    # Of a socket that does not name its protocol asyncio does not know that it is TCP, and leaves Nagle's algorithm on:
    # every answer would wait 40 ms for an acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address[0], port))
        sock.listen(_BACKLOG)
        return sock
    except OSError as error:
        sock.close()
        raise UsageError(
            f"{Address(host, port).url} cannot be listened on ({error.strerror or error}); choose another --port or "
            "end what uses it."
        ) from error


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
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="on",
        ws="none",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS_PER_PLACE * limits.admitted,
        timeout_graceful_shutdown=int(limits.seconds) + 1,
    )
    return _Server(config, ready=ready or _nothing)


class _Server(uvicorn.Server):
    """uvicorn's server, except that a signal ends it and is not raised once more afterwards: it has been obeyed."""

    def __init__(self, config: uvicorn.Config, *, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
            yield
            return
        previous = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{host!r} is no name or address of this machine.") from error
    return family, (str(address[0]), int(address[1]))


def _nothing() -> None:
    """Nobody wants to know."""

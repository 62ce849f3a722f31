"""The socket that a server listens on, and who reaches it there."""

from __future__ import annotations

import ipaddress
import socket

from ragindex.errors import UsageError

__all__ = ["address_of", "is_loopback", "listen"]

_BACKLOG = 512


def address_of(host: str, port: int) -> str:
    """The URL of a server, without a path."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there. Raises UsageError for an unknown name."""
    return ipaddress.ip_address(_resolved(host, 0)[1]).is_loopback


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises UsageError when the address cannot be had."""
    family, address = _resolved(host, port)
    # Of a socket that does not name its protocol asyncio does not know that it is TCP, and leaves Nagle's algorithm on:
    # every answer would wait 40 ms for an acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(_BACKLOG)
        return sock
    except OSError as error:
        sock.close()
        raise UsageError(
            f"{address_of(host, port)}/ cannot be listened on ({error.strerror or error}); choose another --port or "
            "end what uses it."
        ) from error


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, str]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"{host!r} is no name or address of this machine.") from error
    return family, str(address[0])

"""The server over streamable HTTP: the socket, who may ask, and the end in good order.

Requests stand alone (no sessions) and are answered with JSON, so nothing is kept between them. On loopback, requests
must be addressed to this machine and come from no other site's page, which keeps web pages out (DNS rebinding).
Elsewhere they must be addressed to a name that was allowed and bring a token.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp, Receive, Scope, Send

from ragindex.errors import UsageError
from ragindex.listening import address_of, is_loopback, listen
from ragindex.listening.graceful import GracefulServer, configured
from ragindex.mcp_server.limits import MAX_BODY, RUNNING

__all__ = ["PATH", "Access", "HttpServer"]

PATH = "/mcp"
_LOCAL = ("127.0.0.1", "localhost", "[::1]")
_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - to tell them from names
_MIN_TOKEN = 16  # characters
_CONNECTIONS = 16 * RUNNING
_PATIENCE = 10  # seconds that calls may still take once the server was told to end


@dataclass(frozen=True, slots=True)
class Access:
    """Where the server listens and who may ask it. `names`: further host names that it goes by; `token`: what requests
    must bring as `Authorization: Bearer …`.

    Raises UsageError for an address that others reach without a token, or without a name that they reach it by.
    """

    host: str = "127.0.0.1"
    names: Sequence[str] = ()
    token: str | None = None

    def __post_init__(self) -> None:
        if self.token is not None and (len(self.token) < _MIN_TOKEN or not self.token.isascii()):
            raise UsageError(
                f"The token must have at least {_MIN_TOKEN} ASCII characters; "
                "make one with `python -c 'import secrets; print(secrets.token_urlsafe(32))'`."
            )
        if is_loopback(self.host):
            return
        if self.token is None:
            raise UsageError(
                f"{self.host} can be reached by others, which needs a token; give --token-file FILE or set "
                "RAGINDEX_MCP_TOKEN."
            )
        if self.host in _EVERYWHERE and not self.names:
            raise UsageError(f"Say by which name or address clients reach {self.host}: --allow-host NAME.")

    def security(self) -> TransportSecuritySettings:
        """The Host and Origin headers that are accepted."""
        own = [] if self.host in _EVERYWHERE else [f"[{self.host}]" if ":" in self.host else self.host]
        local = _LOCAL if is_loopback(self.host) else ()
        hosts = [form for name in (*own, *local, *self.names) for form in (name, f"{name}:*")]
        origins = [f"http://{name}:*" for name in local]
        return TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=origins)


class HttpServer:
    """Listens from the moment it is made; `run` answers. Port 0 takes a free one.

    Raises UsageError when the address cannot be had.
    """

    def __init__(self, server: Server[Any], *, access: Access, port: int) -> None:
        app = server.streamable_http_app(
            streamable_http_path=PATH,
            json_response=True,
            stateless_http=True,
            max_request_body_size=MAX_BODY,
            transport_security=access.security(),
        )
        self._app: ASGIApp = app if access.token is None else _TokenGuard(app, access.token)
        self._socket = listen(access.host, port)
        self.url = f"{address_of(access.host, self._socket.getsockname()[1])}{PATH}"

    def run(self, *, ready: Callable[[], None] | None = None) -> None:
        """Answer until SIGINT or SIGTERM, let running calls end, and return. `ready` is called once it answers."""
        with self._socket:
            self.make(ready=ready).run(sockets=[self._socket])

    def make(self, *, ready: Callable[[], None] | None = None) -> uvicorn.Server:
        """What `run` runs; whoever runs it in another thread than the main one ends it by `should_exit`."""
        return GracefulServer(configured(self._app, connections=_CONNECTIONS, patience=_PATIENCE), ready=ready)


class _TokenGuard:
    """Lets requests with the token through; the others get 401."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._admits(scope):
            body = b"This server needs a token: Authorization: Bearer TOKEN.\n"
            headers = [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", str(len(body)).encode()),
                (b"www-authenticate", b'Bearer realm="ragindex"'),
            ]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await self._app(scope, receive, send)

    def _admits(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)

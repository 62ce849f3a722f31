"""Who may ask: host names (against DNS rebinding), origins (against other web pages), the token; and the headers that
bind a browser.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragindex.errors import UsageError
from ragindex.server.failures import Refusal, reply

__all__ = ["MIN_TOKEN", "OPEN_PATHS", "Access", "Guard", "host_name"]

MIN_TOKEN = 16  # characters
OPEN_PATHS = ("/", "/health")  # need no token: the page asks for it, a supervisor has none
OPEN_FOLDER = "/page/"

# Scripts and styles come from files of this server alone, nothing is ever parsed as HTML (trusted types), and no other
# page may frame, open or read this one.
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask. The default is a server that only this machine reaches.

    token: what a request must bring as `Authorization: Bearer …`; None asks for nothing and is for loopback alone.
    loopback: whether only this machine reaches the server. hosts: further names that it goes by, as `host_name` gives
    them.
    """

    token: str | None = None
    loopback: bool = True
    hosts: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.token is None and not self.loopback:
            raise UsageError(
                "A server that others can reach needs a token; give --token-file FILE or set RAGINDEX_SERVE_TOKEN."
            )
        if self.token is not None and not (
            len(self.token) >= MIN_TOKEN and self.token.isascii() and self.token.isprintable()
        ):
            raise UsageError(
                f"The token must have at least {MIN_TOKEN} printable ASCII characters; "
                "make one with `python -c 'import secrets; print(secrets.token_urlsafe(32))'`."
            )

    def knows(self, host: str) -> bool:
        """Whether a request to this Host is meant for us: a page elsewhere may have made its own name point here.

        An address is no name, so it cannot be made to point anywhere.
        """
        name = host_name(host)
        if name == "localhost" or name in self.hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self.loopback

    def admits(self, authorization: str | None) -> bool:
        """Whether the header brings the token; takes the same time wherever they differ."""
        if self.token is None:
            return True
        scheme, _, given = (authorization or "").partition(" ")
        return hmac.compare_digest(given.strip().encode(), self.token.encode()) and scheme.lower() == "bearer"


class Guard:
    """ASGI middleware: refuses requests that `access` does not allow, and adds the headers to every response."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a web socket: there are none
            await send({"type": "websocket.close", "code": 1003})
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = _refusal(self._access, scope["path"], Headers(scope=scope))
        await (self._app if refusal is None else reply(refusal))(scope, receive, sending)


def _refusal(access: Access, path: str, headers: Headers) -> Refusal | None:
    host = headers.get("host", "")
    if not access.knows(host):
        shown = host_name(host)[:100]
        return Refusal(
            403, f"This server does not go by the name {shown!r}; if it should, start it with --allow-host NAME."
        )
    origin = headers.get("origin")
    foreign = origin is not None and not _same(origin, host)
    # A browser says so too where it sends no Origin; being led here by a link is no harm.
    site, how = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
    if foreign or (site in ("cross-site", "same-site") and how != "navigate"):
        return Refusal(403, "A page of another site may not use this server.")
    is_open = path in OPEN_PATHS or path.startswith(OPEN_FOLDER)
    if not is_open and not access.admits(headers.get("authorization")):
        return Refusal(
            401,
            "This server wants its token, as the header `Authorization: Bearer TOKEN`.",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return None


def host_name(host: str) -> str:
    """The name or address in a Host header in lower case, without its port; empty where there is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _same(origin: str, host: str) -> bool:
    """Whether a page of this origin was served under this Host."""
    try:
        parts = urlsplit(origin)
        here = urlsplit(f"//{host}")
        standard = {"http": 80, "https": 443}.get(parts.scheme)
        return (
            standard is not None
            and parts.hostname is not None
            and parts.hostname == here.hostname
            and (parts.port or standard) == (here.port or standard)
        )
    except ValueError:
        return False

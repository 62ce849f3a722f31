"""Takes a request's body in, bounded in size and in time, before anything else looks at it."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragindex.server.failures import Refusal, reply
from ragindex.server.limits import Limits

__all__ = ["BodyLimit"]


class _Gone(Exception):  # noqa: N818
    """The client went away."""


class BodyLimit:
    """ASGI middleware: answers 413 and 408 itself; what it lets through has its whole body in memory."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                body = await self._read(Headers(scope=scope), receive)
        except Refusal as refusal:
            await reply(refusal)(scope, receive, send)
            return
        except TimeoutError:
            seconds = self._limits.body_seconds
            late = Refusal(408, f"The body did not arrive within {seconds:g} s.", headers={"Connection": "close"})
            await reply(late)(scope, receive, send)
            return
        except _Gone:
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replayed() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replayed, send)

    async def _read(self, headers: Headers, receive: Receive) -> bytes:
        told = headers.get("content-length", "")
        if told.isascii() and told.isdigit() and int(told) > self._limits.body_bytes:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            part = message.get("body", b"")
            size += len(part)
            if size > self._limits.body_bytes:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    def _too_large(self) -> Refusal:
        # The rest of the body is not read, so the connection is of no more use.
        limit = self._limits.body_bytes
        return Refusal(
            413, f"The body is larger than {limit:,} bytes; send it in parts.", headers={"Connection": "close"}
        )

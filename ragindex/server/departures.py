"""Stops working for a client that has gone: its place in the queue is for those who still wait."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["StopWhenGone"]


class StopWhenGone:
    """ASGI middleware for requests whose body is read already: cancels the answer when the client disconnects.

    What runs in a thread then ends by itself, but what only waits for a thread or a batch is never begun.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        first = await receive()
        gone = asyncio.ensure_future(receive())  # after the body, a disconnect is all that can come
        messages: list[Message] = [first]

        async def received() -> Message:
            return messages.pop() if messages else await asyncio.shield(gone)

        answer = asyncio.ensure_future(self._app(scope, received, send))
        try:
            await asyncio.wait({gone, answer}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                answer.cancel()
                await asyncio.wait({answer})
            if not answer.cancelled():
                answer.result()
        finally:
            gone.cancel()
            answer.cancel()

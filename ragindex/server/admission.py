"""Decides whether a request is let in: so many may be inside, and none of them longer than its time. Pure asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ragindex.server.failures import Refusal
from ragindex.server.limits import Limits

__all__ = ["Admission"]


class Admission:
    """Counts the requests that run or wait. Everything behind it is bounded because it is."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.inside = 0
        self.refused = 0

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """A place for one request. Raises Refusal 503 when all are taken, 504 when its time is over."""
        if self.inside >= self._limits.admitted:
            self.refused += 1
            raise Refusal(
                503,
                f"The server is busy with {self.inside} requests; try again in {self._limits.retry_seconds} s.",
                code="overloaded",
                headers={"Retry-After": str(self._limits.retry_seconds)},
            )
        self.inside += 1
        try:
            async with asyncio.timeout(self._limits.seconds) as deadline:
                yield
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise Refusal(
                504,
                f"The answer took longer than {self._limits.seconds:g} s; ask for less at once, or start the server "
                "with a longer --timeout.",
                code="timeout",
            ) from error
        finally:
            self.inside -= 1

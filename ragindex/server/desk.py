"""Where requests become calls of the library: admission first, encoding in batches, the rest in a pool of threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from ragindex.server.admission import Admission
from ragindex.server.batching import Batcher
from ragindex.server.failures import Refusal
from ragindex.server.limits import Limits
from ragindex.server.shelves import Library

__all__ = ["Desk", "Side", "Texts"]

Answer = TypeVar("Answer")
Side = Literal["query", "document"]


@dataclass(frozen=True, slots=True)
class Texts:
    """What kind of texts are encoded together. instruction: None is the encoder's default; queries only."""

    fingerprint: str
    side: Side
    instruction: str | None = None


@dataclass(frozen=True, slots=True)
class _Queries:
    """Which searches' queries are encoded together."""

    collection: str | None
    instruction: str | None


class Desk:
    """The shared state of a running server."""

    def __init__(self, library: Library, limits: Limits) -> None:
        self.shelves = library
        self.limits = limits
        self.admission = Admission(limits)
        self._pool = ThreadPoolExecutor(limits.running, thread_name_prefix="ragindex-serve")
        self._queries: Batcher[_Queries, str, None] = Batcher(self._prepare, most=limits.batch, name="queries")
        self._texts: Batcher[Texts, str, np.ndarray] = Batcher(self._encode, most=limits.batch, name="texts")
        self._closed = False

    @asynccontextmanager
    async def admitted(self) -> AsyncIterator[None]:
        """A place for one request until its time is over. Raises Refusal: 503 when all are taken, 504 after it."""
        async with self.admission.admitted():
            yield

    async def call(self, function: Callable[[], Answer]) -> Answer:
        """What the function returns, called in a thread. One that waits for a thread is dropped with its caller."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    async def prepare(self, query: str, *, collection: str | None, instruction: str | None) -> None:
        """Encode a query together with those that arrive meanwhile; the search for it finds its vector."""
        await self._queries.submit(_Queries(collection, instruction), [query])

    async def encode(self, texts: Sequence[str], *, kind: Texts) -> list[np.ndarray]:
        """Unit vectors (d,) of texts, encoded together with those of other requests."""
        return await self._texts.submit(kind, texts)

    async def close(self) -> None:
        """Wait for what runs, then let go of the store; harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        await self._queries.close()
        await self._texts.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.shelves.close()

    def _prepare(self, kind: _Queries, queries: list[str]) -> list[None]:
        self.shelves.index(kind.collection).prepare_queries(queries, instruction=kind.instruction)
        return [None] * len(queries)

    def _encode(self, kind: Texts, texts: list[str]) -> Sequence[np.ndarray]:
        encoder = self.shelves.index().encoder
        if encoder.fingerprint != kind.fingerprint:  # half of a request must not come from another encoder
            raise Refusal(503, "The store has just changed its encoder; ask again.", headers={"Retry-After": "0"})
        if kind.side == "query":
            return list(encoder.encode_queries(texts, instruction=kind.instruction))
        return list(encoder.encode_documents(texts))

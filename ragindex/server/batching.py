"""Puts together what arrives together: items of several callers, worked on as one batch. Pure asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

__all__ = ["Batcher"]

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")


class _Job(Generic[Key, Item, Result]):
    """What one caller waits for."""

    def __init__(self, key: Key, items: Sequence[Item], future: asyncio.Future[list[Result]]) -> None:
        self.key = key
        self.items = items
        self.future = future
        self.results: list[Result] = []

    def next(self, count: int) -> Sequence[Item]:
        """The items that come next, at most so many."""
        return self.items[len(self.results) : len(self.results) + count]


class Batcher(Generic[Key, Item, Result]):
    """Calls `work(key, items)` in a thread of its own for at most `most` items at a time.

    Nobody is made to wait so that a batch may grow: while one batch is worked on, the next one gathers. A caller with
    many items shares each batch with the others that want the same kind (`key`) of work, and kinds take turns. Where a
    batch of several callers fails, each one's part is tried alone, so that nobody fails for another's items. What a
    caller has given up (cancelled) is left out from the next batch on.
    """

    def __init__(self, work: Callable[[Key, list[Item]], Sequence[Result]], *, most: int, name: str) -> None:
        self._work = work
        self._most = most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"ragindex-{name}")
        self._jobs: deque[_Job[Key, Item, Result]] = deque()
        self._runner: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Callers whose items are not all done."""
        return len(self._jobs)

    async def submit(self, key: Key, items: Sequence[Item]) -> list[Result]:
        """The results in the order of the items. Raises what `work` raised for them."""
        if not items:
            return []
        job: _Job[Key, Item, Result] = _Job(key, items, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await job.future

    async def close(self) -> None:
        """Finish what was submitted, then end the thread."""
        if self._runner is not None:
            await self._runner
        self._thread.shutdown(wait=True)

    async def _run(self) -> None:
        while True:
            self._jobs = deque(job for job in self._jobs if not job.future.done())
            if not self._jobs:
                return
            key = self._jobs[0].key
            # No more callers than items: the others are at the front when their turn comes.
            mates = [job for job in self._jobs if job.key == key][: self._most]
            shares = _shared([len(job.items) - len(job.results) for job in mates], self._most)
            parts = [(job, job.next(share)) for job, share in zip(mates, shares, strict=True)]
            await self._work_on(key, parts)
            served = set(map(id, mates))
            self._jobs = deque(sorted(self._jobs, key=lambda job: id(job) in served))  # stable: the rest moves up

    async def _work_on(self, key: Key, parts: list[tuple[_Job[Key, Item, Result], Sequence[Item]]]) -> None:
        loop = asyncio.get_running_loop()
        items = [item for _, part in parts for item in part]
        try:
            results = await loop.run_in_executor(self._thread, self._work, key, items)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
            if len(parts) > 1:
                for alone in parts:
                    await self._work_on(key, [alone])
            elif not parts[0][0].future.done():
                parts[0][0].future.set_exception(error)
            return
        start = 0
        for job, part in parts:
            job.results.extend(results[start : start + len(part)])
            start += len(part)
            if len(job.results) == len(job.items) and not job.future.done():
                job.future.set_result(job.results)


def _shared(wanted: Sequence[int], room: int) -> list[int]:
    """`room` divided as evenly as the wishes allow; nobody gets more than wanted."""
    shares = [0] * len(wanted)
    left = room
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    for place, index in enumerate(order):
        shares[index] = min(wanted[index], left // (len(order) - place))
        left -= shares[index]
    return shares

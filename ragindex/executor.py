"""Executor: maps stages over batches; the seam behind which work may one day leave this process.

A stage is an object whose `__init__` loads what it needs and whose `__call__(batch)` works; results keep the order of
the batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

__all__ = ["Executor", "LocalExecutor"]

Given = TypeVar("Given")
Made = TypeVar("Made")


class Executor(Protocol):
    """Runs a stage over batches."""

    def map(
        self,
        stage: Callable[[Given], Made],
        batches: Iterable[Given],
        *,
        workers: int = 1,
        ahead: int = 2,
        cancel: Callable[[], None] | None = None,
    ) -> Generator[Made, None, None]:
        """Results in the order of `batches`, at most `workers + ahead` of them under way or waiting.

        Close it when not all of them are taken; `cancel` is then called, to make work under way give up.
        """


class LocalExecutor:
    """Threads of this process. Chained maps overlap: while one result is used, the next ones are made.

    Closing the iterator (or an error anywhere) cancels what has not begun and waits for what has.
    """

    def map(
        self,
        stage: Callable[[Given], Made],
        batches: Iterable[Given],
        *,
        workers: int = 1,
        ahead: int = 2,
        cancel: Callable[[], None] | None = None,
    ) -> Generator[Made, None, None]:
        """Results in the order of `batches`; memory is bounded by `workers + ahead` batches."""
        pool = ThreadPoolExecutor(workers, thread_name_prefix=type(stage).__name__)
        waiting: deque[Future[Made]] = deque()
        source = iter(batches)
        complete = False
        try:
            for batch in source:
                waiting.append(pool.submit(stage, batch))
                if len(waiting) >= workers + ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
            complete = True
        finally:
            if cancel is not None and not complete:
                cancel()
            pool.shutdown(wait=True, cancel_futures=True)
            close = getattr(source, "close", None)
            if close is not None:
                close()  # a chained map must stop too

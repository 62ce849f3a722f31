"""Repeats an index run whenever something changes on disk."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ragindex.errors import StoreLockedError
from ragindex.types import IndexReport

__all__ = ["watch"]


def watch(
    run: Callable[[], IndexReport], roots: Sequence[Path], *, store: Path, stop: threading.Event | None
) -> Iterator[IndexReport]:
    """See `Index.watch`. `run` is the index run over `roots`; changes below `store` are its own."""
    from watchfiles import watch as changes_below

    report = run()
    yield report
    failed = report.failed
    due = True  # the first round catches what changed between the first run and the beginning of the watch
    for changes in changes_below(
        *roots,
        watch_filter=lambda _, changed: not Path(changed).is_relative_to(store),
        stop_event=stop,
        raise_interrupt=True,
        rust_timeout=500,
        yield_on_timeout=True,
    ):
        due = due or bool(changes)
        if not due:
            continue
        try:
            report = run()
        except StoreLockedError:
            continue  # another process writes; the next round tries again
        due = False
        if report.added or report.updated or report.moved or report.deleted or report.failed != failed:
            yield report
        failed = report.failed

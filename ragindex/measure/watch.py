"""What a measurement tells of itself while it works."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from ragindex.ingest.progress import Progress, Silent

__all__ = ["Unwatched", "Watch", "counted"]

_Item = TypeVar("_Item")


class Watch(Protocol):
    """Receives the course of a measurement, stage by stage."""

    def stage(self, what: str, unit: str) -> Progress:
        """What is done next, and in what it is counted ("documents"); `start` gets their number."""

    def note(self, message: str) -> None:
        """Something about the data that the figures do not show."""


class Unwatched:
    """A Watch that shows nothing."""

    def stage(self, what: str, unit: str) -> Progress:  # noqa: ARG002
        """Nothing."""
        return Silent()

    def note(self, message: str) -> None:
        """Nothing."""


def counted(items: Iterable[_Item], total: int, progress: Progress) -> Iterator[_Item]:
    """The items, each reported when the next one is asked for."""
    with _running(progress, total):
        for item in items:
            yield item
            progress.advance(files=1)


@contextmanager
def _running(progress: Progress, total: int) -> Iterator[None]:
    progress.start(total)
    try:
        yield
    finally:
        progress.finish()

"""What an index run tells of itself while it works."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "Silent"]


class Progress(Protocol):
    """Receives the course of an index run, always from the thread that called `Index.add`."""

    def start(self, files: int) -> None:
        """The plan is made: so many files will be read."""

    def advance(self, *, files: int = 0, chunks: int = 0, tokens: int = 0) -> None:
        """So many more were committed (files), cut (chunks), embedded (tokens)."""

    def finish(self) -> None:
        """The run is over, or broke off."""


class Silent:
    """A Progress that shows nothing."""

    def start(self, files: int) -> None:
        """Nothing."""

    def advance(self, *, files: int = 0, chunks: int = 0, tokens: int = 0) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""

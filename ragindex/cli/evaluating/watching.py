"""Shows the course of a measurement on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ragindex.cli.progress import progress_bar
from ragindex.cli.terminal import note
from ragindex.ingest.progress import Silent

if TYPE_CHECKING:
    from ragindex.ingest.progress import Progress

__all__ = ["TerminalWatch"]


class TerminalWatch:
    """A Watch with a bar for each stage, where stderr is a terminal, and a line for each note."""

    def stage(self, what: str, unit: str) -> Progress:
        """The bar of a stage."""
        return progress_bar(what, unit=unit) or Silent()

    def note(self, message: str) -> None:
        """One line."""
        note(message)

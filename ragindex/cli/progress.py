"""A progress bar on stderr for runs that embed; only when stderr is a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragindex.ingest.progress import Progress

__all__ = ["progress_bar"]

_FILES = "{desc}{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} {unit}, {elapsed}<{remaining}{postfix}"
_CHUNKS = "{desc}{n_fmt} chunks, {elapsed}{postfix}"


def progress_bar(what: str = "", *, unit: str = "files") -> Progress | None:
    """What shows the course of a run, or None where nobody would see it; `what` stands before the bar."""
    return _Bar(what, unit) if sys.stderr.isatty() else None


class _Bar:
    """Counts files when their number is known (indexing), else chunks (embedding anew)."""

    def __init__(self, what: str, unit: str) -> None:
        self._what = what
        self._unit = unit
        self._bar: Any = None
        self._chunks = 0
        self._tokens = 0

    def start(self, files: int) -> None:
        """Show an empty bar; so many files will be read, 0: only chunks are counted."""
        from tqdm import tqdm

        self._chunks = self._tokens = 0
        self._bar = tqdm(
            total=files or None,
            desc=f"{self._what}: " if self._what else "",
            unit=self._unit,
            file=sys.stderr,
            leave=False,
            dynamic_ncols=True,
            bar_format=_FILES if files else _CHUNKS,
        )

    def advance(self, *, files: int = 0, chunks: int = 0, tokens: int = 0) -> None:
        """Move on; the rate is tokens over the time since `start`."""
        if self._bar is None:
            return
        self._chunks += chunks
        self._tokens += tokens
        elapsed = self._bar.format_dict["elapsed"]
        rate = f"{self._tokens / elapsed:,.0f} tokens/s" if elapsed > 0 else ""
        if self._bar.total is None:
            self._bar.set_postfix_str(rate, refresh=False)
            self._bar.update(chunks)
        else:
            embedded = f"{self._chunks:,} chunks, {rate}" if self._chunks else ""
            self._bar.set_postfix_str(embedded, refresh=False)
            self._bar.update(files)

    def finish(self) -> None:
        """Wipe the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

"""Plain text: kept exactly as decoded, cut into paragraphs at blank lines."""

from __future__ import annotations

from collections.abc import Sequence

from ragindex.loaders.decode import decode
from ragindex.loaders.draft import Cut, Draft, Source, blocks_between, check_length
from ragindex.types import BlockKind

__all__ = ["paragraph_cuts", "parse"]


def parse(source: Source) -> Draft:
    """Paragraphs without headings; the title of plain text is unknown."""
    decoded = decode(source.data)
    check_length(len(decoded.text), source.limits)
    lines = decoded.text.split("\n")
    blocks = blocks_between(lines, paragraph_cuts(lines))
    return Draft(decoded.text, blocks=blocks, metadata={"encoding": decoded.encoding})


def paragraph_cuts(lines: Sequence[str], kind: BlockKind = "prose") -> list[Cut]:
    """A cut at every line that follows a blank one."""
    cuts = []
    blank = True
    for number, line in enumerate(lines):
        empty = not line.strip()
        if blank and not empty:
            cuts.append(Cut(number, kind))
        blank = empty
    return cuts

"""What a parser is given and what it gives back: `Source` in, `Draft` out, and the builders of text with blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ragindex.config import Limits
from ragindex.errors import LoadError
from ragindex.types import Block, BlockKind, MetadataValue

__all__ = ["Cut", "Draft", "Outline", "Source", "TextBuilder", "blocks_between", "check_length", "line_starts", "span"]


@dataclass(frozen=True, slots=True)
class Source:
    """The bytes of one file. `name` is its last path component, `suffix` is lower-case and carries its dot."""

    data: bytes
    name: str
    suffix: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Draft:
    """A parsed file before the facts of the file system are added; the fields mean what they mean in `Document`."""

    text: str
    title: str = ""
    blocks: tuple[Block, ...] = ()
    page_starts: tuple[int, ...] = ()
    source_lines: tuple[int, ...] = ()
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cut:
    """A line (counted from 0) at which a new block begins."""

    line: int
    kind: BlockKind
    heading: tuple[str, ...] = ()


class Outline:
    """The path of headings that are open at one point of a document."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    @property
    def path(self) -> tuple[str, ...]:
        """The open headings, outermost first; untitled ones are left out."""
        return tuple(title for _, title in self._open if title)

    def close(self, level: int) -> tuple[str, ...]:
        """Close every heading of `level` or deeper and return the path that remains."""
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        return self.path

    def enter(self, level: int, title: str) -> tuple[str, ...]:
        """Open a heading; returns the path above it, which is what its own block carries."""
        above = self.close(level)
        self._open.append((level, title))
        return above


class TextBuilder:
    """Builds text out of blocks for formats that are not text themselves; spans are right by construction.

    Blocks are separated by an empty line unless they ask for less.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parts: list[str] = []
        self._length = 0
        self._blocks: list[Block] = []
        self._page_starts: list[int] = []
        self._source_lines: list[int] = []
        self._pending_page = False

    def page(self) -> None:
        """Begin a new page; it starts where the next block will start."""
        if self._parts:
            self._append("\n\n")
        self._page_starts.append(self._length)
        self._pending_page = True

    def add(
        self,
        text: str,
        kind: BlockKind = "prose",
        heading: tuple[str, ...] = (),
        *,
        lines: Sequence[int] = (),
        separator: str = "\n\n",
    ) -> None:
        """Append a block; empty lines around it and text that is only white space are dropped.

        lines: the source line of each line of `text`, which then must not begin with an empty line.
        """
        text = text.replace("\r\n", "\n").replace("\r", "\n").strip("\n").rstrip()
        if not text or text.isspace():
            return
        if self._parts and not self._pending_page:
            self._append(separator)
            # A separator of two line ends makes one empty line, which belongs to the block above it.
            self._source_lines.extend(self._source_lines[-1:] * (separator.count("\n") - 1))
        self._pending_page = False
        start = self._length
        self._append(text)
        check_length(self._length, self._limits)
        self._blocks.append(Block(start, self._length, kind, heading))
        self._source_lines.extend(lines[: text.count("\n") + 1])

    def extend(self, draft: Draft, heading: tuple[str, ...] = ()) -> None:
        """Append another draft's blocks under `heading`."""
        for block in draft.blocks:
            self.add(draft.text[block.start : block.end], block.kind, (*heading, *block.heading))

    def finish(self, *, title: str = "", metadata: Mapping[str, MetadataValue] | None = None) -> Draft:
        """The draft; the builder is not used afterwards."""
        text = "".join(self._parts)
        lines = tuple(self._source_lines)
        if len(lines) != text.count("\n") + 1:
            lines = ()
        return Draft(text, title, tuple(self._blocks), tuple(self._page_starts), lines, metadata or {})

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)


def check_length(characters: int, limits: Limits) -> None:
    """Raises LoadError when a text is longer than `limits.text_mb` million characters."""
    if characters > limits.text_mb * 1_000_000:
        raise LoadError(f"more than {limits.text_mb} million characters of text (limits.text_mb)")


def line_starts(lines: Sequence[str]) -> list[int]:
    """The position of each line's first character, and one entry more: the end of the text plus one."""
    starts = [0]
    position = 0
    for line in lines:
        position += len(line) + 1
        starts.append(position)
    return starts


def span(lines: Sequence[str], starts: Sequence[int], first: int, stop: int) -> tuple[int, int] | None:
    """Characters of lines `first` to `stop` (half-open) without blank lines at either end; None when all are blank."""
    while first < stop and not lines[first].strip():
        first += 1
    while stop > first and not lines[stop - 1].strip():
        stop -= 1
    return (starts[first], starts[stop] - 1) if first < stop else None


def blocks_between(lines: Sequence[str], cuts: Iterable[Cut]) -> tuple[Block, ...]:
    """Blocks that run from each cut to the next one; of two cuts at one line the later one counts."""
    starts = line_starts(lines)
    ordered = sorted({cut.line: cut for cut in cuts}.values(), key=lambda cut: cut.line)
    blocks = []
    for index, cut in enumerate(ordered):
        stop = ordered[index + 1].line if index + 1 < len(ordered) else len(lines)
        found = span(lines, starts, cut.line, stop)
        if found is not None:
            blocks.append(Block(found[0], found[1], cut.kind, cut.heading))
    return tuple(blocks)

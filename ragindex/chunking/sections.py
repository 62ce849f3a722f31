"""Groups the blocks of a document into sections whose text may share a chunk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from ragindex.types import Block, Document

__all__ = ["Section", "sections"]

_PARAGRAPH_GAP = re.compile(r"\n[^\S\n]*+\n\s*+")
_SMALL = 3  # a section below 1/3 of the room joins a relative beside it
_TINY = 8  # sections below 1/8 of the room join strangers

Heading = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """Consecutive blocks, never none, and the heading path that is true of them all."""

    heading: Heading
    blocks: tuple[Block, ...]

    @property
    def start(self) -> int:
        """Where the first block starts."""
        return self.blocks[0].start

    @property
    def end(self) -> int:
        """Where the last block ends."""
        return self.blocks[-1].end


def sections(document: Document, count: Callable[[int, int], int], room: Callable[[Heading], int]) -> list[Section]:
    """The document in sections, in order; together they hold every character that is not white space.

    `count` gives the tokens of a span, `room` the tokens that text under a heading path may have. A small section
    joins the one before it when both fit one chunk and share a heading; without a shared heading only tiny ones join.
    """
    result: list[Section] = []
    for section in _runs(_attached(list(_blocks(document)))):
        joined = _join(result[-1], section, count, room) if result else None
        if joined is None:
            result.append(section)
        else:
            result[-1] = joined
    return result


def _blocks(document: Document) -> Iterator[Block]:
    """The blocks, made disjoint and stripped; text that no block claims becomes prose."""
    given = document.blocks or (Block(0, len(document.text)),)
    position, heading = 0, given[0].heading
    for block in given:
        start, end = max(block.start, position), min(block.end, len(document.text))
        yield from _paragraphs(document.text, Block(position, start, "prose", heading))
        heading = block.heading
        if not document.blocks:
            yield from _paragraphs(document.text, block)
        elif stripped := _stripped(document.text, replace(block, start=start, end=end)):
            yield stripped
        position = max(position, end)
    yield from _paragraphs(document.text, Block(position, len(document.text), "prose", heading))


def _paragraphs(text: str, block: Block) -> Iterator[Block]:
    start = block.start
    for gap in _PARAGRAPH_GAP.finditer(text, block.start, block.end):
        if stripped := _stripped(text, replace(block, start=start, end=gap.start())):
            yield stripped
        start = gap.end()
    if stripped := _stripped(text, replace(block, start=start)):
        yield stripped


def _stripped(text: str, block: Block) -> Block | None:
    piece = text[block.start : block.end]
    start = block.start + len(piece) - len(piece.lstrip())
    end = block.start + len(piece.rstrip())
    return replace(block, start=start, end=end) if start < end else None


def _attached(blocks: list[Block]) -> list[Block]:
    """A heading belongs to what it heads, whether or not its loader counts it as part of its own path."""
    for index in range(len(blocks) - 2, -1, -1):
        below = blocks[index + 1].heading
        if blocks[index].kind == "heading" and below[: len(blocks[index].heading)] == blocks[index].heading:
            blocks[index] = replace(blocks[index], heading=below)
    return blocks


def _runs(blocks: Iterable[Block]) -> Iterator[Section]:
    run: list[Block] = []
    for block in blocks:
        if run and run[0].heading != block.heading:
            yield Section(run[0].heading, tuple(run))
            run = []
        run.append(block)
    if run:
        yield Section(run[0].heading, tuple(run))


def _join(
    left: Section, right: Section, count: Callable[[int, int], int], room: Callable[[Heading], int]
) -> Section | None:
    shared = _shared(left.heading, right.heading)
    available = room(shared)
    if count(left.start, right.end) > available:
        return None
    sizes = sorted((count(left.start, left.end), count(right.start, right.end)))
    small = sizes[0] * _SMALL < available if shared else sizes[1] * _TINY < available
    return Section(shared, left.blocks + right.blocks) if small else None


def _shared(left: Heading, right: Heading) -> Heading:
    length = 0
    while length < min(len(left), len(right)) and left[length] == right[length]:
        length += 1
    return left[:length]

"""Fills chunks: as much of a section as fits, cut where it hurts least, counted again before it is emitted."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from ragindex.chunking.boundaries import best_cut, nearest, sentence_ends, whole_character, word_ends
from ragindex.chunking.sections import Section, sections
from ragindex.chunking.tokens import TokenCounter, TokenMap
from ragindex.errors import UsageError
from ragindex.types import Block, Chunk, Document

__all__ = ["LEAST_ROOM", "ChunkOptions", "Overhead", "chunk"]

LEAST_ROOM = 8  # tokens of text in a chunk, however long its headings: enough for any single character
_BLOCK_FILL = 0.25  # a chunk this full may end at a block's end
_FILL = 0.5  # a chunk this full may end inside of a block
_BALANCE = 1.5  # what is left is halved below this many chunks, so that no last chunk is a scrap

Overhead = Callable[[str, tuple[str, ...]], int]


@dataclass(frozen=True, slots=True)
class ChunkOptions:
    """How large chunks are, in tokens of the encoder.

    budget: prompt, title, headings, text and special tokens of one chunk together; overlap: text that a chunk repeats
    from the one before it, in prose only.
    """

    budget: int
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.budget < 2 * LEAST_ROOM:
            raise UsageError(f"The chunk budget is {self.budget} tokens; it must be at least {2 * LEAST_ROOM}.")
        if not 0 <= self.overlap < self.budget // 2:
            raise UsageError(
                f"The overlap is {self.overlap} tokens; it must be from 0 to less than half of the budget."
            )


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int
    tokens: int


def chunk(document: Document, options: ChunkOptions, tokens: TokenCounter, overhead: Overhead) -> list[Chunk]:
    """Cut a document into chunks, in order.

    `overhead(title, heading)` is what prompt, title, headings and special tokens cost a chunk under that heading path.
    For every chunk `document.text[start:end] == text`, `text` has no white space around it, and overhead + the tokens
    of `text`, tokenised alone, are at most `options.budget` (where the overhead leaves fewer than `LEAST_ROOM` tokens,
    the text has at most these). Every character that is not white space lies in a chunk.

    Raises UsageError if a single character costs more than the room for text.
    """
    cost = cache(lambda heading: overhead(document.title, heading))

    def room(heading: tuple[str, ...]) -> int:
        return max(LEAST_ROOM, options.budget - cost(heading))

    estimate = TokenMap(document.text, tokens)
    chunks: list[Chunk] = []
    for section in sections(document, estimate.count, room):
        packer = _Packer(document.text, section, room(section.heading), options.overlap, tokens, estimate)
        for span in packer.spans():
            chunks.append(
                Chunk(
                    ordinal=len(chunks),
                    start=span.start,
                    end=span.end,
                    text=document.text[span.start : span.end],
                    heading=section.heading,
                    line_start=document.line_at(span.start),
                    line_end=document.line_at(span.end - 1),
                    page=document.page_at(span.start),
                    tokens=cost(section.heading) + span.tokens,
                )
            )
    return chunks


class _Packer:
    """Cuts one section. Positions are characters of the document, sizes estimated tokens unless they were counted."""

    def __init__(
        self, text: str, section: Section, room: int, overlap: int, tokens: TokenCounter, estimate: TokenMap
    ) -> None:
        self._text = text
        self._section = section
        self._room = room
        self._overlap = min(overlap, room // 4)  # long headings shrink the room; an overlap must not fill it
        self._tokens = tokens
        self._estimate = estimate
        self._starts = [block.start for block in section.blocks]
        # After a heading is no place to end a chunk.
        self._ends = [block.end for block in section.blocks if block.kind != "heading" or block is section.blocks[-1]]

    def spans(self) -> Iterator[_Span]:
        """The chunks of the section."""
        done = self._section.start  # everything before it has been emitted
        while done < self._section.end:
            start = self._overlap_start(done)
            span = self._fitting(start)
            if span.end <= done:  # the repeated text left no room for anything new
                span = self._fitting(done)
            yield span
            done = self._skip_space(span.end)

    def _skip_space(self, position: int) -> int:
        while position < self._section.end and self._text[position].isspace():
            position += 1
        return position

    def _fitting(self, start: int) -> _Span:
        """The longest good span from `start` whose text, tokenised alone, fits the room."""
        aim = self._room
        while aim > 0:
            end = self._end(start, aim)
            span = self._counted(start, end)
            if span.tokens <= self._room:
                return span
            aim = min(aim - 1, aim * self._room // span.tokens)
        end = self._estimate.advance(start, 1, self._section.end)
        while end > start + 1:
            end = max(start + 1, whole_character(self._text, start + (end - start) // 2, start))
            span = self._counted(start, end)
            if span.tokens <= self._room:
                return span
        raise UsageError(
            f"One character costs {span.tokens} tokens and chunks have room for {self._room}; raise the chunk size."
        )

    def _counted(self, start: int, end: int) -> _Span:
        text = self._text[start:end].rstrip()
        return _Span(start, start + len(text), len(self._tokens.offsets(text)))

    def _end(self, start: int, aim: int) -> int:
        """Where a span of about `aim` tokens from `start` should end."""
        last = self._section.end
        left = self._estimate.count(start, last)
        if left <= aim:
            return last
        high = max(start + 1, self._estimate.advance(start, aim, last))
        halve = left < _BALANCE * aim
        target = self._estimate.advance(start, (left + 1) // 2, high) if halve else high
        # When halving, the rest has to fit one more chunk, with what it repeats.
        rest = left + self._overlap - aim if halve else 0
        low = self._estimate.advance(start, max(rest, int(_BLOCK_FILL * aim)), high)
        ends = self._ends[bisect.bisect_right(self._ends, low) : bisect.bisect_right(self._ends, high)]
        if ends:
            return nearest(ends, target)
        block = self._block_at(target - 1)
        fill = max(rest, int((_BLOCK_FILL if halve else _FILL) * aim))
        low = max(block.start, self._estimate.advance(start, fill, high), start)
        return best_cut(self._text, block.kind, min(low, high - 1), target, high)

    def _block_at(self, position: int) -> Block:
        return self._section.blocks[max(0, bisect.bisect_right(self._starts, position) - 1)]

    def _overlap_start(self, done: int) -> int:
        """Where the chunk that continues at `done` starts: whole sentences before it if they fit, else whole words."""
        if not self._overlap or done == self._section.start:
            return done
        index = bisect.bisect_right(self._starts, done - 1) - 1
        following = self._block_at(done)
        floor = done
        while index >= 0:
            block = self._section.blocks[index]
            if block.kind != "prose" or block.heading != following.heading or following.kind != "prose":
                break
            floor = block.start
            if self._estimate.count(floor, done) > self._overlap:
                break
            index -= 1
        if floor == done:
            return done
        low = self._estimate.retreat(done, self._overlap, floor)
        if low == floor:
            return floor
        before = low
        while before > floor and self._text[before - 1].isspace():
            before -= 1
        for finder in (sentence_ends, word_ends):
            ends = finder(self._text, before - 1, done - 1)
            if ends and self._skip_space(ends[0]) < done:
                return self._skip_space(ends[0])
        return done

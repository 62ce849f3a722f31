"""Covers a text with windows that an encoder can read at once, so that spans of it can be pooled in their context.

A text that fits is one window. A longer one is covered by windows that overlap ("long late chunking" in
arXiv 2409.04701), and each span belongs to the one that shows most of what stands around it.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from ragindex.encoder.prompts import Prompts
from ragindex.errors import EncoderError, UsageError

__all__ = ["Span", "SpanPlan", "TokenCounter", "plan_spans"]

Span = tuple[int, int]  # characters from the first to before the last

_OVERLAP = 4  # a window begins this part of its room before the span that it is made for
_LONGEST_TOKEN = 16  # characters, on average and at the very most
_PIECE = 1 << 16  # characters tokenised at a time


@dataclass(frozen=True, slots=True)
class SpanPlan:
    """How spans of a text are embedded. windows: the parts of it that are read; homes: for each span, the place of the
    window that it is pooled from.
    """

    text: str
    title: str
    spans: Sequence[Span]
    windows: Sequence[Span]
    homes: Sequence[int]

    def only(self, places: Sequence[int]) -> SpanPlan:
        """The plan for some of the spans: their windows are the same, those of others are not read."""
        homes = [self.homes[place] for place in places]
        used = sorted(set(homes))
        return replace(
            self,
            spans=[self.spans[place] for place in places],
            windows=[self.windows[home] for home in used],
            homes=[bisect.bisect_left(used, home) for home in homes],
        )

    def members(self) -> list[list[int]]:
        """For each window the places of the spans that are pooled from it."""
        found: list[list[int]] = [[] for _ in self.windows]
        for place, home in enumerate(self.homes):
            found[home].append(place)
        return found


class TokenCounter(Protocol):
    """The encoder's tokenizer, as far as windows need it."""

    def offsets(self, text: str) -> np.ndarray:
        """The character span of each token of `text`, in order, without special tokens: int64 (n, 2)."""


def plan_spans(
    text: str, spans: Sequence[Span], *, title: str, prompts: Prompts, tokens: TokenCounter, limit: int
) -> SpanPlan:
    """The windows of at most `limit` tokens, prompt included, that `text` is read in.

    Spans may come in any order, overlap, and leave gaps. Raises UsageError for one that is empty or not in the text,
    EncoderError for one that no window can hold.
    """
    for start, end in spans:
        if not 0 <= start < end <= len(text):
            raise UsageError(f"There is no span from {start} to {end} in a text of {len(text)} characters.")
    ruler = _Ruler(text, title, prompts, tokens, limit)
    windows = _cover(ruler, spans)
    whole = SpanPlan(text, title, spans, windows, [_home(windows, span, len(text)) for span in spans])
    return whole.only(range(len(spans)))  # a window may have turned out to be nobody's


class _Ruler:
    """Measures a text in tokens: about, from where the tokens of the whole text begin, and exactly, by counting."""

    def __init__(self, text: str, title: str, prompts: Prompts, tokens: TokenCounter, limit: int) -> None:
        self.text = text
        self._title = title
        self._prompts = prompts
        self._tokens = tokens
        self._limit = limit
        self.room = max(1, limit - self._count(0, 0))

    def fits(self) -> bool:
        """Whether the whole text does; one that is far too long is not counted."""
        return len(self.text) <= _LONGEST_TOKEN * self._limit and self.excess(0, len(self.text)) <= 0

    def excess(self, start: int, end: int) -> int:
        """How many tokens an input with this part of the text is too long."""
        return self._count(start, end) - self._limit

    def after(self, start: int, tokens: int) -> int:
        """Where about so many tokens from `start` on end."""
        place = int(np.searchsorted(self._starts, start)) + tokens
        return max(start + 1, int(self._starts[place])) if place < len(self._starts) else len(self.text)

    def before(self, end: int, tokens: int) -> int:
        """Where about so many tokens that reach up to `end` begin."""
        if not tokens:
            return end
        place = int(np.searchsorted(self._starts, end)) - tokens
        return int(self._starts[place]) if place >= 0 else 0

    @cached_property
    def _starts(self) -> np.ndarray:
        """The character at which each token begins, int64 (n,); a piece at a time, which bounds what a call holds."""
        pieces, start = [], 0
        while start < len(self.text):
            end = _word_end(self.text, min(len(self.text), start + _PIECE), start + _PIECE // 2)
            pieces.append(self._tokens.offsets(self.text[start:end])[:, 0] + start)
            start = end
        return np.concatenate(pieces)

    def _count(self, start: int, end: int) -> int:
        prompted = self._prompts.for_document(self.text[start:end], self._title)
        return len(self._tokens.offsets(prompted.text))


def _cover(ruler: _Ruler, spans: Sequence[Span]) -> list[Span]:
    """Windows, ever further into the text, of which each span lies in one at least."""
    size = len(ruler.text)
    if ruler.fits():
        return [(0, size)]
    windows: list[Span] = []
    for span in sorted(spans):
        if not windows or span[1] > windows[-1][1]:
            windows.append(_window(ruler, span))
    return windows


def _window(ruler: _Ruler, span: Span) -> Span:
    """The window for a span and what follows: it begins some way before it and goes as far as there is room."""
    overlap = ruler.room // _OVERLAP
    while True:
        start = _word_start(ruler.text, ruler.before(span[0], overlap), span[0])
        end = max(span[1], _word_end(ruler.text, ruler.after(start, ruler.room), span[1]))
        while (excess := ruler.excess(start, end)) > 0 and end > span[1]:
            end = max(span[1], min(end - 1, _word_end(ruler.text, ruler.before(end, excess + 1), span[1])))
        if excess <= 0:
            return start, end
        if not overlap:
            raise EncoderError(
                f"A span of {span[1] - span[0]} characters is longer than this encoder's limit; cut it into chunks "
                "first."
            )
        overlap //= 2  # a long span leaves less room for what stands before it


def _word_start(text: str, position: int, most: int) -> int:
    """The first beginning of a word from `position` up to `most`; `position` itself in a text without spaces."""
    if position == 0 or text[position - 1].isspace():
        return position
    return next((place + 1 for place in range(position, most) if text[place].isspace()), position)


def _word_end(text: str, position: int, least: int) -> int:
    """The last end of a word from `least` up to `position`; `position` itself in a text without spaces."""
    if position == len(text) or text[position].isspace():
        return position
    return next((place for place in range(position, least, -1) if text[place].isspace()), position)


def _home(windows: Sequence[Span], span: Span, size: int) -> int:
    """The place of the window that holds the span and whose edges are furthest from it; the text's own are none."""

    def margin(place: int) -> float:
        start, end = windows[place]
        left = math.inf if start == 0 else span[0] - start
        return min(left, math.inf if end == size else end - span[1])

    first = bisect.bisect_left(windows, span[1], key=lambda window: window[1])
    last = first + 1
    while last < len(windows) and windows[last][0] <= span[0]:
        last += 1
    return max(range(first, last), key=margin)

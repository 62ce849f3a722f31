"""Where the tokens of a long text begin, found window by window."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ragindex.chunking.boundaries import whole_character

__all__ = ["LONGEST_TOKEN", "WINDOW", "TokenCounter", "TokenMap"]

WINDOW = 1 << 16  # characters per call: long enough to amortise the call, short enough to bound its memory
LONGEST_TOKEN = 16


class TokenCounter(Protocol):
    """The encoder's own tokenizer, as far as a chunker needs it."""

    def offsets(self, text: str) -> NDArray[np.int64]:
        """The character span of each token of `text`, in order, without special tokens: shape (n, 2)."""
        ...


class TokenMap:
    """Estimates the tokens of any span of a text in O(log n) after one pass over it.

    The tokens of a slice are not always the slice of the tokens (a word cut in two, a space that became a first
    character), so this only proposes spans; whoever emits one must count it again.

    A token longer than `LONGEST_TOKEN` characters counts once for each such stretch. WordPiece turns a word of over a
    hundred letters into one unknown token: without this rule a megabyte of base64 would "fit".
    """

    def __init__(self, text: str, counter: TokenCounter) -> None:
        pieces = [_window_starts(text[start:end], counter) + start for start, end in _windows(text)]
        starts = np.concatenate(pieces) if pieces else np.zeros(0, np.int64)
        self._starts = starts.astype(np.uint32)

    def count(self, start: int, end: int) -> int:
        """Tokens that begin in `[start, end)`."""
        low, high = np.searchsorted(self._starts, np.array([start, end], np.uint32))
        return int(high - low)

    def advance(self, start: int, count: int, end: int) -> int:
        """The position, at most `end`, up to which the text from `start` holds no more than `count` tokens."""
        index = int(np.searchsorted(self._starts, np.uint32(start))) + count
        return min(end, int(self._starts[index])) if index < len(self._starts) else end

    def retreat(self, end: int, count: int, start: int) -> int:
        """The position, at least `start`, from which the text up to `end` holds no more than `count` tokens."""
        index = int(np.searchsorted(self._starts, np.uint32(end))) - count
        return max(start, int(self._starts[index])) if index >= 0 else start


def _windows(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(text):
        end = start + WINDOW
        if end < len(text):
            floor = start + WINDOW // 2
            space = max(text.rfind(" ", floor, end), text.rfind("\n", floor, end))
            # The space opens the next window: byte-level tokenizers join it to the word after it.
            end = space if space > 0 else whole_character(text, end, floor)
        yield start, min(end, len(text))
        start = end


def _window_starts(text: str, counter: TokenCounter) -> NDArray[np.int64]:
    offsets = counter.offsets(text)
    # Metaspace tokenizers report an empty token for a prefix that is not in the text.
    starts = np.maximum.accumulate(offsets[offsets[:, 1] > offsets[:, 0], 0].astype(np.int64))
    edges = np.concatenate([[0], starts, [len(text)]])
    gaps = np.diff(edges)
    wide = np.flatnonzero(gaps > LONGEST_TOKEN)
    if not len(wide):
        return starts
    extra = [np.arange(edges[i] + LONGEST_TOKEN, edges[i + 1], LONGEST_TOKEN) for i in wide]
    return np.sort(np.concatenate([starts, *extra]))

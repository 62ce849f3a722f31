"""Where a text may be cut: sentence ends, lines, words and, last of all, characters."""

from __future__ import annotations

import bisect
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Final

from ragindex.types import BlockKind

__all__ = ["best_cut", "nearest", "sentence_ends", "whole_character", "word_ends"]

# A position is a cut when it follows the last character of a unit; the white space after it belongs to nobody.
# The patterns look behind instead of consuming the mark itself, so that a long run of marks costs linear time.
_SENTENCE_END = re.compile(
    r"""(?<=[.!?…])["'”’»)\]*_`]{0,4}(?=\s)      # marks that also occur inside of words need a space after them
      | (?<=[。！？｡])(?![。！？｡])[」』”’）】]{0,4}   # these do not
    """,
    re.VERBOSE,
)
_NO_SENTENCE_END = re.compile(
    r"""(?:^|[\s(\["'“‘])(?:
            mr|mrs|ms|dr|prof|st|sr|jr|rev|gen|sen|rep|gov|capt|lt|col|hon|mt      # titles
          | vs|cf|e\.g|i\.e|al|approx|ca|dept|est|inc|ltd|corp|co|no|nos|vol|pp?|fig|figs|eq|eqs|sec|ch|ed|eds|resp
          | jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec
          | z\.b|d\.h|bzw|usw|nr|abb|p\.ex|u\.s|u\.k
          | [^\W\d_]                                                              # initials
        )\.$
      | \n[ \t]*\d{1,3}\.$                                                        # the number of a list item
    """,
    re.VERBOSE | re.IGNORECASE,
)
_BLANK_LINE = re.compile(r"(?<=\S)[^\S\n]*+\n[^\S\n]*+\n")
_LINE = re.compile(r"(?<!\n)\n")
_WORD_END = re.compile(r"(?<=\S)(?=\s)|(?<=[，；：、])")
_FIRST_REACH = 256
_JOINER = "\u200d"

_Finder = Callable[[str, int, int], list[int]]


def best_cut(text: str, kind: BlockKind, low: int, target: int, high: int) -> int:
    """The best position in `(low, high]` at which to cut text of this kind, the one nearest to `target` among equals.

    Raises nothing: where nothing better exists it returns `high`, or a little less so as to keep a character whole.
    """
    for finder in _LEVELS[kind]:
        # Words are everywhere: look near the target first instead of listing them all.
        reach = _FIRST_REACH
        while True:
            cuts = finder(text, max(low, target - reach), min(high, target + reach))
            if cuts:
                return nearest(cuts, target)
            if target - reach <= low and target + reach >= high:
                break
            reach *= 4
    return whole_character(text, high, low)


def nearest(ascending: Sequence[int], target: int) -> int:
    """The element nearest to `target`, the smaller one of two; there must be one."""
    index = bisect.bisect_left(ascending, target)
    return min(ascending[max(0, index - 1) : index + 1], key=lambda value: abs(value - target))


def sentence_ends(text: str, low: int, high: int) -> list[int]:
    """Positions in `(low, high]` that follow a sentence. Abbreviations, initials and list numbers end none."""
    matches = _SENTENCE_END.finditer(text, low, min(len(text), high + 1))
    return [
        match.end()
        for match in matches
        if low < match.end() <= high and not _NO_SENTENCE_END.search(text[max(0, match.start() - 12) : match.start()])
    ]


def word_ends(text: str, low: int, high: int) -> list[int]:
    """Positions in `(low, high]` that follow a word or a CJK comma."""
    return _ends(_WORD_END, text, low, high)


def whole_character(text: str, position: int, floor: int) -> int:
    """The nearest position at or before this one, but above `floor`, that does not part a mark from its base."""
    for candidate in range(position, max(floor, position - 32), -1):
        if not _inside_character(text, candidate):
            return candidate
    return position


def _inside_character(text: str, position: int) -> bool:
    if not 0 < position < len(text):
        return False
    before, after = text[position - 1], text[position]
    if before.isascii() and after.isascii():
        return False
    return (
        _JOINER in {before, after}
        or unicodedata.category(after) in {"Mn", "Me", "Mc"}
        or "\U0001f3fb" <= after <= "\U0001f3ff"  # skin tones
        or ("\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff")
    )


def _ends(pattern: re.Pattern[str], text: str, low: int, high: int) -> list[int]:
    matches = pattern.finditer(text, low, min(len(text), high + 1))
    return [match.start() for match in matches if low < match.start() <= high]


def _blank_lines(text: str, low: int, high: int) -> list[int]:
    return _ends(_BLANK_LINE, text, low, high)


def _lines(text: str, low: int, high: int) -> list[int]:
    return _ends(_LINE, text, low, high)


_LEVELS: Final[dict[BlockKind, tuple[_Finder, ...]]] = {
    "prose": (_blank_lines, sentence_ends, _lines, word_ends),
    "heading": (sentence_ends, _lines, word_ends),
    "list": (_lines, sentence_ends, word_ends),
    "code": (_blank_lines, _lines, word_ends),
    "table": (_lines, word_ends),
}

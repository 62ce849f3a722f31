"""Picks the few rows of a hit that show best why it answers the query, and marks the words that match."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from ragindex.cli.terminal import neutral, wrap

__all__ = ["Excerpt", "excerpt", "mark", "query_terms"]

_WORD = re.compile(r"\w+")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]+")
# Function words say nothing about where the answer is; other languages lose little by having theirs counted.
_COMMON = (
    "a about after all also am an and any are as at be been before but by can could did do does done for from get "
    "had has have how i if in into is it its may me my no not of off on only or our out she should so some than "
    "that the their them then there they this to up us was we were what when where which who why will with would "
    "you your"
)
_BEGINS_LINE = 1e-6  # breaks ties only

_PROSE = re.compile(r"[^\W\d_][^|]*[^|;{}]$")  # begins with a letter, not with an indent, a bullet or a number


class Excerpt(NamedTuple):
    """Rows to show; `before` and `after` say whether the text goes on outside of them."""

    rows: list[str]
    before: bool
    after: bool


class _Match(NamedTuple):
    start: int
    end: int
    term: str


def query_terms(query: str) -> frozenset[str]:
    """What to look for: words in lower case without function words, and character pairs of CJK runs."""
    folded = query.casefold()
    pairs = {"".join(pair) for run in _CJK.findall(folded) for pair in pairwise(run)}
    words = {word for word in _WORD.findall(_CJK.sub(" ", folded)) if len(word) > 1 or word.isdigit()}
    return frozenset((words - set(_COMMON.split()) or words) | pairs)


def excerpt(text: str, terms: Iterable[str], *, headings: Iterable[str] = (), width: int, rows: int) -> Excerpt:
    """The `rows` consecutive rows, of at most `width` cells each, that hold most of the rarer terms.

    Lines at the top that only repeat `headings` are left out. Among equals, windows that begin with a line win, then
    the last one: what follows a match says more than what comes before.
    """
    known = frozenset(headings)
    lines = [line for line in textwrap.dedent(neutral(text).expandtabs(4)).splitlines() if line.strip()]
    top = next((number for number, line in enumerate(lines) if line.strip(" #=-*_\t") not in {*known, ""}), 0)
    laid_out, begins = _lay_out(lines[top:], width)
    wanted = frozenset(terms)
    found = [{match.term for match in _matches(row, wanted)} for row in laid_out]
    weight = {term: 1 / sum(term in row for row in found) for row in found for term in row}
    best, best_score = 0, 0.0
    for start in range(max(1, len(laid_out) - rows + 1)):
        held = frozenset[str]().union(*found[start : start + rows])
        score = math.fsum(weight[term] for term in held)
        if held and score + (_BEGINS_LINE if begins[start] else 0) >= best_score:
            best, best_score = start, score + (_BEGINS_LINE if begins[start] else 0)
    return Excerpt(laid_out[best : best + rows], best > 0, best + rows < len(laid_out))


def mark(row: str, terms: Iterable[str], *, before: str, after: str) -> str:
    """`row` with `before` and `after` around every word that matches a term."""
    parts: list[str] = []
    position = 0
    for match in _matches(row, frozenset(terms)):
        if match.start < position:  # pairs of a CJK run overlap
            continue
        parts += [row[position : match.start], before, row[match.start : match.end], after]
        position = match.end
    return "".join([*parts, row[position:]])


class _Layout(NamedTuple):
    """Rows, and for each whether a line of the text begins there."""

    rows: list[str]
    begins: list[bool]


def _lay_out(lines: list[str], width: int) -> _Layout:
    """Cut lines into rows; what runs over from a line of prose flows into the next, so that no half rows remain."""
    layout = _Layout([], [])
    rest = ""
    for line, following in pairwise([*lines, ""]):
        *full, last = wrap(f"{rest} {line}" if rest else line, width)
        flows = bool(full or rest) and _PROSE.match(line) and _PROSE.match(following)
        parts = full if flows else [*full, last]
        layout.rows.extend(parts)
        layout.begins.extend(number == 0 and not rest for number in range(len(parts)))
        rest = last if flows else ""
    return layout


def _matches(row: str, terms: frozenset[str]) -> list[_Match]:
    matches: list[_Match] = []
    for word in _WORD.finditer(row):
        folded = word.group().casefold()
        # Sorted, so that the same query gives the same excerpt whatever the order of the set.
        term = folded if folded in terms else next((term for term in sorted(terms) if _related(folded, term)), None)
        if term is not None:
            matches.append(_Match(word.start(), word.end(), term))
            continue
        for start in range(len(folded) - 1 if len(folded) == len(word.group()) and _CJK.search(folded) else 0):
            if folded[start : start + 2] in terms:
                begin = word.start() + start
                matches.append(_Match(begin, begin + 2, folded[start : start + 2]))
    return matches


def _related(one: str, other: str) -> bool:
    """Equal, or likely forms of one word: a long common beginning and short endings ("rotate", "rotation")."""
    if one == other or one + "s" == other or one == other + "s":
        return True
    shorter, longer = sorted((len(one), len(other)))
    if shorter < 4 or longer - shorter > 3 or one[:3] != other[:3]:
        return False
    common = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), shorter)
    return common >= 4 and shorter - common <= 1 and longer - common <= 3 and not other.isdigit()

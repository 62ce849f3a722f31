"""A prompt-ready block of hits: numbered, cited, within a token budget, and marked as quoted text.

Hits stand in order of rank and keep their numbers: `[n]` is the n-th of the hits that were given, so that an answer's
`[n]` can be traced, what the budget cuts off is the weakest, and what matters most is read first (a model uses the
middle of a long prompt least: Liu et al., arXiv 2307.03172). Hits come before surroundings: what is left of the
budget after the last hit widens them, the best first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ragindex.errors import UsageError
from ragindex.search.budget import TokenCounter
from ragindex.search.quoting import CLOSE, one_line, opened, quoted
from ragindex.search.suspicion import FlagKind, flag_kinds
from ragindex.types import Hit

__all__ = ["Context", "Passage", "Widening", "build_context"]

_LEAST = 16  # tokens of a block that can hold anything
_USEFUL = 32  # tokens of a cut hit that are worth their citation; a quarter of a shorter one
_ELLIPSIS = " …"
_LONGEST_WORD = 40  # characters; what is longer between spaces is no word
_CHARACTERS = 16  # for every token of the budget; a text that is longer does not fit


@dataclass(frozen=True, slots=True)
class Passage:
    """One entry of a block. `numbers` are the places among the given hits, from 1, of those that it holds, in order;
    the first is the one it shows. `hit` is the best of them, widened or cut: its span and text are those shown.
    """

    numbers: tuple[int, ...]
    hit: Hit
    flags: tuple[FlagKind, ...] = ()
    cut: bool = False


class Context(str):
    """The block: a text that also says what is in it.

    `tokens` is its length by the counter named `tokenizer`; `estimated` says that no tokenizer was asked.
    """

    __slots__ = ("estimated", "passages", "tokenizer", "tokens")

    passages: tuple[Passage, ...]
    tokens: int
    tokenizer: str
    estimated: bool

    def __new__(cls, text: str, *, passages: Sequence[Passage], counter: TokenCounter) -> Context:
        """`text` as a block of these passages."""
        block = super().__new__(cls, text)
        block.passages = tuple(passages)
        block.tokens = counter.count(text)
        block.tokenizer = counter.name
        block.estimated = counter.estimated
        return block


class Widening(Protocol):
    """What `ragindex.search.surroundings` knows of the documents around hits."""

    def neighbours(self, hit: Hit, count: int) -> Hit:
        """The hit with chunks before and after it."""

    def section(self, hit: Hit, *, most: int) -> Hit | None:
        """The hit with its section; None if that is too long."""

    def joined(self, one: Hit, other: Hit) -> Hit | None:
        """Two hits that touch as one; None if they do not."""


def build_context(
    hits: Sequence[Hit],
    *,
    tokens: int,
    counter: TokenCounter,
    around: Widening | None = None,
    neighbours: int = 0,
    section: bool = False,
) -> Context:
    """The block, at most `tokens` tokens long.

    Each hit is `[n] citation`, `<passage under="headings">`, its text and `</passage>`. Hits are taken whole in order
    of rank; the first that does not fit is cut and marked with an ellipsis as long as a useful part of it (a quarter,
    or 32 tokens) remains.

    around: where surroundings come from. With it, each hit gets its whole `section` if that is asked for and fits,
    else as many of the `neighbours` chunks before and after it as fit; passages that touch then become one, which
    has the number of the best. Raises UsageError when a block so short could hold nothing.
    """
    if tokens < _LEAST:
        raise UsageError(f"A context of {tokens} tokens holds nothing; ask for at least {_LEAST}.")
    if neighbours < 0:
        raise UsageError(f"neighbours is {neighbours}; it must be at least 0.")
    limit = tokens
    most = _CHARACTERS * tokens
    pieces = _Pieces(counter, most)
    wish = _Wish(around, neighbours, section, most) if around and (neighbours or section) else None
    while True:
        taken = _taken(hits, limit, pieces)
        if wish is not None and not any(piece.passage.cut for piece in taken):
            taken = _widened(taken, wish, limit, pieces)
        block = "\n".join(piece.entry for piece in taken)
        if not block:
            return Context(block, passages=(), counter=counter)
        # Tokens of two parts may meet differently than alone, so the whole is counted once more.
        over = counter.count(block) - tokens
        if over <= 0:
            return Context(block, passages=[piece.passage for piece in taken], counter=counter)
        limit -= over


@dataclass(frozen=True, slots=True)
class _Piece:
    """A passage as it is written, and what that costs with the empty line before it."""

    passage: Passage
    entry: str
    cost: int


class _Pieces:
    """Makes pieces, none of them with more than `most` characters of text; one that was made before is remembered, as
    passages are weighed many times.
    """

    def __init__(self, counter: TokenCounter, most: int) -> None:
        self._count = counter.count
        self._most = most
        self._made: dict[tuple[str, int, int, int], _Piece] = {}

    def of(self, numbers: tuple[int, ...], hit: Hit) -> _Piece:
        key = (hit.path, hit.char_start, hit.char_end, numbers[0])
        made = self._made.get(key)
        if made is None:
            shown = _beginning(hit, self._most)
            flags = flag_kinds(shown.text, hit.path, hit.title, *hit.heading)
            made = self._piece(Passage(numbers, shown, flags, cut=shown is not hit))
            self._made[key] = made
        return replace(made, passage=replace(made.passage, numbers=numbers))

    def cut(self, piece: _Piece, room: int) -> _Piece | None:
        """The longest beginning of a piece that costs at most `room`; None if that is not worth its citation."""
        text = piece.passage.hit.text
        best, low, high = None, 1, len(text)
        while low <= high:
            middle = (low + high) // 2
            part = self._piece(replace(piece.passage, hit=_beginning(piece.passage.hit, middle), cut=True))
            if part.cost <= room:
                best, low = part, middle + 1
            else:
                high = middle - 1
        if best is None or self._count(best.passage.hit.text) < min(_USEFUL, self._count(text) // 4):
            return None
        return best

    def _piece(self, passage: Passage) -> _Piece:
        hit = passage.hit
        head = f"[{passage.numbers[0]}] {one_line(hit.citation)}"
        under = " › ".join(hit.heading) or hit.title
        text = quoted(hit.text) + _ELLIPSIS * passage.cut
        entry = f"{head}\n{opened(under=under, flags=passage.flags)}\n{text}\n{CLOSE}\n"
        return _Piece(passage, entry, self._count(entry) + 1)


def _beginning(hit: Hit, length: int) -> Hit:
    """The hit with at most so many characters of its text, ending with a word; itself where it is no longer."""
    if length >= len(hit.text):
        return hit
    text = hit.text[:length]
    if not hit.text[length].isspace():
        words = text.rsplit(maxsplit=1)
        # A text without spaces is cut where it is.
        text = words[0] if len(words) == 2 and len(words[1]) <= _LONGEST_WORD else text
    text = text.rstrip()
    return replace(hit, text=text, char_end=hit.char_start + len(text))


@dataclass(frozen=True, slots=True)
class _Wish:
    """How hits are to be widened: up to `neighbours` chunks either way, or a section of at most `most` characters."""

    around: Widening
    neighbours: int
    section: bool
    most: int

    def candidates(self, hit: Hit) -> Iterator[Hit]:
        """The wider forms of a hit, the widest first."""
        whole = self.around.section(hit, most=self.most) if self.section else None
        if whole is not None:
            yield whole
        for count in range(self.neighbours, 0, -1):
            yield self.around.neighbours(hit, count)


def _taken(hits: Sequence[Hit], limit: int, pieces: _Pieces) -> list[_Piece]:
    """The hits from the first as far as they fit, the last of them perhaps cut."""
    taken: list[_Piece] = []
    left = limit + 1  # no empty line before the first
    for number, hit in enumerate(hits, 1):
        piece = pieces.of((number,), hit)
        if piece.cost > left:
            part = pieces.cut(piece, left)
            return taken if part is None else [*taken, part]
        taken.append(piece)
        left -= piece.cost
    return taken


def _widened(taken: list[_Piece], wish: _Wish, limit: int, pieces: _Pieces) -> list[_Piece]:
    current = _merged(taken, wish, pieces)
    for piece in taken:
        hit = piece.passage.hit
        for wide in wish.candidates(hit):
            if len(wide.text) == len(hit.text):
                continue
            tried = _merged([*current, pieces.of(piece.passage.numbers, wide)], wish, pieces)
            if sum(one.cost for one in tried) <= limit + 1:
                current = tried
                break
    return current


def _merged(given: Sequence[_Piece], wish: _Wish, pieces: _Pieces) -> list[_Piece]:
    """Pieces that touch as one, with the number of the best; in order of numbers."""
    kept: list[_Piece] = []
    for piece in given:
        for other in list(kept):
            best, rest = sorted((piece.passage, other.passage), key=lambda passage: passage.numbers)
            hit = wish.around.joined(best.hit, rest.hit)
            if hit is not None:  # and go on: the larger span may touch another
                kept.remove(other)
                piece = pieces.of(tuple(sorted({*best.numbers, *rest.numbers})), hit)
        kept.append(piece)
    return sorted(kept, key=lambda piece: piece.passage.numbers)

"""A document prepared for making pairs: passages as the index would store them, sections, and chance."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragindex.chunking import ChunkOptions, chunk
from ragindex.chunking.titles import title_line
from ragindex.loaders.formats import format_of
from ragindex.loaders.front_matter import read_front_matter
from ragindex.train.data.corpus import CorpusStatistics
from ragindex.train.data.keys import folded
from ragindex.train.data.prose import WordCounter, count_words, is_prose, is_rule, plain, shortened
from ragindex.train.data.source_code import language_of
from ragindex.types import Block, Document

__all__ = ["Material", "Passage", "prepared", "told_title"]

_FEWEST = 12  # words of a passage worth finding
_FEWEST_SECTION = 5
_LONGEST_TITLE = 24  # words of a title line
_LONGEST_FIRST_LINE = 12  # words of a first line that is taken for a title


@dataclass(frozen=True, slots=True)
class Passage:
    """Text under a path of headings (outermost first); the lines of the headings themselves are not part of it."""

    text: str
    heading: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Material:
    """What the kinds of pairs draw from one document.

    title: the document's, or the first line of plain text that looks like one. language: of program text, else empty.
    passages: the text as chunks, in order. sections: the text under each path of headings, as much of it as one
    passage holds. random: the document's own, so that its pairs do not depend on its neighbours. words: of a passage
    at most. keep: how likely a text that is cut out of a passage stays in it.
    """

    document: Document
    title: str
    language: str
    passages: Sequence[Passage]
    sections: Sequence[Passage]
    statistics: CorpusStatistics
    random: random.Random
    words: int
    keep: float

    def keeps(self) -> bool:
        """Whether a text that was cut out of a passage stays in it this time."""
        return self.random.random() < self.keep

    def shuffled(self, passages: Sequence[Passage]) -> list[Passage]:
        """The passages in random order."""
        return self.random.sample(passages, len(passages))


def prepared(document: Document, *, statistics: CorpusStatistics, words: int, keep: float) -> Material:
    """Cut a document into passages and sections, without front matter, headings and boilerplate lines."""
    language = language_of(document)
    title, body = _title(document) if not language else ("", 0)
    cleaner = _Cleaner(document, title, body, statistics)
    return Material(
        document=document,
        title=title,
        language=language,
        passages=tuple(_passages(document, words, None if language else cleaner)),
        sections=() if language else tuple(_sections(document, words, cleaner)),
        statistics=statistics,
        random=random.Random(0),  # noqa: S311 - sampling, not secrecy
        words=words,
        keep=keep,
    )


def told_title(title: str, heading: Sequence[str], *, without: Collection[str] = ()) -> str:
    """The title line that a passage is embedded with, less the parts that are the query."""
    gone = {folded(part) for part in without}
    kept, *below = ("" if folded(part) in gone else part for part in (title, *heading))
    return title_line(kept, below, fits=lambda line: count_words(line) <= _LONGEST_TITLE)


class _Cleaner:
    """Takes out what is not the passage's own: headings, lines that many documents share."""

    def __init__(self, document: Document, title: str, body: int, statistics: CorpusStatistics) -> None:
        named = itertools.chain((title,), *(block.heading for block in document.blocks))
        self._headings = {folded(plain(each)) for each in named} - {""}
        self._statistics = statistics
        self.body = body

    def clean(self, text: str, start: int) -> str:
        """The text, which begins at `start` in the document, without these lines."""
        kept: list[str] = []
        underlined = False
        for line in text[max(0, self.body - start) :].split("\n"):
            foreign = bool(line.strip()) and (self._foreign(line) or (underlined and is_rule(line)))
            if not foreign:
                kept.append(line)
            underlined = foreign or not kept
        return "\n".join(kept).strip()

    def _foreign(self, line: str) -> bool:
        return folded(plain(line)) in self._headings or self._statistics.is_boilerplate(line)


def _title(document: Document) -> tuple[str, int]:
    """The title and where the text behind it begins."""
    text = document.text
    body = 0
    lines = text.split("\n")
    if text.startswith(("---", "+++")):
        stop = read_front_matter(lines).stop
        body = sum(len(line) + 1 for line in lines[:stop])
    known = format_of(Path(document.path))
    if document.title or known is None or known.mime != "text/plain":
        return document.title, body
    first = next((line for line in lines[:3] if line.strip()), "")
    following = text[text.find(first) + len(first) :] if first else ""
    is_title = (
        2 <= count_words(first) <= _LONGEST_FIRST_LINE
        and not first.rstrip().endswith((".", "!", ":", ",", ";", "?"))
        and following.startswith(("\n\n", "\n=", "\n-"))
        and is_prose(first, fewest=2)
    )
    return (plain(first), body) if is_title else ("", body)


def _passages(document: Document, words: int, cleaner: _Cleaner | None) -> Iterator[Passage]:
    for piece in chunk(document, ChunkOptions(budget=words), WordCounter(), _no_overhead):
        text = cleaner.clean(piece.text, piece.start) if cleaner is not None else piece.text
        if count_words(text) >= _FEWEST:
            yield Passage(text, piece.heading)


def _no_overhead(_title: str, _heading: tuple[str, ...]) -> int:
    return 0


def _sections(document: Document, words: int, cleaner: _Cleaner) -> Iterator[Passage]:
    blocks = [block for block in document.blocks if block.kind != "heading" and block.end > cleaner.body]
    for heading, group in itertools.groupby(blocks, key=_heading):
        members = list(group)
        start, end = members[0].start, members[-1].end
        text = shortened(cleaner.clean(document.text[start:end], start), words)
        if heading and is_prose(text, fewest=_FEWEST_SECTION):
            yield Passage(text, heading)


def _heading(block: Block) -> tuple[str, ...]:
    return block.heading

"""Small judgments about text: words, sentences, what reads as prose, and how it reads without its marks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragindex.chunking.boundaries import sentence_ends
from ragindex.train.data.keys import combining_marks, has_marks

__all__ = [
    "Span",
    "WordCounter",
    "count_words",
    "is_heading",
    "is_legal",
    "is_prose",
    "is_rule",
    "is_sentence",
    "is_unspaced",
    "plain",
    "sentences",
    "shortened",
    "units",
    "word_spans",
]

# Scripts written without spaces: a character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17d3\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(r"\w+(?:['’.\-]\w+)*")
_UNSPACED_ONE = re.compile(f"[{_UNSPACED}]")

_LINK = re.compile(r"!?\[([^\[\]]{0,300})\](?:\([^()\s]{0,500}(?:\s[^()]{0,200})?\)|\[[^\[\]]{0,200}\])")
_RST_LINK = re.compile(r"`([^`<>]{1,200}?)\s*<[^`<>\s]{1,500}>`__?")
_RST_ROLE = re.compile(r":[\w:+.-]{1,40}:`~?([^`<>]{1,200}?)(?:\s*<[^`<>]{1,200}>)?`")
_CODE = re.compile(r"`{1,2}([^`\n]{1,200})`{1,2}_{0,2}")
_STARS = re.compile(r"\*{1,3}(?=\S)|(?<=\S)\*{1,3}|(?<!\w)_{1,2}(?=\w)|(?<=\w)_{1,2}(?!\w)")
_MARK = re.compile(r"[*_`\]]")
_LEAD = re.compile(r"(?:[ \t]*(?:#{1,6}|[-*+•‣▪–—]|>|\d{1,3}[.)]|\[[ xX]\])(?=\s))+\s*")
_ITEM = re.compile(r"[ \t]*(?:[-*+•‣▪]|\d{1,3}[.)])\s")
_RULE = re.compile(r"\s*[-=~^\"'`#*+_:.|]{3,}\s*$")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s")
_BOLD_LINE = re.compile(r"\s*(\*\*|__)(?=\S)[^\n]+\1\s*$")
_FENCE = re.compile(r"\s*(?:`{3,}|~{3,})")

_LETTERS = re.compile(r"[^\W\d_]+")
_DIGIT = re.compile(r"\d")
_CODE_MARK = re.compile(r"[{}<>|\\=_@$^~#;]|\(\)|->|::|//")
_SENTENCE_END = re.compile(r"[.!?…。！？]['\"”’»)\]*_`]{0,4}(?:\[\d{1,3}\])?$")
_SENTENCE_START = re.compile(r"[\"'“‘(«¿¡]?\w")
_LEGAL = re.compile(
    r"copyright|\(c\) \d{4}|©|licen[sc]ed? under|licen[sc]e, version|all rights reserved|without warrant|spdx-|"
    r"cookie (?:policy|settings)|terms of (?:use|service)|privacy policy",
    re.IGNORECASE,
)


class Span(NamedTuple):
    """A half-open span of characters."""

    start: int
    end: int


class WordCounter:
    """Counts words where a chunker counts tokens (`chunking.TokenCounter`)."""

    def offsets(self, text: str) -> NDArray[np.int64]:
        """The spans of the words, (n, 2)."""
        return np.array([match.span() for match in _word(text).finditer(text)], np.int64).reshape(-1, 2)


def word_spans(text: str) -> list[Span]:
    """Where the words are; a compound such as `left-hand`, `os.path` or `isn't` is one."""
    return [Span(*match.span()) for match in _word(text).finditer(text)]


def count_words(text: str) -> int:
    """How many words a text has."""
    return len(_word(text).findall(text))


def is_unspaced(text: str) -> bool:
    """Whether most of a text is in a script without spaces between words."""
    return not text.isascii() and 2 * len(_UNSPACED_ONE.findall(text)) > sum(map(len, text.split()))


def plain(text: str) -> str:
    """A heading, line or sentence on one line as a reader sees it: without Markdown and reStructuredText marks."""
    lead = _LEAD.match(text)
    text = text[lead.end() :] if lead else text
    if _MARK.search(text):
        text = _RST_ROLE.sub(r"\1", _RST_LINK.sub(r"\1", _LINK.sub(r"\1", text)))
        text = _STARS.sub("", _CODE.sub(r"\1", text))
    return " ".join(text.split())


def is_prose(text: str, *, fewest: int = 5) -> bool:
    """Whether a text has at least `fewest` words and is mostly letters: no table of numbers, no rule, no code."""
    solid = sum(map(len, text.split()))
    if not solid or count_words(text) < fewest:
        return False
    letters = sum(map(len, (_marked_letters() if has_marks(text) else _LETTERS).findall(text)))
    return letters >= 0.6 * solid and len(_DIGIT.findall(text)) <= 0.25 * solid


def is_sentence(text: str, *, fewest: int = 6, most: int = 60) -> bool:
    """Whether a text without marks is one sentence that someone wrote: it ends like one and holds no code."""
    return (
        fewest <= count_words(text) <= (3 * most if is_unspaced(text) else most)
        and _SENTENCE_END.search(text) is not None
        and _SENTENCE_START.match(text) is not None
        and is_prose(text, fewest=fewest)
        and len(_CODE_MARK.findall(text)) <= 0.02 * len(text)
        and not is_legal(text)
    )


def is_rule(line: str) -> bool:
    """Whether a line is a rule or underlines a heading."""
    return _RULE.match(line) is not None


def is_heading(line: str) -> bool:
    """Whether a line is a Markdown heading, or all of it is bold."""
    return _HEADING.match(line) is not None or _BOLD_LINE.match(line) is not None


def is_legal(text: str) -> bool:
    """Whether a text is about copyright, licences or cookies: the same in thousands of files."""
    return _LEGAL.search(text) is not None


def sentences(text: str) -> list[Span]:
    """The sentences of a text that may be cut out of it: of paragraphs and list items, not of headings, fenced code
    and tables. The marks of a list item are no part of its first sentence.
    """
    return [span for unit in units(text) for span in _sentences_of(text, unit)]


def shortened(text: str, words: int) -> str:
    """The beginning of a text: whole sentences as far as `words` words go, or else whole words."""
    spans = word_spans(text)
    if len(spans) <= words:
        return text.strip()
    limit = spans[words - 1].end
    ends = sentence_ends(text, spans[words // 2].start, limit + 4)
    return text[: ends[-1] if ends else limit].strip()


def units(text: str) -> Iterator[Span]:
    """Paragraphs and list items, as spans of whole lines; headings, rules, tables and fenced code are left out."""
    start = end = None
    fenced = False
    position = 0
    for line in text.split("\n"):
        stop = position + len(line)
        fence = _FENCE.match(line) is not None
        outside = fenced or fence or not line.strip() or is_rule(line) or is_heading(line) or "|" in line
        if (outside or _ITEM.match(line)) and start is not None and end is not None:
            yield Span(start, end)
            start = None
        if not outside:
            start = position if start is None else start
            end = stop
        fenced ^= fence
        position = stop + 1
    if start is not None and end is not None:
        yield Span(start, end)


def _word(text: str) -> re.Pattern[str]:
    return _any_word() if has_marks(text) or (not text.isascii() and _UNSPACED_ONE.search(text)) else _WORD


@cache
def _any_word() -> re.Pattern[str]:
    word = rf"(?:(?![{_UNSPACED}])[\w{combining_marks()}])+"
    return re.compile(rf"[{_UNSPACED}]|{word}(?:['’.\-]{word})*")


@cache
def _marked_letters() -> re.Pattern[str]:
    return re.compile(rf"(?:[^\W\d_]|[{combining_marks()}])+")


def _sentences_of(text: str, unit: Span) -> Iterator[Span]:
    lead = _LEAD.match(text, unit.start, unit.end)
    start = lead.end() if lead else unit.start
    for end in [*sentence_ends(text, start, unit.end), unit.end]:
        while start < end and text[start].isspace():
            start += 1
        if start < end:
            yield Span(start, end)
        start = end

"""Finds terms and what they mean: glossary lines, run-in terms in bold, "A gauge is an instrument that ..."."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from ragindex.loaders.words import words
from ragindex.train.data.keys import folded
from ragindex.train.data.prose import count_words, is_legal, is_prose, plain, sentences, shortened, units

__all__ = ["Definition", "definitions", "labels"]

_TERM_WORDS = 6
_FEWEST = 5  # words of a meaning
_MOST = 60
# "**term**: meaning", "- `term` - meaning", "**Term.** Meaning", "Term: meaning".
_LABEL = re.compile(
    r"[ \t]*(?:[-*+•]\s+|\d{1,3}[.)]\s+)?(?:"
    r"(?:\*\*|__|``?)(?P<marked>[^\s*`][^*`\n]{0,80}?)(?:(?<=[.:])(?:\*\*|__)|(?:\*\*|__|``?)(?:[ ]\([^()\n]{1,40}\))?"
    r"(?:[ ]?:|[ ][-–—](?=\s)))|(?P<bare>[^\W\d_][^:\n*`|<>=,.;?!]{1,60}?):)\s+(?=\S)"
)
_SENTENCE = re.compile(
    r"(?P<article>(?:an?|the)\s+)?[\"“]?(?P<term>(?!(?:an?|the)\s)[^\W\d_][^\s,;:()]*(?:\s+[^\s,;:()]+){0,5}?)"
    r"(?:\s*\([^()]{1,40}\))?,?\s+(?:is|are|was|were|refers\s+to|means|denotes)\s+"
    r"(?P<meaning>(?:an?|the|any|one\s+of\s+the|defined\s+as)\s.+)",
    re.IGNORECASE | re.DOTALL,
)
# What stands before a colon without being a term, and what begins a sentence without naming anything.
_NO_TERMS = words(
    "note notes warning caution important tip hint example examples see todo fixme return returns raise raises",
    "parameters parameter args arguments usage syntax default defaults type types value values format input output",
    "result results summary abstract introduction background methods method conclusion conclusions objective",
    "objectives purpose question answer step figure table source sources author authors date title subject from to",
    "cc sent re version license licence copyright keywords url http https e.g i.e fix fixed changed added removed",
    "problem solution reason status remarks remark user assistant role content name design setting participants",
    "it this that these those there here he she we they i you who what which when where whether why how if as in on at",
    "by for with and but or so yes no not one another each both all some most many such other its his her their our my",
    "your because since although while after before then thus hence also only let once however first second third",
    "finally today now everyone everything nothing something anyone next last both neither either during do does",
    "among within of under over between through despite against unlike like about according included including",
    "monday tuesday wednesday thursday friday saturday sunday",
)
_NO_NOUN_PHRASE = re.compile(
    r"\b(?:that|which|who|it|is|are|was|were|has|have|had|does|do|did|can|will|may|must|should|would|could|not|there|"
    r"this|these|those|we|you|they|he|she|in|on|at|by|with|from|and|or|to|for|as|than|until|if|when|below|above|what|"
    r"such|one|only|main|best|first|result|reason|aim|purpose|goal|following|problems?|question|idea|use|present|major|"
    r"principal|primary|resulting|resultant|striking|required|described|paper|study|report|article|example|your|our)\b",
    re.IGNORECASE,
)


class Definition(NamedTuple):
    """A term, its meaning, and both as the text has them."""

    term: str
    meaning: str
    whole: str


def definitions(text: str) -> Iterator[Definition]:
    """The definitions in a text of prose: those behind labels first, then those in sentences."""
    for unit in units(text):
        for entry in _entries(text[unit.start : unit.end]):
            yield from _labelled(entry)
    for span in sentences(text):
        yield from _said(plain(text[span.start : span.end]))


def labels(text: str) -> list[str]:
    """What stands before a colon, folded, wherever it does so in a text. A label that comes back is no term but a
    field or a speaker.
    """
    found = (_LABEL.match(line) for line in text.split("\n"))
    return [folded(match["marked"] or match["bare"]) for match in found if match is not None]


def _labelled(entry: str) -> Iterator[Definition]:
    label = _LABEL.match(entry)
    if label is None:
        return
    term, meaning = plain(label["marked"] or label["bare"]).rstrip(" .:"), _meaning(entry[label.end() :])
    if meaning and _is_term(term) and (label["marked"] or (term[0].isupper() and not _NO_NOUN_PHRASE.search(term))):
        yield Definition(term, meaning, plain(entry))


def _said(sentence: str) -> Iterator[Definition]:
    found = _SENTENCE.match(sentence)
    if found is None or not _is_term(found["term"]) or _NO_NOUN_PHRASE.search(found["term"]):
        return
    # "The trouble is the cost" defines nothing, "Ozone is the gas" does.
    if found["article"] and found["meaning"].lower().startswith("the "):
        return
    meaning = _meaning(found["meaning"])
    if meaning:
        yield Definition(found["term"], meaning, sentence)


def _entries(unit: str) -> Iterator[str]:
    """A paragraph, or each entry of a glossary, whose entries begin lines as the first one does. A colon further down
    in a paragraph is a sentence's.
    """
    lines = unit.split("\n")
    begins = [index for index, line in enumerate(lines) if _style(line) and _style(line) == _style(lines[0])]
    for start, stop in pairwise([*(begins or [0]), len(lines)]):
        yield "\n".join(lines[start:stop])


def _style(line: str) -> str:
    label = _LABEL.match(line)
    if label is None or (label["bare"] and not label["bare"][0].isupper()):
        return ""
    return "marked" if label["marked"] else "bare"


def _is_term(term: str) -> bool:
    parts = folded(term).split()
    return (
        0 < count_words(term) <= _TERM_WORDS
        and not _NO_TERMS & {parts[0], parts[-1]}
        and is_prose(term, fewest=1)
        and len(term) > 2
    )


def _meaning(text: str) -> str:
    """A meaning on one line and no longer than it should be; empty when it explains nothing."""
    meaning = shortened(plain(text), _MOST)
    return meaning if is_prose(meaning, fewest=_FEWEST) and not is_legal(meaning) else ""

"""Kinds of pseudo-pairs of prose: each takes a prepared document and yields examples, its best first or in random
order.

What becomes the query is cut out of the positive, unless `Material.keeps` says otherwise: a model that only looks for
repeated words learns nothing new from a pair, but must not forget how to (Lee, Chang, Toutanova, "Latent Retrieval",
arXiv 1906.00300, keep it in one pair of ten).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ragindex.train.data.examples import Example
from ragindex.train.data.keys import folded
from ragindex.train.data.passages import Material, Passage, told_title
from ragindex.train.data.prose import (
    Span,
    count_words,
    is_prose,
    is_sentence,
    is_unspaced,
    plain,
    sentences,
    word_spans,
)

__all__ = [
    "crop_crop",
    "first_sentence",
    "heading_section",
    "sentence_context",
    "title_section",
    "words_passage",
]

_LEFT = 15  # words of a positive at least, after the query was taken out
_QUERY_WORDS = range(3, 13)
_LONGEST_QUERY = 40  # words of a title or heading
_WINDOW = 50  # words near each other that a query of words is drawn from
_CLAUSE = re.compile(r"[\s，。！？；：、,.!?;:()（）「」『』]+")
_SENTENCE_MARK = re.compile(r"[.!?。！？]")
_LONE_MARKS = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])?[ \t]*$\n?", re.MULTILINE)


def title_section(material: Material) -> Iterator[Example]:
    """A document's title finds its passages, the first one first."""
    title = plain(material.title)
    if material.language or not _is_title(material, title):
        return
    first, rest = material.passages[:1], material.passages[1:]
    for passage in (*first, *material.shuffled(rest)):
        if is_prose(passage.text):
            without = () if material.keeps() else (title,)
            yield Example(
                title, passage.text, title=told_title(title, passage.heading, without=without), source="title-section"
            )


def heading_section(material: Material) -> Iterator[Example]:
    """A heading finds its section. One that several documents have is put behind what is above it."""
    for section in material.shuffled(material.sections):
        asked = _asked_headings(material, section.heading)
        if asked and not asked[-1].endswith("?") and count_words(section.text) >= _LEFT:
            without = () if material.keeps() else (*section.heading, *asked)
            line = told_title(material.title, section.heading, without=without)
            yield Example(" - ".join(asked), section.text, title=line, source="heading-section")


def first_sentence(material: Material) -> Iterator[Example]:
    """The first sentence of a passage finds the rest of it."""
    for passage in material.shuffled(material.passages):
        yield from _cut_out(material, passage, _sentences(material, passage)[:1], "first-sentence")


def sentence_context(material: Material) -> Iterator[Example]:
    """A sentence from the middle or the end of a passage finds what stands around it: the inverse cloze task (arXiv
    1906.00300). Where nothing ends a sentence, a run of 6 to 12 words serves.
    """
    for passage in material.shuffled(material.passages):
        if material.language or _SENTENCE_MARK.search(passage.text):
            later = _sentences(material, passage)[1:]
            yield from _cut_out(material, passage, material.random.sample(later, len(later)), "sentence-context")
        else:
            yield from _run_out(material, passage)


def crop_crop(material: Material) -> Iterator[Example]:
    """Two spans of one passage, drawn independently, find each other (Contriever, arXiv 2112.09118): the query has 8
    to 40 words, the positive at least three times as many.
    """
    for passage in material.shuffled(material.passages):
        spans = word_spans(passage.text)
        if len(spans) < 2 * _LEFT:
            continue
        short = material.random.randint(8, min(40, len(spans) // 3))
        long = material.random.randint(min(3 * short, len(spans)), len(spans))
        query = plain(_crop(material, passage.text, spans, short))
        positive = _crop(material, passage.text, spans, long)
        if (material.language or is_prose(query)) and _says_something(material, query):
            yield Example(query, positive, title=told_title(material.title, passage.heading), source="crop-crop")


def words_passage(material: Material) -> Iterator[Example]:
    """A few rare words that stand near each other in a passage find it, as a typed query does; half of the passages of
    prose lose them. They are drawn without replacement, in proportion to their squared rarity (Efraimidis, Spirakis,
    "Weighted random sampling with a reservoir", 2006).
    """
    for passage in material.shuffled(material.passages):
        example = _clause(material, passage) if is_unspaced(passage.text) else _words(material, passage)
        if example is not None:
            yield example


def _words(material: Material, passage: Passage) -> Example | None:
    chance = material.random
    spans = word_spans(passage.text)
    start = chance.randrange(max(1, len(spans) - _WINDOW + 1))
    weights: dict[str, tuple[float, Span]] = {}
    for span in spans[start : start + _WINDOW]:
        word = passage.text[span.start : span.end]
        rarity = material.statistics.rarity(word)
        if rarity > 0 and len(word) <= 40 and not word.isdigit():
            weights.setdefault(folded(word), (chance.random() ** (1 / rarity**2), span))
    wanted = chance.choice(_QUERY_WORDS)
    drawn = sorted((span for _, span in sorted(weights.values(), reverse=True)[:wanted]), key=lambda span: span.start)
    if len(drawn) < _QUERY_WORDS[0] or len(spans) < _LEFT:
        return None
    query = " ".join(passage.text[span.start : span.end] for span in drawn)
    text = passage.text
    if chance.random() < 0.5 and not material.language and len(spans) >= _LEFT + 2 * len(drawn):
        gone = {folded(passage.text[span.start : span.end]) for span in drawn}
        spots = [span for span in spans if folded(text[span.start : span.end]) in gone]
        text = _without(text, spots)
    return Example(query, text, title=told_title(material.title, passage.heading), source="words-passage")


def _clause(material: Material, passage: Passage) -> Example | None:
    """Where words cannot be told apart, a clause serves as the typed query."""
    clauses = [each for each in _CLAUSE.split(passage.text) if 4 <= len(each) <= 24]
    if not clauses:
        return None
    title = told_title(material.title, passage.heading)
    return Example(material.random.choice(clauses), passage.text, title=title, source="words-passage")


def _is_title(material: Material, title: str) -> bool:
    return (
        is_prose(title, fewest=1)
        and count_words(title) <= _LONGEST_QUERY
        and not material.statistics.is_common_title(title)
    )


def _asked_headings(material: Material, heading: Sequence[str]) -> list[str]:
    """The innermost heading, behind the one above it (at last the title) where it says too little alone; or nothing."""
    path: list[str] = []
    for each in map(plain, (material.title, *heading)):
        if each and (not path or folded(each) != folded(path[-1])):
            path.append(each)
    if not path or not is_prose(path[-1], fewest=1) or count_words(path[-1]) > _LONGEST_QUERY:
        return []
    if folded(path[-1]) == folded(material.title):
        return []  # the business of title_section
    if len(_salient(material, path[-1])) > 1 and not material.statistics.is_common(path[-1]):
        return path[-1:]
    statistics = material.statistics
    vague = len(path) < 2 or statistics.is_common(path[-2]) or statistics.is_common_title(path[-2])
    return [] if vague else path[-2:]


def _sentences(material: Material, passage: Passage) -> list[Span]:
    """The sentences of a passage of prose that is long enough to lose one."""
    if material.language or count_words(passage.text) < _LEFT + 6:
        return []
    return sentences(passage.text)


def _says_something(material: Material, query: str) -> bool:
    """Whether there are three words in it that could find a text."""
    return is_unspaced(query) or len(_salient(material, query)) >= 3


def _salient(material: Material, text: str) -> set[str]:
    return {word for word in text.split() if material.statistics.is_salient(word)}


def _cut_out(material: Material, passage: Passage, spans: Sequence[Span], source: str) -> Iterator[Example]:
    """An example of the first of the sentences that makes a query."""
    for span in spans:
        query = _unlabelled(material, plain(passage.text[span.start : span.end]))
        if not is_sentence(query) or not _says_something(material, query):
            continue
        kept = material.keeps()
        text = passage.text if kept else _without(passage.text, [span])
        if is_prose(text, fewest=_LEFT) and (kept or folded(query) not in folded(text)):
            yield Example(query, text, title=told_title(material.title, passage.heading), source=source)
            return


def _run_out(material: Material, passage: Passage) -> Iterator[Example]:
    spans = word_spans(passage.text)
    words = material.random.randint(6, 12)
    if len(spans) < words + _LEFT:
        return
    first = material.random.randrange(len(spans) - words + 1)
    run = Span(spans[first].start, spans[first + words - 1].end)
    query = plain(passage.text[run.start : run.end])
    if is_prose(query) and _says_something(material, query):
        text = passage.text if material.keeps() else _without(passage.text, [run])
        yield Example(query, text, title=told_title(material.title, passage.heading), source="sentence-context")


def _unlabelled(material: Material, sentence: str) -> str:
    """A sentence without the name of its speaker or field."""
    label, colon, rest = sentence.partition(": ")
    return rest if colon and material.statistics.is_label(label) else sentence


def _without(text: str, spans: Sequence[Span]) -> str:
    """The text without some spans, and without what they leave behind: empty list items, double spaces."""
    kept = ""
    position = 0
    for span in (*spans, Span(len(text), len(text))):
        piece = text[position : span.start]
        kept = kept.rstrip(" \t") + (piece.lstrip(" \t") if not kept or kept.endswith("\n") else piece)
        position = span.end
    return _LONE_MARKS.sub("", kept).strip()


def _crop(material: Material, text: str, spans: Sequence[Span], words: int) -> str:
    first = material.random.randrange(len(spans) - words + 1)
    return text[spans[first].start : spans[first + words - 1].end]

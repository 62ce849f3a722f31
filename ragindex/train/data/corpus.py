"""What is rare and what is repeated in a corpus: word rarity, boilerplate lines, headings that say nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from ragindex.loaders.words import words
from ragindex.train.data.definitions import labels
from ragindex.train.data.keys import folded
from ragindex.types import Document

__all__ = ["CorpusStatistics"]

_WINDOW = 200  # words: rarity is counted over passages, so that one long document is a corpus too
_BOILERPLATE_SHARE = 0.02
_COMMON_SHARE = 0.05
_FEWEST = 3  # documents that have the same heading or label
_FEWEST_LINES = 5  # documents that have the same line: three may be versions of one text
_FEWEST_TITLES = 8  # documents that have the same title: some may be parts of one text
# Words that carry no topic. A small corpus cannot tell them from others by counting.
_FUNCTION_WORDS = words(
    "a about above after again against all also am an and any are as at be because been before being below between "
    "both but by can cannot could did do does doing down during each either else ever every few for from further get "
    "got had has have having he her here hers him his how however i if in into is it its itself just let like may me "
    "might more most much must my no nor not now of off on once one only or other our out over own per rather s same "
    "shall she should since so some such t than that the their them then there these they this those through thus to "
    "too under until up upon us use used uses using very was we were what when where whether which while who whom "
    "whose why will with within without would yes yet you your"
)


class CorpusStatistics:
    """Counts over some documents, which may be a sample of the corpus."""

    def __init__(self, documents: Iterable[Document]) -> None:
        """Count once over the documents."""
        self._words: Counter[str] = Counter()
        self._windows = 0
        self._rarities: dict[str, float] = {}
        lines: Counter[int] = Counter()
        headings: Counter[int] = Counter()
        names: Counter[int] = Counter()
        titles: Counter[int] = Counter()
        seen: set[int] = set()
        for document in documents:
            if (text := _key(document.text)) in seen:
                continue  # a copy repeats nothing but itself
            seen.add(text)
            self._count_words(folded(document.text).split())
            lines.update({_key(line) for line in document.text.split("\n") if line.strip()})
            headings.update({_key(title) for title in _headings(document)})
            titles.update([_key(document.title)])
            names.update({_key(label) for label in labels(document.text)})
        self._lines = _frequent(lines, max(_FEWEST_LINES, math.ceil(_BOILERPLATE_SHARE * len(seen))))
        common = math.ceil(_COMMON_SHARE * len(seen))
        self._headings = _frequent(headings, max(_FEWEST, common))
        self._titles = _frequent(titles, max(_FEWEST_TITLES, common))
        self._labels = _frequent(names, _FEWEST)

    def _count_words(self, found: Sequence[str]) -> None:
        for start in range(0, len(found), _WINDOW):
            self._words.update(set(found[start : start + _WINDOW]))
            self._windows += 1

    def rarity(self, word: str) -> float:
        """Inverse document frequency of a word over passages, from 0 (in all of them, or a function word) up."""
        rarity = self._rarities.get(word)
        if rarity is None:
            rarity = self._rarities[word] = max(map(self._part_rarity, folded(word).split()), default=0.0)
        return rarity

    def _part_rarity(self, part: str) -> float:
        if part in _FUNCTION_WORDS or len(part) == 1:
            return 0.0
        return max(0.0, math.log((1 + self._windows) / (0.5 + self._words[part])))

    def is_salient(self, word: str) -> bool:
        """Whether a word says something: no function word, and in at most a tenth of the passages of a corpus that has
        enough of them.
        """
        rarity = self.rarity(word)
        return rarity > 0 and (self._windows < 50 or rarity > math.log(10))

    def is_boilerplate(self, line: str) -> bool:
        """Whether a line stands in several documents: navigation, a licence, a signature."""
        return _key(line) in self._lines

    def is_common(self, heading: str) -> bool:
        """Whether a heading is that of several documents: "Introduction", "See also"."""
        return _key(heading) in self._headings

    def is_common_title(self, title: str) -> bool:
        """Whether a title is that of many documents: "Untitled", the name of a site."""
        return _key(title) in self._titles

    def is_label(self, text: str) -> bool:
        """Whether a text stands before a colon in several documents: a field of a form, a speaker."""
        return _key(text) in self._labels


def _frequent(counts: Counter[int], least: int) -> frozenset[int]:
    return frozenset(key for key, number in counts.items() if number >= least)


def _headings(document: Document) -> set[str]:
    """The headings of a document, less its title, which is usually the first of them."""
    return {title for block in document.blocks for title in block.heading} - {"", document.title}


def _key(text: str) -> int:
    return int.from_bytes(blake2b(folded(text).encode("utf-8", "surrogatepass"), digest_size=8).digest())

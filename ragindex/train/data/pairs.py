"""Pseudo-pairs: queries with the texts that answer them, made from documents alone."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from ragindex.errors import UsageError
from ragindex.train.data import answers, kinds
from ragindex.train.data.corpus import CorpusStatistics
from ragindex.train.data.examples import Example
from ragindex.train.data.keys import folded
from ragindex.train.data.passages import Material, prepared
from ragindex.types import Document

__all__ = ["PAIR_KINDS", "PairOptions", "document_pairs", "pairs_from_documents"]

Kind = Callable[[Material], Iterator[Example]]

PAIR_KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "title-section": kinds.title_section,
        "heading-section": kinds.heading_section,
        "first-sentence": kinds.first_sentence,
        "sentence-context": kinds.sentence_context,
        "words-passage": kinds.words_passage,
        "crop-crop": kinds.crop_crop,
        "term-definition": answers.term_definition,
        "definition-term": answers.definition_term,
        "question-answer": answers.question_answer,
        "name-docstring": answers.name_docstring,
        "docstring-code": answers.docstring_code,
    }
)
_SAMPLE_DOCUMENTS = 5000
_SAMPLE_CHARACTERS = 30_000_000


@dataclass(frozen=True, slots=True)
class PairOptions:
    """What pairs look like.

    words: of a positive at most; the default fills a chunk of 256 tokens. keep: how likely a query that was cut out of
    its positive stays in it. per_document: pairs of one kind from one document at most, so that a book does not drown
    a thousand notes.
    """

    words: int = 200
    keep: float = 0.1
    per_document: int = 100

    def __post_init__(self) -> None:
        if self.words < 30 or not 0 <= self.keep <= 1 or self.per_document < 1:
            raise UsageError("Pairs need words of at least 30, keep from 0 to 1 and per_document of at least 1.")


def pairs_from_documents(
    documents: Iterable[Document],
    *,
    kinds: Iterable[str] = tuple(PAIR_KINDS),
    seed: int = 0,
    options: PairOptions | None = None,
) -> Iterator[Example]:
    """Pairs of the given kinds, document by document; `Example.source` is the kind.

    A document's pairs depend on its path and text, the seed and the statistics of the corpus (word rarity,
    boilerplate), which are counted on the first 5,000 documents or 30 million characters; only these are held in
    memory. Raises UsageError for an unknown kind.
    """
    wanted = tuple(kinds)
    unknown = sorted(set(wanted) - set(PAIR_KINDS))
    if unknown:
        raise UsageError(f"There is no kind of pair called {unknown[0]!r}; known are {', '.join(PAIR_KINDS)}.")
    return _stream(iter(documents), wanted, seed, options or PairOptions())


def _stream(
    documents: Iterator[Document], wanted: tuple[str, ...], seed: int, options: PairOptions
) -> Iterator[Example]:
    sample: list[Document] = []
    characters = 0
    for document in documents:
        sample.append(document)
        characters += len(document.text)
        if len(sample) >= _SAMPLE_DOCUMENTS or characters >= _SAMPLE_CHARACTERS:
            break
    statistics = CorpusStatistics(sample)
    for document in itertools.chain(sample, documents):
        material = prepared(document, statistics=statistics, words=options.words, keep=options.keep)
        yield from document_pairs(material, kinds=wanted, seed=seed, most=options.per_document)


def document_pairs(
    material: Material, *, kinds: Iterable[str] = tuple(PAIR_KINDS), seed: int = 0, most: int = 100
) -> Iterator[Example]:
    """Pairs of one document, at most `most` of a kind. See `pairs_from_documents`."""
    for kind in kinds:
        # A generator for each kind: its pairs are the same whichever other kinds are asked for.
        chance = random.Random(f"{seed} {kind} {material.document.path}")  # noqa: S311 - sampling, not secrecy
        made = PAIR_KINDS[kind](replace(material, random=chance))
        usable = (pair for pair in made if folded(pair.query) != folded(pair.positive))
        yield from itertools.islice(usable, most)

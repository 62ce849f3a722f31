"""A retrieval test made from documents alone: pseudo-queries over passages that no longer contain them.

A query that still stood in its passage would be found by its words alone, and nothing could beat a lexical search.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ragindex.errors import TrainingError
from ragindex.evaluation import Dataset
from ragindex.evaluation import Passage as Entry
from ragindex.train.data import answers, kinds
from ragindex.train.data.corpus import CorpusStatistics
from ragindex.train.data.examples import Example
from ragindex.train.data.keys import folded
from ragindex.train.data.pairs import PairOptions
from ragindex.train.data.passages import Material, prepared, title_line
from ragindex.train.data.prose import plain
from ragindex.types import Document

__all__ = ["pseudo_queries"]

_TITLED = 0.3  # of the documents are asked for by their title


@dataclass(slots=True)
class _Test:
    """What one document contributes: entries, and queries with the places of the entries that answer them."""

    entries: list[Entry] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    answers: list[range] = field(default_factory=list)

    def add(self, pair: Example) -> None:
        """Add an entry and the query that it answers."""
        self.queries.append(pair.query)
        self.answers.append(range(len(self.entries), len(self.entries) + 1))
        self.entries.append(Entry(pair.title, pair.positive))

    def asked(self) -> Iterator[tuple[str, range]]:
        """The queries that no other entry repeats."""
        texts = [folded(f"{entry.title} {entry.text}") for entry in self.entries]
        for query, found in zip(self.queries, self.answers, strict=True):
            words = folded(query)
            if not any(words in text for place, text in enumerate(texts) if place not in found):
                yield query, found


def pseudo_queries(
    documents: Sequence[Document],
    *,
    distractors: Iterable[Document] = (),
    limit: int = 1000,
    seed: int = 0,
    options: PairOptions | None = None,
) -> Dataset:
    """A data set of pseudo-queries to `documents`; its corpus are their passages and those of the `distractors`.

    A passage is asked for by one of its sentences or by a question in it, which is cut out of it, some documents by
    their title, which then none of their passages carries, and program text by its descriptions. At most one query is
    about one passage, and at most `limit` queries, drawn at random, are kept; ids are "path#number". Raises
    TrainingError when no query can be made.
    """
    options = replace(options or PairOptions(), keep=0.0)
    others = list(distractors)
    statistics = CorpusStatistics([*documents, *others])
    corpus: dict[str, Entry] = {}
    pool: list[tuple[str, list[str]]] = []
    for document in documents:
        chance = random.Random(f"{seed} {document.path}")  # noqa: S311 - sampling, not secrecy
        material = prepared(document, statistics=statistics, words=options.words, keep=0.0)
        test = _tested(replace(material, random=chance))
        keys = [f"{document.path}#{number}" for number in range(len(test.entries))]
        corpus.update(zip(keys, test.entries, strict=True))
        pool.extend((query, [keys[place] for place in found]) for query, found in test.asked())
    if not pool:
        raise TrainingError(f"No test query can be made from {len(documents)} documents; they hold too little text.")
    for document in others:
        material = prepared(document, statistics=statistics, words=options.words, keep=0.0)
        corpus.update({f"{document.path}#{number}": entry for number, entry in enumerate(_entries(material))})
    drawn = random.Random(seed).sample(pool, min(limit, len(pool)))  # noqa: S311 - sampling, not secrecy
    named = {f"q{number}": each for number, each in enumerate(drawn)}
    return Dataset(
        name="pseudo-queries",
        corpus=corpus,
        files=None,
        queries={key: query for key, (query, _) in named.items()},
        qrels={key: dict.fromkeys(found, 1) for key, (_, found) in named.items()},
    )


def _tested(material: Material) -> _Test:
    test = _Test()
    if material.language:
        for pair in answers.docstring_code(material):
            test.add(pair)
        return test
    titled = next(kinds.title_section(material), None) if material.random.random() < _TITLED else None
    title = "" if titled else material.title
    for passage in material.passages:
        single = replace(material, title=title, passages=(passage,), sections=())
        order = material.random.sample(_KINDS, len(_KINDS))
        example = next((pair for kind in order for pair in kind(single)), None)
        if example is None:
            test.entries.append(Entry(title_line(title, passage.heading), passage.text))
        else:
            test.add(example)
    if titled:
        test.queries.append(plain(material.title))
        test.answers.append(range(len(test.entries)))
    return test


def _entries(material: Material) -> Iterator[Entry]:
    for passage in material.passages:
        title = "" if material.language else title_line(material.title, passage.heading)
        yield Entry(title, passage.text)


_KINDS = (kinds.first_sentence, kinds.sentence_context, answers.question_answer)

"""Hard negatives: passages that look like a query's answer and are none.

Candidates come from a `Source`: neighbours by vector and by words. Most of the nearest are answers that nobody has
labelled, and training against those does harm (RocketQA, arXiv 2010.08191). So a candidate is a negative only if

- it is no positive of the same query, and neither of it and the positive is part of the other;
- its cosine lies well below the positive's (`mining_rules.score_limit`; NV-Retriever, arXiv 2407.15831);
- a guide, another and better encoder, does not find it as near: g(q, n) <= g(q, p) - margin (GISTEmbed, arXiv
  2402.16829, does so within a batch);
- it is not of the positive's document, where that is asked for.

The hardest of them are taken, or a sample in which the harder are likelier. What is in memory is a batch of examples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ragindex.encoder import Encoder
from ragindex.errors import UsageError
from ragindex.store.rows import Float32Array
from ragindex.train.data.examples import Example
from ragindex.train.data.keys import text_key
from ragindex.train.embedder import Candidate, Embedder, candidate
from ragindex.train.mining_rules import PART, MiningOptions, drawn, overlap, score_limit, soft_scores
from ragindex.train.sources import Found, Source

__all__ = ["Drop", "Mined", "MiningOptions", "MiningReport", "mine"]

Drop = Literal["positive", "margin", "guide", "document"]

_BATCH = 256  # examples
_DENSE, _LEXICAL, _GUIDE = range(3)  # rows of a case's scores


@dataclass(frozen=True, slots=True)
class Mined:
    """An example after mining: how many negatives were found for it, and how many candidates dropped, by reason.

    "positive": a positive of the query, or part of one; "margin": too near; "guide"; "document". Candidates that were
    not needed are looked at for the first two only as far as that is cheap.
    """

    example: Example
    found: int
    dropped: Mapping[Drop, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MiningReport:
    """What mining came to. mined: examples that got a negative; negatives: those found; without: examples that have
    none, neither found nor brought along; dropped: see `Mined`.
    """

    examples: int = 0
    mined: int = 0
    negatives: int = 0
    without: int = 0
    dropped: Mapping[Drop, int] = field(default_factory=dict)

    def plus(self, item: Mined) -> MiningReport:
        """The report with one more example."""
        return MiningReport(
            self.examples + 1,
            self.mined + (item.found > 0),
            self.negatives + item.found,
            self.without + (not item.example.negatives),
            Counter(self.dropped) + Counter(item.dropped),
        )


def mine(
    examples: Sequence[Example],
    source: Source,
    *,
    encoder: Encoder,
    guide: Encoder | None = None,
    options: MiningOptions | None = None,
) -> Iterator[Mined]:
    """Examples with negatives, hardest first, in the order of the examples; the same input gives the same ones.

    Negatives that an example brings along stay and count. A title goes in front of a negative's text where the example
    has a title too: negatives have no field for one, and a difference in form would give them away. Raises UsageError
    when scores of a guide are asked for and there is none.
    """
    options = options or MiningOptions()
    if options.scores == "guide" and guide is None:
        raise UsageError("Scores of a guide need a guide; name its encoder.")
    miner = _Miner(source, Embedder(encoder), None if guide is None else Embedder(guide), options, _answers(examples))
    return miner.run(examples)


class _Case:
    """One example on its way: its candidates, which of them are still to be looked at, which were taken.

    Scores have a row for each scorer, NaN where it is not known, and a column for each text: the positive, the
    negatives that were brought along, the candidates. The latter begin at `begin`.
    """

    def __init__(self, example: Example, found: Found) -> None:
        self.example = example
        self.texts = [candidate(example.positive, title=example.title), *map(candidate, example.negatives)]
        self.begin = len(self.texts)
        self.texts += found.candidates
        self.scores = np.full((3, len(self.texts)), np.nan)
        self.scores[_DENSE, self.begin :] = found.dense
        self.scores[_LEXICAL, self.begin :] = found.lexical
        own = next((column for column in self.candidates if self.texts[column].key == self.texts[0].key), None)
        if own is not None:
            self.scores[:, 0] = self.scores[:, own]
        self.hardness = np.zeros(len(self.texts))
        self.order: list[int] = []
        self.taken: list[int] = []
        self.dropped: Counter[Drop] = Counter()

    @property
    def candidates(self) -> range:
        """Columns."""
        return range(self.begin, len(self.texts))

    def unknown(self) -> list[int]:
        """Columns that the source gave no cosine for."""
        return [int(column) for column in np.flatnonzero(np.isnan(self.scores[_DENSE]))]

    def next(self, count: int) -> list[int]:
        """The next columns, at most `count`, that repeat neither the positive nor another negative."""
        found: list[int] = []
        while self.order and len(found) < count:
            column = self.order.pop(0)
            text = self.texts[column].text
            if overlap(text, self.example.positive) >= PART:
                self.dropped["positive"] += 1
                continue
            others = (*range(1, self.begin), *self.taken, *found)
            if all(overlap(text, self.texts[other].text) < PART for other in others):
                found.append(column)
        return found


class _Miner:
    def __init__(
        self,
        source: Source,
        embedder: Embedder,
        guide: Embedder | None,
        options: MiningOptions,
        answers: Mapping[bytes, set[bytes]],
    ) -> None:
        self._source, self._embedder, self._guide = source, embedder, guide
        self._options, self._answers = options, answers

    def run(self, examples: Sequence[Example]) -> Iterator[Mined]:
        for start in range(0, len(examples), _BATCH):
            cases = self._cases(examples[start : start + _BATCH])
            for number, case in enumerate(cases, start):
                if len(case.example.negatives) < self._options.negatives:
                    case.order = self._ordered(case, number)
            self._take(cases)
            yield from (self._mined(case) for case in cases)

    def _cases(self, batch: Sequence[Example]) -> list[_Case]:
        vectors = self._embedder.queries(batch)
        lists = self._source.find(batch, vectors, depth=self._options.depth, lexical=self._options.lexical)
        cases = [_Case(example, found) for example, found in zip(batch, lists, strict=True)]
        _score(cases, self._embedder, vectors, [case.unknown() for case in cases], row=_DENSE)
        for case in cases:
            case.hardness = soft_scores(case.scores)
        return cases

    def _ordered(self, case: _Case, number: int) -> list[int]:
        """The candidates that pass what can be decided without reading them, in the order they are to be tried."""
        answers = self._answers[text_key(case.example.query)]
        strange = np.array([case.texts[column].key not in answers for column in case.candidates], bool)
        known = {case.texts[column].key for column in case.candidates if not strange[column - case.begin]}
        case.dropped["positive"] += len(known - {case.texts[0].key})
        hardness = case.hardness
        columns = np.arange(case.begin, len(case.texts))[strange]
        columns = columns[np.argsort(-hardness[columns], kind="stable")][self._options.skip :]
        near = case.scores[_DENSE, columns] >= score_limit(case.scores[_DENSE, 0], self._options)
        case.dropped["margin"] += int(near.sum())
        columns = columns[~near]
        if self._options.other_documents:
            columns = _of_other_documents(case, columns)
        order = drawn(hardness[columns], temperature=self._options.temperature, seed=(self._options.seed, number))
        return [int(column) for column in columns[order]]

    def _take(self, cases: Sequence[_Case]) -> None:
        """Fill every case up, showing the guide no more candidates than it takes."""
        guide = self._guide
        asked = np.empty((0, 0), np.float32) if guide is None else guide.queries([case.example for case in cases])
        if guide is not None:
            _score(cases, guide, asked, [list(range(case.begin)) for case in cases], row=_GUIDE)
        while True:
            wanted = [self._options.negatives - len(case.example.negatives) - len(case.taken) for case in cases]
            looked = [case.next(count) for case, count in zip(cases, wanted, strict=True)]
            if not any(looked):
                return
            if guide is not None:
                _score(cases, guide, asked, looked, row=_GUIDE)
            for case, columns in zip(cases, looked, strict=True):
                limit = case.scores[_GUIDE, 0] - self._options.guide_margin  # NaN without a guide: nothing is above it
                good = [column for column in columns if not case.scores[_GUIDE, column] > limit]
                case.taken += good
                case.dropped["guide"] += len(columns) - len(good)

    def _mined(self, case: _Case) -> Mined:
        example, kind = case.example, self._options.scores
        case.taken.sort(key=lambda column: -case.hardness[column])  # a sample came in its own order
        texts = [_shown(case.texts[column], titled=bool(example.title)) for column in case.taken]
        scores = () if texts else example.scores
        if kind is not None:
            rows = {"dense": case.scores[_DENSE], "guide": case.scores[_GUIDE]}
            row = rows[kind] if kind in rows else soft_scores(case.scores)
            scores = tuple(round(float(row[column]), 6) for column in (*range(case.begin), *case.taken))
        made = replace(example, negatives=(*example.negatives, *texts), scores=scores)
        return Mined(made, len(texts), {reason: count for reason, count in case.dropped.items() if count})


def _score(
    cases: Sequence[_Case], embedder: Embedder, vectors: Float32Array, columns: Sequence[Sequence[int]], *, row: int
) -> None:
    """Fill in cosines of some columns with the queries' vectors (n, d)."""
    # First all at once, so that the encoder sees full batches.
    embedder.remember([case.texts[column] for case, some in zip(cases, columns, strict=True) for column in some])
    for case, vector, some in zip(cases, vectors, columns, strict=True):
        case.scores[row, some] = embedder.remembered([case.texts[column] for column in some]) @ vector


def _of_other_documents(case: _Case, columns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Without those of the documents that hold the positive, as far as the candidates show which these are."""
    positive = case.texts[0]
    own = {
        item.document
        for item in (case.texts[column] for column in case.candidates)
        if item.document and (item.key == positive.key or overlap(item.text, positive.text) >= PART)
    }
    kept = [column for column in columns if case.texts[column].document not in own]
    case.dropped["document"] += len(columns) - len(kept)
    return np.array(kept, np.int64)


def _answers(examples: Iterable[Example]) -> dict[bytes, set[bytes]]:
    """The keys of all positives of a query, by the query's key."""
    answers: dict[bytes, set[bytes]] = {}
    for example in examples:
        answers.setdefault(text_key(example.query), set()).add(text_key(example.positive))
    return answers


def _shown(item: Candidate, *, titled: bool) -> str:
    return f"{item.title}\n{item.text}" if titled and item.title else item.text

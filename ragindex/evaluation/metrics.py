"""Ranking metrics, one value per query, equal to those of trec_eval.

Every function takes ranked ids per query and judgments per query, and returns float64 of shape (n,): one value for
each id of `judged(qrels)`, in that order. A query that was not answered counts 0, as does a document that was not
judged. Judgments above 0 are relevant; their size is the (linear) gain of nDCG.

Sources: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques" (2002), in the variant of
trec_eval's `ndcg_cut`; recall@k, map@k and the reciprocal rank are trec_eval's `recall`, `map_cut` and `recip_rank`,
the latter with ranks beyond k worth 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ragindex.errors import UsageError

__all__ = [
    "METRICS",
    "Qrels",
    "Rankings",
    "average_precision",
    "judged",
    "measured",
    "ndcg",
    "ranked",
    "recall",
    "reciprocal_rank",
]

Qrels = Mapping[str, Mapping[str, int]]
Rankings = Mapping[str, Sequence[str]]
_Floats = NDArray[np.float64]


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Document ids by descending score; ties, as in trec_eval, by descending id."""
    return [document for document, _ in sorted(scores.items(), key=lambda item: (item[1], item[0]), reverse=True)]


def judged(qrels: Qrels) -> list[str]:
    """The ids of queries with at least one relevant document, in the order of `qrels`; the others measure nothing."""
    return [query for query, judgments in qrels.items() if any(gain > 0 for gain in judgments.values())]


def ndcg(rankings: Rankings, qrels: Qrels, *, k: int = 10) -> _Floats:
    """Discounted cumulated gain of the first k over that of the best possible ranking."""

    def measure(gains: _Floats, ideal: _Floats) -> float:
        discounts = 1.0 / np.log2(np.arange(2, k + 2))
        return float(gains @ discounts[: len(gains)] / (ideal[:k] @ discounts[: len(ideal)]))

    return _each(rankings, qrels, k, measure)


def recall(rankings: Rankings, qrels: Qrels, *, k: int = 100) -> _Floats:
    """Share of the relevant documents that are among the first k."""
    return _each(rankings, qrels, k, lambda gains, ideal: np.count_nonzero(gains) / len(ideal))


def reciprocal_rank(rankings: Rankings, qrels: Qrels, *, k: int = 10) -> _Floats:
    """1 / rank of the first relevant document among the first k, else 0."""

    def measure(gains: _Floats, ideal: _Floats) -> float:  # noqa: ARG001 (one shape for every metric)
        hits = np.flatnonzero(gains)
        return 1.0 / float(hits[0] + 1) if len(hits) else 0.0

    return _each(rankings, qrels, k, measure)


def average_precision(rankings: Rankings, qrels: Qrels, *, k: int = 100) -> _Floats:
    """Sum of the precisions at the ranks of relevant documents among the first k, over the number of relevant ones."""

    def measure(gains: _Floats, ideal: _Floats) -> float:
        ranks = np.flatnonzero(gains) + 1.0
        return float(np.sum(np.arange(1, len(ranks) + 1) / ranks)) / len(ideal)

    return _each(rankings, qrels, k, measure)


METRICS: Mapping[str, Callable[[Rankings, Qrels], _Floats]] = {
    "ndcg@10": partial(ndcg, k=10),
    "recall@10": partial(recall, k=10),
    "recall@100": partial(recall, k=100),
    "mrr@10": partial(reciprocal_rank, k=10),
    "map@100": partial(average_precision, k=100),
}
"""What `ragindex eval` reports, by the names it uses for them; the first one is the one to judge by."""


def measured(rankings: Rankings, qrels: Qrels) -> dict[str, _Floats]:
    """Every metric of `METRICS`, each (n,). Raises UsageError when no query has a relevant document."""
    if not judged(qrels):
        raise UsageError("No query has a relevant document; there is nothing to measure.")
    return {name: metric(rankings, qrels) for name, metric in METRICS.items()}


def _each(rankings: Rankings, qrels: Qrels, k: int, measure: Callable[[_Floats, _Floats], float]) -> _Floats:
    if k < 1:
        raise UsageError(f"The cut-off of a metric is {k}; it must be at least 1.")
    values = []
    for query in judged(qrels):
        judgments, ranking = qrels[query], rankings.get(query, ())
        if len(set(ranking)) < len(ranking):
            raise UsageError(f"The ranking of query {query!r} names a document twice.")
        gains = np.array([max(0, judgments.get(document, 0)) for document in ranking[:k]], np.float64)
        ideal = np.array(sorted((gain for gain in judgments.values() if gain > 0), reverse=True), np.float64)
        values.append(measure(gains, ideal))
    return np.array(values, np.float64)

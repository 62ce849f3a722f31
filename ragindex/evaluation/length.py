"""Does length alone decide? Two diagnostics: do vectors of longer texts move together, and are longer documents found
more often than their relevance warrants?

Sources: Zhou et al., "Length-Induced Embedding Collapse in PLM-based Models" (arXiv 2410.24200), for the first;
Singhal, Buckley and Mitra, "Pivoted document length normalization" (1996), for holding the chance of being retrieved
against the chance of being relevant; Cureton, "Rank-biserial correlation" (1956), for the measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragindex.evaluation import resampling
from ragindex.evaluation.metrics import Qrels, Rankings, judged
from ragindex.evaluation.resampling import Estimate, Floats

__all__ = ["Association", "Collapse", "LengthBias", "RetrievalBias", "collapse", "retrieval_bias"]

_RESAMPLES = 2_000


class Association(NamedTuple):
    """A rank-biserial correlation in [-1, 1] and the number of (query, document) pairs on its rarer side."""

    correlation: Estimate
    pairs: int


@dataclass(frozen=True, slots=True)
class Collapse:
    """How alike the vectors of `documents` documents are when each is cut to so many tokens.

    cosines: for each length in `tokens`, the mean cosine over all pairs of different documents. growth: that of the
    longest minus that of the shortest; above 0, vectors of long texts crowd together.
    """

    documents: int
    tokens: tuple[int, ...]
    cosines: tuple[Estimate, ...]
    growth: Estimate


@dataclass(frozen=True, slots=True)
class RetrievalBias:
    """Is a longer document found more often?

    relevant: among the relevant documents, those found in the first k against those missed; below 0, long ones are
    missed more often. other: among the documents not judged relevant, those found all the same against the rest of
    the corpus; above 0, long ones push in. None where one side is empty.
    """

    relevant: Association | None
    other: Association | None

    def as_json(self) -> dict[str, Any]:
        """The object under "length"."retrieval" of `ragindex eval --json`."""
        return {"relevant": _association_json(self.relevant), "not_relevant": _association_json(self.other)}


@dataclass(frozen=True, slots=True)
class LengthBias:
    """Both diagnostics of one encoder on one data set; collapse is None where too few documents are long enough."""

    collapse: Collapse | None
    retrieval: Mapping[str, RetrievalBias]

    def as_json(self) -> dict[str, Any]:
        """The object under "length" of `ragindex eval --json`."""
        return {
            "collapse": None if self.collapse is None else _collapse_json(self.collapse),
            "retrieval": {mode: bias.as_json() for mode, bias in self.retrieval.items()},
        }


def collapse(vectors: Mapping[int, NDArray[np.float32]], *, resamples: int = _RESAMPLES, seed: int = 0) -> Collapse:
    """The diagnostic from unit vectors (n, d) of the same n >= 2 documents, cut to each of several lengths.

    The documents are the same at every length, so that their subjects cannot pass for an effect of length. Intervals
    resample documents; a document is never paired with itself.
    """
    lengths = sorted(vectors)
    documents = len(vectors[lengths[0]])
    generator = np.random.default_rng(seed)
    drawn: list[list[Floats]] = [[] for _ in lengths]
    for weights in resampling.counts(documents, resamples=resamples, generator=generator):
        for position, length in enumerate(lengths):
            drawn[position].append(_mean_cosine(vectors[length], weights))
    whole = np.ones((1, documents))
    values = [float(_mean_cosine(vectors[length], whole)[0]) for length in lengths]
    resampled = [np.concatenate(parts) for parts in drawn]
    return Collapse(
        documents=documents,
        tokens=tuple(lengths),
        cosines=tuple(map(Estimate, values, map(resampling.interval, resampled))),
        growth=Estimate(values[-1] - values[0], resampling.interval(resampled[-1] - resampled[0])),
    )


def retrieval_bias(
    rankings: Rankings,
    qrels: Qrels,
    lengths: Mapping[str, int],
    *,
    k: int = 10,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> RetrievalBias:
    """The diagnostic from ranked documents and the length of every document of the corpus, in any unit.

    The rank-biserial correlation is the chance that a document of the first side is longer than one of the second,
    minus the chance that it is shorter. Relevant documents are compared across all queries, as many queries have only
    one; the others within each query, and queries are averaged. Documents that are not in `lengths` are left out.
    Intervals resample queries.
    """
    found: list[list[int]] = []
    missed: list[list[int]] = []
    intruding: list[float] = []
    intruders = 0
    corpus = np.sort(np.fromiter(lengths.values(), np.float64, len(lengths)))
    for query in judged(qrels):
        relevant = {document for document, gain in qrels[query].items() if gain > 0 and document in lengths}
        first = [document for document in rankings.get(query, ())[:k] if document in lengths]
        found.append([lengths[document] for document in first if document in relevant])
        missed.append([lengths[document] for document in relevant.difference(first)])
        wrong = [lengths[document] for document in first if document not in relevant]
        known = np.sort(np.array([lengths[document] for document in relevant.union(first)], np.float64))
        if wrong and len(known) < len(corpus):
            intruders += len(wrong)
            intruding.append(_longer(np.array(wrong, np.float64), corpus, known))
    return RetrievalBias(
        relevant=_pooled(found, missed, resamples=resamples, seed=seed),
        other=_averaged(intruding, intruders, resamples=resamples, seed=seed),
    )


def _mean_cosine(vectors: NDArray[np.float32], weights: Floats) -> Floats:
    """Mean cosine over pairs of different documents, for each row of weights (resamples, n): (resamples,)."""
    sums = weights @ np.asarray(vectors, np.float64)
    alone = (weights * weights).sum(axis=1)
    result: Floats = ((sums * sums).sum(axis=1) - alone) / np.maximum(weights.sum(axis=1) ** 2 - alone, 1.0)
    return result


def _longer(lengths: Floats, corpus: Floats, known: Floats) -> float:
    """Rank-biserial correlation of `lengths` against the corpus without `known`; both are sorted."""
    shorter = np.searchsorted(corpus, lengths, "left") - np.searchsorted(known, lengths, "left")
    longer = (len(corpus) - np.searchsorted(corpus, lengths, "right")) - (
        len(known) - np.searchsorted(known, lengths, "right")
    )
    return float(np.mean(shorter - longer)) / (len(corpus) - len(known))


def _averaged(values: Sequence[float], pairs: int, *, resamples: int, seed: int) -> Association | None:
    if not values:
        return None
    generator = np.random.default_rng(seed)
    array = np.asarray(values, np.float64)
    drawn = resampling.counts(len(array), resamples=resamples, generator=generator)
    means = np.concatenate([weights @ array for weights in drawn]) / len(array)
    return Association(Estimate(float(array.mean()), resampling.interval(means)), pairs)


def _pooled(
    found: Sequence[Sequence[int]], missed: Sequence[Sequence[int]], *, resamples: int, seed: int
) -> Association | None:
    """The correlation over all pairs; one entry of `found` and `missed` for each query."""
    rows = [
        (length, query, side)
        for side, groups in enumerate((missed, found))
        for query, group in enumerate(groups)
        for length in group
    ]
    length, query, side = np.array(sorted(rows), np.int64).reshape(-1, 3).T
    pairs = int(min(side.sum(), len(side) - side.sum()))
    if not pairs:
        return None
    _, starts = np.unique(length, return_index=True)

    def correlation(weights: Floats) -> Floats:
        each = weights[:, query]
        ours = np.add.reduceat(each * side, starts, axis=1)
        theirs = np.add.reduceat(each * (1 - side), starts, axis=1)
        # Theirs that are shorter count for, those that are longer against; equal ones not at all.
        below = np.cumsum(theirs, axis=1) - theirs
        above = theirs.sum(axis=1, keepdims=True) - theirs - below
        total = ours.sum(axis=1) * theirs.sum(axis=1)
        result: Floats = np.where(total > 0, (ours * (below - above)).sum(axis=1) / np.maximum(total, 1.0), np.nan)
        return result

    generator = np.random.default_rng(seed)
    drawn = resampling.counts(len(found), resamples=resamples, generator=generator, width=len(length))
    resampled = np.concatenate([correlation(weights) for weights in drawn])
    value = float(correlation(np.ones((1, len(found))))[0])
    return Association(Estimate(value, resampling.interval(resampled)), pairs)


def _collapse_json(found: Collapse) -> dict[str, Any]:
    return {
        "documents": found.documents,
        "tokens": list(found.tokens),
        "cosine": [each.value for each in found.cosines],
        "intervals": [list(each.interval) for each in found.cosines],
        "growth": found.growth.value,
        "ci95": list(found.growth.interval),
    }


def _association_json(found: Association | None) -> dict[str, Any] | None:
    if found is None:
        return None
    value, interval = found.correlation
    return {"correlation": value, "ci95": list(interval), "pairs": found.pairs}

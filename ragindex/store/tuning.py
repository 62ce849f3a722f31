"""How widely an approximate search has to look: measured against exact search on imitated queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ragindex.store.rows import Float32Array, IdArray, VectorBatch

__all__ = ["DEEPEST", "FAR", "NEAREST", "Truth", "Tuning", "enough", "imitated", "recall_of", "tuning_of"]

_RECALL = 0.99  # of the nearest, what is aimed at
NEAREST = 10
DEEPEST = 4096  # candidates, at most, that are tried when the depth is measured
FAR = 100  # results that are aimed at too: searches that fuse or fold ask for about as many
_QUERIES = 64
_TIE = 2e-6  # scores that are nearer to each other may be equal where they are rounded
_OFF = 1.2  # length of the step that makes a query of a unit vector


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a search over a base does, and what that reached.

    near, far: candidates that are fetched and scored exactly for 10 and for 100 results (0: scores are exact, as many
    as results); recall: share of the ten nearest that imitated queries found.
    """

    near: int = 0
    far: int = 0
    recall: float = 1.0

    def candidates(self, k: int) -> int:
        """How many to fetch for k results; between the two depths in a line, beyond in proportion."""
        if self.near == 0:
            return k
        if k <= NEAREST:
            return max(self.near, k)
        if k <= FAR:
            share = (k - NEAREST) / (FAR - NEAREST)
            return max(k, math.ceil(self.near + share * (self.far - self.near)))
        return math.ceil(k * self.far / FAR)


class Truth:
    """The exactly nearest of queries (m, d), found while vectors pass by."""

    def __init__(self, queries: Float32Array) -> None:
        self.queries = queries
        self._ids: IdArray = np.empty((len(queries), 0), np.int64)
        self._scores: Float32Array = np.empty((len(queries), 0), np.float32)

    def see(self, batch: VectorBatch) -> None:
        """Take vectors into account."""
        ids = np.broadcast_to(batch.ids, (len(self.queries), len(batch.ids)))
        self._ids = np.concatenate([self._ids, ids], axis=1)
        self._scores = np.concatenate([self._scores, self.queries @ batch.vectors.T], axis=1)
        if self._scores.shape[1] > FAR + 1:
            self._keep(np.argpartition(-self._scores, FAR, axis=1)[:, : FAR + 1])

    def nearest(self, k: int = NEAREST) -> list[IdArray]:
        """For each query the ids of the k nearest, k up to 100, without those that tie with the one after: which of
        many copies of a text are found is no matter of quality.
        """
        self._keep(np.argsort(-self._scores, axis=1, kind="stable"))
        if self._ids.shape[1] <= k:
            return list(self._ids)
        clear = self._scores[:, :k] > self._scores[:, k : k + 1] + _TIE
        return [ids[:k][row] for ids, row in zip(self._ids, clear, strict=True)]

    def _keep(self, places: npt.NDArray[np.intp]) -> None:
        self._ids = np.take_along_axis(self._ids, places, axis=1)
        self._scores = np.take_along_axis(self._scores, places, axis=1)


def imitated(sample: Float32Array, count: int = _QUERIES) -> Float32Array:
    """Queries (count, d) like those that will be asked, made of sampled vectors (n, d).

    A question lies off its answers, but where texts lie: each of some vectors is moved along the difference of two
    others. With steps of this length the cosine to the nearest text is 0.64 on average, as it is for the questions of
    the development sets; steps in any direction would leave the space of texts and ask for several times the depth.
    """
    draw = np.random.default_rng(1)
    start, to, away = sample[draw.integers(0, len(sample), (3, count))]
    step = to - away
    length = np.linalg.norm(step, axis=1, keepdims=True)
    moved = start + _OFF * step / np.where(length > 0, length, 1)
    size = np.linalg.norm(moved, axis=1, keepdims=True)
    return np.asarray(moved / np.where(size > 0, size, 1), np.float32)


def recall_of(found: Sequence[IdArray], truth: Sequence[IdArray]) -> float:
    """The share of the true ids that are among those found; 1 where there is nothing to find."""
    hit = sum(len(np.intersect1d(one, other)) for one, other in zip(found, truth, strict=True))
    return hit / total if (total := sum(map(len, truth))) else 1.0


def enough(found: Sequence[IdArray], truth: Truth) -> bool:
    """Whether candidates hold what is aimed at: 99 % of the ten nearest, and of the hundred nearest."""
    return all(recall_of(found, truth.nearest(k)) >= _RECALL for k in (NEAREST, FAR))


def tuning_of(found: Sequence[IdArray], truth: Truth, *, rescored: bool) -> Tuning:
    """The least depths at which candidates, best first, hold what is nearest; as nearly as they do at all."""
    nearest = truth.nearest()
    if not rescored:
        return Tuning(recall=recall_of([ids[:NEAREST] for ids in found], nearest))
    near = max(NEAREST, _depth(found, nearest))
    far = max(near, FAR, _depth(found, truth.nearest(FAR)))
    return Tuning(near, far, recall_of([ids[:near] for ids in found], nearest))


def _depth(found: Sequence[IdArray], truth: Sequence[IdArray]) -> int:
    """So many of the candidates hold the wanted share of the true ids; of those that are among them at all."""
    places = [
        np.flatnonzero(np.isin(ids, wanted, assume_unique=True)) for ids, wanted in zip(found, truth, strict=True)
    ]
    reached = np.sort(np.concatenate(places))
    wanted = math.ceil(_RECALL * sum(map(len, truth)))
    return 0 if len(reached) == 0 else int(reached[min(len(reached), wanted) - 1]) + 1

"""Semantic textual similarity: pairs of sentences with a human score, and correlation with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragindex.errors import UsageError
from ragindex.evaluation import resampling
from ragindex.evaluation.resampling import Estimate, Floats, Interval

__all__ = [
    "CORRELATIONS",
    "Correlation",
    "CorrelationDifference",
    "StsPairs",
    "correlate",
    "load_sts",
    "mean_correlation",
    "pearson",
    "spearman",
]

CORRELATIONS = ("spearman", "pearson")

_RESAMPLES = 4_000  # each one ranks all pairs anew


@dataclass(frozen=True, slots=True)
class StsPairs:
    """`scores[i]` says how alike `left[i]` and `right[i]` are, on any scale."""

    left: tuple[str, ...]
    right: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CorrelationDifference:
    """How much better the second system correlates: difference, its 95 % bootstrap interval, two-sided p-value."""

    difference: float
    interval: Interval
    p_value: float


@dataclass(frozen=True, eq=False, slots=True)
class Correlation:
    """A correlation and what it became in each resample of the pairs, (resamples,); NaN where it is undefined."""

    value: float
    resampled: Floats

    def estimate(self) -> Estimate:
        """The value with its 95 % interval."""
        return Estimate(self.value, resampling.interval(self.resampled))

    def above(self, other: Correlation) -> CorrelationDifference:
        """How much more this one is than `other`, which must come from the same pairs, resampled with the same seed.

        The p-value is the share of resampled differences, shifted to mean 0, that lie at least as far from 0 as the
        one observed, as in `paired_bootstrap`. Scores are not swapped between the systems, as a randomisation test
        would have it: two encoders' cosines need not be on the same scale.
        """
        difference = self.value - other.value
        resampled = self.resampled - other.resampled
        resampled = resampled[np.isfinite(resampled)]
        extreme = np.count_nonzero(np.abs(resampled - difference) >= abs(difference) - 1e-12)
        p_value = float(extreme + 1) / (len(resampled) + 1)
        return CorrelationDifference(difference, resampling.interval(resampled), p_value)


def load_sts(file: Path) -> StsPairs:
    """Read a tab-separated file of score, sentence, sentence; a header is skipped, further columns are ignored.

    Raises UsageError, with the line, for anything malformed.
    """
    left, right, scores = [], [], []
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        cells = line.rstrip("\r").split("\t")
        if len(cells) < 3:
            raise UsageError(f"{file}:{number} has {len(cells)} columns; it must have a score and two sentences.")
        score = _number(cells[0])
        if score is None and number == 1:
            continue
        if score is None:
            raise UsageError(f"{file}:{number} has the score {cells[0]!r}; it must be a finite number.")
        scores.append(score)
        left.append(cells[1])
        right.append(cells[2])
    if not scores:
        raise UsageError(f"{file} holds no pairs.")
    return StsPairs(tuple(left), tuple(right), tuple(scores))


def pearson(first: ArrayLike, second: ArrayLike) -> float:
    """Pearson's linear correlation of two sequences of n numbers, in [-1, 1].

    Raises UsageError where it is undefined: fewer than two pairs, or a side without variation.
    """
    x, y = _centred(first), _centred(second)
    if len(x) != len(y):
        raise UsageError(f"A correlation needs pairs; there are {len(x)} and {len(y)} values.")
    return max(-1.0, min(1.0, float(x @ y)))


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation, in [-1, 1]: Pearson's of the ranks, where ties share the mean of theirs.

    Raises UsageError where it is undefined, as `pearson` does.
    """
    return pearson(_ranks(first), _ranks(second))


def correlate(
    scores: ArrayLike, predicted: ArrayLike, *, resamples: int = _RESAMPLES, seed: int = 0
) -> dict[str, Correlation]:
    """Both correlations of (n,) human scores with (n,) predicted ones, by name, resampled pair by pair.

    The same n and seed resample the same pairs, so that two systems can be compared. Raises UsageError where a
    correlation is undefined, as `pearson` does.
    """
    values = {"spearman": spearman(scores, predicted), "pearson": pearson(scores, predicted)}
    first, second = _Side.of(scores), _Side.of(predicted)
    resampled: dict[str, list[Floats]] = {name: [] for name in CORRELATIONS}
    generator = np.random.default_rng(seed)
    for weights in resampling.counts(len(first.values), resamples=resamples, generator=generator):
        resampled["spearman"].append(_weighted(weights, first.ranks(weights), second.ranks(weights)))
        resampled["pearson"].append(_weighted(weights, first.values[None], second.values[None]))
    return {name: Correlation(values[name], np.concatenate(resampled[name])) for name in CORRELATIONS}


def mean_correlation(correlations: Sequence[Correlation]) -> Correlation:
    """The mean over data sets, each of which was resampled with a seed of its own."""
    return Correlation(
        value=float(np.mean([each.value for each in correlations])),
        resampled=np.mean([each.resampled for each in correlations], axis=0),
    )


@dataclass(frozen=True, eq=False, slots=True)
class _Side:
    """One side of the pairs: values (n,) of mean 0 and deviation about 1, their order, where equal ones begin."""

    values: Floats
    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    group: NDArray[np.int64]

    @classmethod
    def of(cls, values: ArrayLike) -> _Side:
        array = np.asarray(values, np.float64)
        _, starts, group = np.unique(np.sort(array), return_index=True, return_inverse=True)
        order = np.argsort(array, kind="stable")
        inverse = np.empty_like(group)
        inverse[order] = group
        return cls(_centred(array) * math.sqrt(len(array)), order, starts, inverse)

    def ranks(self, weights: Floats) -> Floats:
        """The rank of each observation when it occurs `weights` times, (resamples, n); equal ones share the mean."""
        sizes = np.add.reduceat(weights[:, self.order], self.starts, axis=1)
        means = np.cumsum(sizes, axis=1) - (sizes - 1.0) / 2.0
        ranks: Floats = means[:, self.group]
        return ranks


def _weighted(weights: Floats, first: Floats, second: Floats) -> Floats:
    """Pearson's correlation in each resample: weights (resamples, n), sides (resamples or 1, n)."""
    total = weights.sum(axis=1, keepdims=True)
    first = first - (weights * first).sum(axis=1, keepdims=True) / total
    second = second - (weights * second).sum(axis=1, keepdims=True) / total
    shared = (weights * first * second).sum(axis=1)
    spread = (weights * first * first).sum(axis=1) * (weights * second * second).sum(axis=1)
    # A resample that drew one value only has no correlation; its spread is rounding.
    defined = spread > 1e-18 * total[:, 0] ** 2
    result: Floats = np.where(defined, shared / np.sqrt(np.where(defined, spread, 1.0)), np.nan)
    return result


def _centred(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all() or (array == array[0]).all():
        raise UsageError("A correlation needs at least two pairs of finite numbers that are not all the same.")
    # Scaled first, so that neither tiny nor huge values lose their square.
    array = array - array[0]
    array = array / np.abs(array).max()
    array = array - array.mean()
    centred: NDArray[np.float64] = array / np.linalg.norm(array)
    return centred


def _ranks(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means = np.asarray(ends - (counts - 1) / 2.0, np.float64)
    ranks: NDArray[np.float64] = means[inverse]
    return ranks


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

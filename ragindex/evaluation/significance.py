"""Whether a difference between two systems is more than chance.

Values are per query, float64 of shape (n,). Everything is seeded: the same values give the same answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragindex.errors import UsageError

__all__ = ["Comparison", "Interval", "mean_interval", "paired_bootstrap", "randomisation_test"]

_CELLS = 1 << 22  # random numbers held at once
_EXACT = 16  # with up to this many differences, all sign patterns are fewer than the usual number of samples

_Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much better the second system is: mean difference, its confidence interval, two-sided p-value."""

    difference: float
    interval: Interval
    p_value: float


def mean_interval(values: ArrayLike, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of a mean.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 13.
    """
    return _interval(_resampled_means(_checked(values), resamples, seed), confidence)


def paired_bootstrap(
    before: ArrayLike, after: ArrayLike, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> Comparison:
    """Bootstrap over queries of the mean of `after - before`.

    The p-value is the share of resamples of the differences, shifted to mean 0, whose mean lies at least as far from
    0 as the one observed (Efron and Tibshirani, 1993, ch. 16; for retrieval: Sakai, "Evaluating evaluation metrics
    based on the bootstrap", 2006). It is never 0: the observation counts as one of the resamples.
    """
    differences = _differences(before, after)
    observed = float(differences.mean())
    means = _resampled_means(differences, resamples, seed)
    extreme = np.count_nonzero(np.abs(means - observed) >= abs(observed) - _tolerance(differences))
    return Comparison(observed, _interval(means, confidence), float(extreme + 1) / (resamples + 1))


def randomisation_test(before: ArrayLike, after: ArrayLike, *, resamples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of Fisher's paired randomisation test: the systems' labels are swapped query by query.

    Exact for few queries that differ, else sampled (Smucker, Allan and Carterette, "A comparison of statistical
    significance tests for information retrieval evaluation", 2007).
    """
    differences = _differences(before, after)
    observed, tolerance = abs(float(differences.sum())), _tolerance(differences) * len(differences)
    differences = differences[differences != 0]
    count = len(differences)
    if count <= _EXACT:
        patterns = (np.arange(1 << count)[:, None] >> np.arange(count)) & 1
        sums = np.abs((1 - 2 * patterns) @ differences)
        return float(np.count_nonzero(sums >= observed - tolerance)) / (1 << count)
    generator = np.random.default_rng(seed)
    extreme = 0
    for size in _batches(resamples, count):
        signs = 1 - 2 * generator.integers(0, 2, size=(size, count), dtype=np.int8)
        extreme += int(np.count_nonzero(np.abs(signs @ differences) >= observed - tolerance))
    return (extreme + 1) / (resamples + 1)


def _tolerance(differences: _Floats) -> float:
    # Equal sums added up in another order must compare as equal.
    return 1e-12 * float(np.abs(differences).max(initial=0.0))


def _checked(values: ArrayLike) -> _Floats:
    result = np.asarray(values, np.float64)
    if result.ndim != 1 or not len(result) or not np.isfinite(result).all():
        raise UsageError("A significance test needs one finite value per query and at least one query.")
    return result


def _differences(before: ArrayLike, after: ArrayLike) -> _Floats:
    first, second = _checked(before), _checked(after)
    if len(first) != len(second):
        raise UsageError(f"A paired test needs as many queries on both sides, not {len(first)} and {len(second)}.")
    return second - first


def _batches(total: int, width: int) -> Iterator[int]:
    if total < 1:
        raise UsageError("A significance test needs at least one resample.")
    size = max(1, _CELLS // max(1, width))
    for start in range(0, total, size):
        yield min(size, total - start)


def _resampled_means(values: _Floats, resamples: int, seed: int) -> _Floats:
    generator = np.random.default_rng(seed)
    count = len(values)
    draws = (
        values[generator.integers(0, count, size=(size, count))].mean(axis=1) for size in _batches(resamples, count)
    )
    return np.concatenate(list(draws))


def _interval(means: _Floats, confidence: float) -> Interval:
    if not 0 < confidence < 1:
        raise UsageError(f"The confidence is {confidence}; it must lie between 0 and 1.")
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))

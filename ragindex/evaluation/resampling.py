"""Bootstrap resamples as counts: how often each observation was drawn, so that any weighted statistic can be resampled.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 6 and 13. Seeded: the same call gives the
same resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragindex.errors import UsageError

__all__ = ["RESAMPLES", "Estimate", "Floats", "Interval", "batches", "counts", "interval", "intervals"]

RESAMPLES = 10_000

Floats = NDArray[np.float64]

_CELLS = 1 << 22  # random numbers held at once


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class Estimate(NamedTuple):
    """What was measured, and its 95 % bootstrap interval."""

    value: float
    interval: Interval


def batches(total: int, width: int) -> Iterator[int]:
    """Sizes that add up to `total` resamples of `width` observations and keep memory bounded."""
    if total < 1:
        raise UsageError("A significance test needs at least one resample.")
    size = max(1, _CELLS // max(1, width))
    for start in range(0, total, size):
        yield min(size, total - start)


def counts(observations: int, *, resamples: int, generator: np.random.Generator, width: int = 0) -> Iterator[Floats]:
    """Batches of shape (some resamples, observations); each row says how often an observation was drawn and sums to
    `observations`. width: how many numbers the caller makes of a row, where that is more.
    """
    for size in batches(resamples, max(observations, width)):
        draws = generator.integers(0, observations, size=(size, observations))
        draws += np.arange(size)[:, None] * observations
        drawn = np.bincount(draws.ravel(), minlength=size * observations)
        yield drawn.reshape(size, observations).astype(np.float64)


def interval(statistics: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """The percentile interval of a statistic over its resamples, shape (resamples,).

    Resamples in which it is undefined (NaN) are left out.
    """
    return intervals(np.asarray(statistics, np.float64)[:, None], confidence=confidence)[0]


def intervals(statistics: Floats, *, confidence: float = 0.95) -> list[Interval]:
    """`interval` for each column of (resamples, statistics)."""
    if not 0 < confidence < 1:
        raise UsageError(f"The confidence is {confidence}; it must lie between 0 and 1.")
    low, high = np.nanquantile(statistics, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return [Interval(float(first), float(last)) for first, last in zip(low, high, strict=True)]

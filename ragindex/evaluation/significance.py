"""Whether a difference between two systems is more than chance.

Values are float64, per query. What is measured on several data sets comes as one group of values for each: its mean is
the mean of the groups' means, so that a large data set does not outvote a small one, and queries are resampled within
their group. Everything is seeded: the same values give the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ragindex.errors import UsageError
from ragindex.evaluation import resampling
from ragindex.evaluation.resampling import RESAMPLES, Floats, Interval

__all__ = [
    "Comparison",
    "Interval",
    "PairedDifference",
    "mean_interval",
    "mean_intervals",
    "paired_bootstrap",
    "paired_differences",
    "randomisation_test",
]

_EXACT = 16  # with up to this many differences, all sign patterns are fewer than the usual number of samples
_TIE = 1e-9  # metrics that differ by less differ by rounding


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much better the second system is: mean difference, its confidence interval, two-sided p-value."""

    difference: float
    interval: Interval
    p_value: float


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much better the second system is, query by query.

    difference: of the means; interval: its 95 % bootstrap interval; p_value: two-sided, of the randomisation test;
    wins, losses, ties: queries on which the second system is better, worse, the same.
    """

    difference: float
    interval: Interval
    p_value: float
    wins: int
    losses: int
    ties: int


def mean_interval(
    values: ArrayLike, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the mean of (n,) values.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 13.
    """
    means = _resampled_means([_column(values)], resamples=resamples, seed=seed)
    return resampling.interval(means[:, 0], confidence=confidence)


def mean_intervals(groups: Sequence[ArrayLike], *, resamples: int = RESAMPLES, seed: int = 0) -> list[Interval]:
    """95 % intervals of means: for each column of the groups (n, m), one group for each data set."""
    return resampling.intervals(_resampled_means(list(map(_table, groups)), resamples=resamples, seed=seed))


def paired_bootstrap(
    before: ArrayLike, after: ArrayLike, *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Bootstrap over queries of the mean of `after - before`.

    The p-value is the share of resamples of the differences, shifted to mean 0, whose mean lies at least as far from
    0 as the one observed (Efron and Tibshirani, 1993, ch. 16; for retrieval: Sakai, "Evaluating evaluation metrics
    based on the bootstrap", 2006). It is never 0: the observation counts as one of the resamples.
    """
    differences = _differences(_column(before), _column(after))
    observed = float(differences.mean())
    means = _resampled_means([differences], resamples=resamples, seed=seed)[:, 0]
    extreme = np.count_nonzero(np.abs(means - observed) >= abs(observed) - _tolerance(differences))
    interval = resampling.interval(means, confidence=confidence)
    return Comparison(observed, interval, float(extreme + 1) / (resamples + 1))


def paired_differences(
    before: Sequence[ArrayLike], after: Sequence[ArrayLike], *, resamples: int = RESAMPLES, seed: int = 0
) -> list[PairedDifference]:
    """`after - before` for each column of the groups (n, m), one group for each data set.

    Over several data sets the statistic of the randomisation test is the mean of their mean differences: labels are
    swapped query by query as always, and a query counts 1 / the size of its data set. P-values are of one column
    each; nothing is corrected for looking at several.
    """
    if len(before) != len(after):
        raise UsageError(f"There are {len(before)} data sets on one side and {len(after)} on the other.")
    groups = [_differences(_table(first), _table(last)) for first, last in zip(before, after, strict=True)]
    every = np.concatenate(groups)
    observed = np.mean([group.mean(axis=0) for group in groups], axis=0)
    found = resampling.intervals(_resampled_means(groups, resamples=resamples, seed=seed))
    weighted = np.concatenate([group / (len(group) * len(groups)) for group in groups])
    chances = _sign_flips(weighted, resamples=resamples, seed=seed)
    wins, losses = (every > _TIE).sum(axis=0), (every < -_TIE).sum(axis=0)
    return [
        PairedDifference(
            difference=float(observed[column]),
            interval=found[column],
            p_value=chances[column],
            wins=int(wins[column]),
            losses=int(losses[column]),
            ties=len(every) - int(wins[column]) - int(losses[column]),
        )
        for column in range(every.shape[1])
    ]


def randomisation_test(before: ArrayLike, after: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p-value of Fisher's paired randomisation test: the systems' labels are swapped query by query.

    Exact for few queries that differ, else sampled (Smucker, Allan and Carterette, "A comparison of statistical
    significance tests for information retrieval evaluation", 2007).
    """
    return _sign_flips(_differences(_column(before), _column(after)), resamples=resamples, seed=seed)[0]


def _sign_flips(differences: Floats, *, resamples: int, seed: int) -> list[float]:
    """The randomisation test for each column of (n, m)."""
    result: dict[int, float] = {}
    for column in range(differences.shape[1]):
        values = differences[differences[:, column] != 0, column]
        if len(values) <= _EXACT:
            result[column] = _all_sign_flips(values)
    rest = [column for column in range(differences.shape[1]) if column not in result]
    if rest:
        values = differences[(differences[:, rest] != 0).any(axis=1)][:, rest]
        least = np.abs(values.sum(axis=0)) - _tolerance(values) * len(values)
        generator = np.random.default_rng(seed)
        extreme = np.zeros(len(rest))
        for size in resampling.batches(resamples, len(values)):
            signs = 1.0 - 2.0 * generator.integers(0, 2, size=(size, len(values)), dtype=np.int8)
            extreme += np.count_nonzero(np.abs(signs @ values) >= least, axis=0)
        result.update(zip(rest, ((extreme + 1) / (resamples + 1)).tolist(), strict=True))
    return [result[column] for column in range(differences.shape[1])]


def _all_sign_flips(values: Floats) -> float:
    count = len(values)
    patterns = (np.arange(1 << count)[:, None] >> np.arange(count)) & 1
    sums = np.abs((1 - 2 * patterns) @ values)
    least = abs(float(values.sum())) - _tolerance(values) * count
    return float(np.count_nonzero(sums >= least)) / (1 << count)


def _tolerance(differences: Floats) -> float:
    # Equal sums added up in another order must compare as equal.
    return 1e-12 * float(np.abs(differences).max(initial=0.0))


def _resampled_means(groups: Sequence[Floats], *, resamples: int, seed: int) -> Floats:
    """The mean over groups of their columns' means, in each resample of the rows: (resamples, m)."""
    generator = np.random.default_rng(seed)
    total = np.zeros((resamples, groups[0].shape[1]))
    for group in groups:
        drawn = resampling.counts(len(group), resamples=resamples, generator=generator)
        total += np.concatenate([weights @ group for weights in drawn]) / len(group)
    return total / len(groups)


def _column(values: ArrayLike) -> Floats:
    array = np.asarray(values, np.float64)
    return _table(array[:, None] if array.ndim == 1 else np.empty((0, 1)))


def _table(values: ArrayLike) -> Floats:
    result = np.asarray(values, np.float64)
    if result.ndim != 2 or not result.size or not np.isfinite(result).all():
        raise UsageError("A significance test needs one finite value per query and at least one query.")
    return result


def _differences(before: Floats, after: Floats) -> Floats:
    if before.shape != after.shape:
        raise UsageError(f"A paired test needs as many queries on both sides, not {len(before)} and {len(after)}.")
    return after - before

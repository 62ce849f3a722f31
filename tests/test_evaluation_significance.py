from __future__ import annotations

import itertools

import numpy as np
import pytest

from ragindex.errors import UsageError
from ragindex.evaluation import mean_interval, paired_bootstrap, randomisation_test
from ragindex.evaluation.sts import pearson, spearman


def test_interval_of_a_mean_is_close_to_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.2, 400)
    low, high = mean_interval(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.002)
    assert high == pytest.approx(values.mean() + half, abs=0.002)
    narrow = mean_interval(values, confidence=0.5)
    assert low < narrow.low < narrow.high < high


def test_results_are_seeded() -> None:
    first, second = np.random.default_rng(2).random((2, 50))
    assert paired_bootstrap(first, second) == paired_bootstrap(first, second)
    assert paired_bootstrap(first, second) != paired_bootstrap(first, second, seed=1)
    assert randomisation_test(first, second) == randomisation_test(first, second)


def test_p_values_are_calibrated_without_a_difference() -> None:
    generator = np.random.default_rng(3)
    pairs = [generator.random((2, 60)) for _ in range(300)]
    for test in (
        lambda a, b: paired_bootstrap(a, b, resamples=400).p_value,
        lambda a, b: randomisation_test(a, b, resamples=400),
    ):
        values = np.array([test(a, b) for a, b in pairs])
        assert 0.01 < np.mean(values < 0.05) < 0.11
        assert 0.42 < np.mean(values < 0.5) < 0.58


def test_a_real_difference_is_found() -> None:
    generator = np.random.default_rng(4)
    before = generator.random(200)
    after = before + generator.normal(0.05, 0.1, 200)
    result = paired_bootstrap(before, after)
    assert result.difference == pytest.approx((after - before).mean())
    assert 0 < result.interval.low < result.difference < result.interval.high
    assert 0 < result.p_value < 0.001
    assert randomisation_test(before, after) < 0.001
    worse = paired_bootstrap(after, before)
    assert worse.difference == -result.difference
    assert worse.p_value < 0.001


def test_equal_systems_have_p_one() -> None:
    values = np.linspace(0, 1, 30)
    assert paired_bootstrap(values, values).p_value == 1.0
    assert randomisation_test(values, values) == 1.0


def test_randomisation_is_exact_for_few_queries() -> None:
    differences = np.array([0.3, -0.1, 0.2, 0.2, 0.05, 0.0])
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product([1, -1], repeat=6)]
    expected = np.mean([value >= abs(differences.sum()) - 1e-12 for value in sums])
    assert randomisation_test(np.zeros(6), differences) == pytest.approx(expected)


def test_sampled_randomisation_agrees_with_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(5).normal(0.3, 1, 14)
    exact = randomisation_test(np.zeros(14), differences)
    monkeypatch.setattr("ragindex.evaluation.significance._EXACT", 0)
    monkeypatch.setattr("ragindex.evaluation.significance._CELLS", 1000)
    assert randomisation_test(np.zeros(14), differences) == pytest.approx(exact, abs=0.02)
    assert 0.1 < exact < 0.9


def test_batches_do_not_change_how_many_resamples_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragindex.evaluation.significance._CELLS", 64)
    result = paired_bootstrap(np.zeros(30), np.ones(30), resamples=1000)
    assert result.p_value == pytest.approx(1 / 1001)


@pytest.mark.parametrize("values", [[], [[1.0]], [float("nan")]])
def test_values_that_cannot_be_tested_are_refused(values: list[float]) -> None:
    with pytest.raises(UsageError, match="one finite value per query"):
        mean_interval(values)


def test_unpaired_values_and_odd_options_are_refused() -> None:
    with pytest.raises(UsageError, match="not 2 and 1"):
        paired_bootstrap([1, 2], [1])
    with pytest.raises(UsageError, match="confidence"):
        mean_interval([1, 2], confidence=95)
    with pytest.raises(UsageError, match="resample"):
        mean_interval([1, 2], resamples=0)


def _brute_ranks(values: list[float]) -> list[float]:
    return [sum(other < value for other in values) + (values.count(value) + 1) / 2 for value in values]


@pytest.mark.parametrize("seed", range(5))
def test_correlations_agree_with_brute_force(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first = generator.integers(0, 6, 40).astype(float).tolist()
    second = [value + noise for value, noise in zip(first, generator.integers(0, 9, 40).tolist(), strict=True)]
    assert pearson(first, second) == pytest.approx(np.corrcoef(first, second)[0, 1])
    expected = np.corrcoef(_brute_ranks(first), _brute_ranks(second))[0, 1]
    assert spearman(first, second) == pytest.approx(expected)
    assert spearman(first, np.exp(np.array(first) * 50)) == pytest.approx(1.0)
    assert spearman(first, [-value for value in first]) == pytest.approx(-1.0)


def test_correlation_of_tiny_and_huge_numbers() -> None:
    values = np.array([1.0, 2.0, 4.0])
    assert pearson(values * 1e-200, values * 1e200) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("first", "second"), [([1], [1]), ([1, 1], [1, 2]), ([1, 2], [1, 2, 3]), ([1, float("inf")], [1, 2])]
)
def test_undefined_correlations_are_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(UsageError, match="correlation needs"):
        pearson(first, second)

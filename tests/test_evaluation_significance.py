from __future__ import annotations

import itertools

import numpy as np
import pytest

from ragindex.errors import UsageError
from ragindex.evaluation import mean_interval, paired_bootstrap, paired_differences, randomisation_test
from ragindex.evaluation.significance import mean_intervals
from ragindex.evaluation.sts import correlate, mean_correlation, pearson, spearman


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
    monkeypatch.setattr("ragindex.evaluation.resampling._CELLS", 1000)
    assert randomisation_test(np.zeros(14), differences) == pytest.approx(exact, abs=0.02)
    assert 0.1 < exact < 0.9


def test_batches_do_not_change_how_many_resamples_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragindex.evaluation.resampling._CELLS", 64)
    result = paired_bootstrap(np.zeros(30), np.ones(30), resamples=1000)
    assert result.p_value == pytest.approx(1 / 1001)


def test_columns_are_tested_as_if_alone() -> None:
    before, after = np.random.default_rng(6).random((2, 40, 3))
    found = paired_differences([before], [after])
    for column, each in enumerate(found):
        alone = paired_bootstrap(before[:, column], after[:, column])
        assert each.difference == pytest.approx(alone.difference)
        np.testing.assert_allclose(each.interval, alone.interval)
        assert each.p_value == randomisation_test(before[:, column], after[:, column])
    np.testing.assert_allclose(
        mean_intervals([after]), [mean_interval(after[:, column]) for column in range(3)], rtol=1e-12
    )


def test_queries_are_counted_as_won_lost_and_tied() -> None:
    before = np.array([[0.1], [0.5], [0.5], [0.9], [1 / 3]])
    after = np.array([[0.3], [0.5], [0.4], [1.0], [1 - 2 / 3]])  # the last one differs by rounding only
    found = paired_differences([before], [after])[0]
    assert (found.wins, found.losses, found.ties) == (2, 1, 2)
    assert found.p_value == pytest.approx(6 / 8)  # of the signs of 0.2, 0.1 and 0.1, six sum to 0.2 or more


def test_every_data_set_counts_the_same_in_a_mean() -> None:
    generator = np.random.default_rng(7)
    large, small = generator.random((400, 1)), generator.random((20, 1))
    gain = [np.zeros((400, 1)), np.full((20, 1), 0.3) + generator.normal(0, 0.05, (20, 1))]
    found = paired_differences([large, small], [large + gain[0], small + gain[1]])[0]
    assert found.difference == pytest.approx(gain[1].mean() / 2)
    assert found.interval.low < found.difference < found.interval.high
    assert found.interval.low > 0.13  # the small set is resampled within itself: always 20 of its queries
    assert found.p_value < 0.001
    assert (found.wins, found.losses, found.ties) == (20, 0, 400)
    with pytest.raises(UsageError, match="2 data sets on one side and 1"):
        paired_differences([large, small], [large])


def test_a_query_of_a_small_data_set_weighs_more_in_the_randomisation_test() -> None:
    several, one = np.full((4, 1), 0.1), np.array([[-0.2]])
    found = paired_differences([np.zeros((4, 1)), np.zeros((1, 1))], [several, one])[0]
    assert found.difference == pytest.approx(-0.05)
    assert found.p_value == 1.0  # whatever the signs, half of 0.2 stands against at most half of 0.1
    assert randomisation_test(np.zeros(5), np.concatenate([several, one])[:, 0]) == 0.75


def test_p_values_of_means_over_data_sets_are_calibrated() -> None:
    generator = np.random.default_rng(8)
    values = []
    for _ in range(200):
        sides = [[generator.random((size, 1)) for size in (30, 60)] for _ in range(2)]
        values.append(paired_differences(*sides, resamples=400)[0].p_value)
    assert 0.01 < np.mean(np.array(values) < 0.05) < 0.11
    assert 0.4 < np.mean(np.array(values) < 0.5) < 0.6


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


def _drawn(values: np.ndarray, picks: np.ndarray) -> np.ndarray:
    return np.array([values[place] for place in picks])


def test_resampled_correlations_are_those_of_the_resampled_pairs() -> None:
    generator = np.random.default_rng(9)
    scores = generator.integers(0, 5, 25).astype(float)
    predicted = np.round(scores + generator.normal(0, 1.5, 25))
    found = correlate(scores, predicted, resamples=40, seed=3)
    assert found["spearman"].value == spearman(scores, predicted)
    assert found["pearson"].value == pearson(scores, predicted)
    draws = np.random.default_rng(3).integers(0, 25, size=(40, 25))
    for name, correlation in (("spearman", spearman), ("pearson", pearson)):
        expected = [correlation(_drawn(scores, picks), _drawn(predicted, picks)) for picks in draws]
        np.testing.assert_allclose(found[name].resampled, expected)


def test_undefined_resamples_are_left_out_of_an_interval() -> None:
    found = correlate([1, 2], [1, 3], resamples=50)["pearson"]
    assert np.isnan(found.resampled).any()
    assert found.estimate().interval == (pytest.approx(1.0), pytest.approx(1.0))


def test_correlations_of_two_systems_are_compared_pair_by_pair() -> None:
    generator = np.random.default_rng(10)
    scores = generator.random(300)
    noise = generator.normal(0, 0.3, 300)
    good, bad = correlate(scores, scores + noise / 3), correlate(scores, scores + noise)
    better = good["spearman"].above(bad["spearman"])
    assert better.difference == pytest.approx(good["spearman"].value - bad["spearman"].value)
    assert 0 < better.interval.low < better.difference < better.interval.high
    assert better.p_value < 0.001
    same = good["pearson"].above(good["pearson"])
    assert (same.difference, same.p_value) == (0, 1)
    alike = correlate(scores, scores + generator.normal(0, 0.3, 300))["pearson"].above(bad["pearson"])
    assert alike.p_value > 0.05
    mean = mean_correlation([good["pearson"], bad["pearson"]])
    assert mean.value == pytest.approx((good["pearson"].value + bad["pearson"].value) / 2)
    assert mean.estimate().interval.low < mean.value < mean.estimate().interval.high

"""Whether length alone decides: vectors that crowd together, documents that are found for their length."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ragindex.evaluation.length import collapse, retrieval_bias


def _unit(array: np.ndarray) -> np.ndarray:
    return (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32)


def _correlation(first: list[int], second: list[int]) -> float:
    """The chance that one of `first` is larger than one of `second`, minus the chance that it is smaller."""
    return float(np.mean([np.sign(a - b) for a, b in itertools.product(first, second)]))


def test_mean_cosine_is_over_pairs_of_different_documents() -> None:
    generator = np.random.default_rng(0)
    short, long = _unit(generator.normal(size=(2, 12, 8)))
    found = collapse({32: long, 16: short})
    assert (found.documents, found.tokens) == (12, (16, 32))
    for vectors, (value, interval) in zip((short, long), found.cosines, strict=True):
        expected = np.mean([a @ b for a, b in itertools.combinations(vectors, 2)])
        assert value == pytest.approx(expected, abs=1e-6)
        assert interval.low < value < interval.high
    assert found.growth.value == pytest.approx(found.cosines[1].value - found.cosines[0].value)


def test_vectors_that_crowd_together_are_seen_to() -> None:
    generator = np.random.default_rng(1)
    spread = generator.normal(size=(60, 16))
    crowded = collapse({16: _unit(spread), 64: _unit(spread + 2.0), 256: _unit(spread + 4.0)})
    assert crowded.cosines[0].value < crowded.cosines[1].value < crowded.cosines[2].value
    assert crowded.growth.interval.low > 0.5
    steady = collapse({16: _unit(spread), 64: _unit(generator.normal(size=(60, 16)))})
    assert steady.growth.interval.low < 0 < steady.growth.interval.high


def test_the_correlations_are_those_of_all_pairs() -> None:
    generator = np.random.default_rng(2)
    lengths = {f"d{number}": int(size) for number, size in enumerate(generator.integers(1, 15, 40))}
    names = list(lengths)
    qrels = {f"q{n}": dict.fromkeys(generator.choice(names, 6, replace=False).tolist(), 1) for n in range(9)}
    qrels["q0"] |= {"d1": 0, "gone": 1}
    rankings = {query: generator.permutation(names)[:15].tolist() for query in qrels}
    del rankings["q3"]
    found = retrieval_bias(rankings, qrels, lengths, k=10)
    hit, missed, others = [], [], []
    for query, judgments in qrels.items():
        relevant = {name for name, gain in judgments.items() if gain > 0 and name in lengths}
        first = set(rankings.get(query, ())[:10])
        hit += [lengths[name] for name in relevant & first]
        missed += [lengths[name] for name in relevant - first]
        rest = [lengths[name] for name in lengths if name not in relevant | first]
        if first:
            others.append(_correlation([lengths[name] for name in first - relevant], rest))
    assert found.relevant is not None
    assert found.relevant.correlation.value == pytest.approx(_correlation(hit, missed))
    assert found.relevant.pairs == min(len(hit), len(missed))
    assert found.other is not None
    assert found.other.correlation.value == pytest.approx(np.mean(others))


def test_a_preference_for_length_is_told_from_a_miss_of_long_answers() -> None:
    generator = np.random.default_rng(4)
    lengths = {f"d{number}": number for number in range(100)}
    qrels, greedy, fair = {}, {}, {}
    for number in range(40):
        answers = generator.choice(100, 4, replace=False)
        qrels[f"q{number}"] = {f"d{place}": 1 for place in answers}
        greedy[f"q{number}"] = [f"d{place}" for place in generator.permutation(np.arange(60, 100))[:10]]
        fair[f"q{number}"] = [f"d{place}" for place in generator.permutation(100)[:10]]
    liked = retrieval_bias(greedy, qrels, lengths)
    assert liked.other is not None
    assert liked.relevant is not None
    assert liked.other.correlation.interval.low > 0.5
    assert liked.relevant.correlation.interval.low > 0.2
    even = retrieval_bias(fair, qrels, lengths)
    assert even.other is not None
    assert even.relevant is not None
    assert even.other.correlation.interval.low < 0 < even.other.correlation.interval.high
    assert even.relevant.correlation.interval.low < 0 < even.relevant.correlation.interval.high
    short_only = {query: sorted(qrels[query], key=lambda name: lengths[name])[:2] for query in qrels}
    missing = retrieval_bias(short_only, qrels, lengths)
    assert missing.relevant is not None
    assert missing.relevant.correlation.interval.high < -0.3
    assert missing.other is None


def test_where_nothing_can_be_compared_there_is_no_figure() -> None:
    found = retrieval_bias({"q": ["a", "b"]}, {"q": {"a": 1}}, {"a": 3, "b": 4})
    assert (found.relevant, found.other) == (None, None)
    assert found.as_json() == {"relevant": None, "not_relevant": None}

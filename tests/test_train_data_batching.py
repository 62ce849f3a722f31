"""Batches: one source each, no text that is its own negative, every row once, the same again for the same seed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragindex.errors import UsageError
from ragindex.train.data import Example, Shard, same_source_batches

# Few texts, so that rows clash in every way: a query that is another's positive, a positive that is a negative.
TEXTS = st.sampled_from("abcdefgh")
EXAMPLES = st.lists(
    st.builds(
        Example,
        query=TEXTS,
        positive=TEXTS,
        negatives=st.lists(TEXTS, max_size=2).map(tuple),
        instruction=st.sampled_from([None, "find it"]),
        source=st.sampled_from(["x", "y"]),
    ),
    max_size=40,
)


def clash(one: Example, other: Example) -> bool:
    asked, held = {one.query, one.positive}, {other.query, other.positive, *other.negatives}
    return bool(asked & held)


def assert_sound(examples: Sequence[Example], batch: Sequence[int]) -> None:
    rows = [examples[index] for index in batch]
    assert len({(row.source, row.instruction) for row in rows}) == 1
    for one, other in itertools.permutations(rows, 2):
        assert not clash(one, other), (one, other)


def pairs(count: int, source: str = "s") -> list[Example]:
    return [Example(f"{source} query {index}", f"{source} text {index}", source=source) for index in range(count)]


@settings(max_examples=150, deadline=None)
@given(EXAMPLES, st.integers(1, 6), st.integers(0, 3))
def test_every_row_comes_once_and_no_batch_has_duplicates(examples: list[Example], size: int, epoch: int) -> None:
    batches = list(same_source_batches(examples, size=size, seed=1, epoch=epoch))
    assert sorted(itertools.chain(*batches)) == list(range(len(examples)))
    for batch in batches:
        assert 1 <= len(batch) <= size
        assert_sound(examples, batch)
    assert batches == list(same_source_batches(examples, size=size, seed=1, epoch=epoch))


@settings(max_examples=100, deadline=None)
@given(EXAMPLES, st.integers(1, 4), st.integers(1, 3), st.floats(0, 1))
def test_processes_take_disjoint_rows_equally_many_at_every_step(
    examples: list[Example], size: int, world: int, alpha: float
) -> None:
    shards = [
        list(same_source_batches(examples, size=size, seed=5, epoch=0, alpha=alpha, shard=Shard(rank, world)))
        for rank in range(world)
    ]
    used = Counter(itertools.chain(*itertools.chain(*shards)))
    assert all(count == 1 for count in used.values())
    assert len({len(batches) for batches in shards}) == 1
    for step in zip(*shards, strict=True):
        assert len({len(batch) for batch in step}) == 1
        assert_sound(examples, [index for batch in step for index in batch])


def test_full_batches_as_long_as_there_are_rows() -> None:
    examples = pairs(100)
    sizes = [len(batch) for batch in same_source_batches(examples, size=8, seed=0, epoch=0)]
    assert sorted(sizes) == [4] + [8] * 12
    full = [len(batch) for batch in same_source_batches(examples, size=8, seed=0, epoch=0, smallest=8)]
    assert full == [8] * 12


def test_epochs_and_seeds_differ() -> None:
    examples = pairs(64)
    runs = [list(same_source_batches(examples, size=8, seed=s, epoch=e)) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert len({str(run) for run in runs}) == 3
    assert len({frozenset(map(frozenset, run)) for run in runs}) == 3  # not only the order of the batches


def test_a_query_with_thousands_of_rows_is_spread_over_the_batches() -> None:
    hot = [Example("hot", f"hot text {index}", source="s") for index in range(3000)]
    examples = [*hot, *pairs(3000)]
    batches = list(same_source_batches(examples, size=4, seed=0, epoch=0))
    assert sorted(itertools.chain(*batches)) == list(range(6000))
    assert all(sum(index < 3000 for index in batch) <= 1 for batch in batches)
    # 3000 others fill 1000 batches with three beside one hot row each; what is left of the hot rows stands alone.
    assert Counter(map(len, batches)) == {4: 1000, 1: 2000}


def test_ten_thousand_equal_rows_cost_no_more_than_different_ones() -> None:
    """Each goes into a batch of its own; to look for a place from the beginning would take fifty million steps."""
    twins = [Example("same", "same", ("same",), source="s")] * 10_000
    assert sum(1 for _ in same_source_batches(twins, size=64, seed=0, epoch=0)) == 10_000


def test_rows_may_share_a_negative() -> None:
    examples = [Example(f"q{index}", f"p{index}", ("the same negative",)) for index in range(6)]
    assert [len(batch) for batch in same_source_batches(examples, size=6, seed=0, epoch=0)] == [6]


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [(1.0, {"large": 64, "small": 4}), (0.5, {"large": 16, "small": 4}), (0.0, {"large": 4, "small": 4})],
)
def test_sources_take_part_in_proportion_to_a_power_of_their_size(alpha: float, expected: dict[str, int]) -> None:
    examples = [*pairs(512, "large"), *pairs(32, "small")]
    epochs = [list(same_source_batches(examples, size=8, seed=0, epoch=e, alpha=alpha)) for e in range(2)]
    for batches in epochs:
        assert Counter(examples[batch[0]].source for batch in batches) == expected
        assert max(Counter(itertools.chain(*batches)).values()) == 1
    used = [{index for batch in batches for index in batch} for batches in epochs]
    assert (used[0] == used[1]) == (alpha == 1)


def test_an_epoch_that_has_not_room_for_all_leaves_out_short_batches() -> None:
    twins = [Example("the same question", f"answer {index}", source="large") for index in range(60)]
    examples = [*pairs(160, "large"), *twins, *pairs(32, "small")]
    batches = list(same_source_batches(examples, size=8, seed=0, epoch=0, alpha=0.5))
    assert {len(batch) for batch in batches} == {8}


def test_a_source_without_a_full_batch_does_not_end_the_epoch() -> None:
    examples = [*pairs(64, "large"), *pairs(3, "tiny")]
    batches = list(same_source_batches(examples, size=8, seed=0, epoch=0, alpha=0.5, smallest=8))
    assert [len(batch) for batch in batches] == [8] * 8


def test_sources_are_mixed_over_the_epoch() -> None:
    examples = [*pairs(160, "a"), *pairs(160, "b")]
    order = [examples[batch[0]].source for batch in same_source_batches(examples, size=8, seed=0, epoch=0)]
    assert order != sorted(order)
    assert order != sorted(order, reverse=True)
    assert 5 <= order[:20].count("a") <= 15


def test_lengths_put_rows_of_similar_length_together() -> None:
    examples = pairs(2000)
    lengths = [(index * 7919) % 2000 for index in range(2000)]

    def padding(batches: Sequence[Sequence[int]]) -> int:
        return sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)

    plain = list(same_source_batches(examples, size=10, seed=0, epoch=0))
    grouped = list(same_source_batches(examples, size=10, seed=0, epoch=0, lengths=lengths))
    assert sorted(itertools.chain(*grouped)) == list(range(2000))
    assert padding(grouped) < 1.1 * sum(lengths) < 1.6 * sum(lengths) < padding(plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size of at least 1"),
        ({"size": 4, "smallest": 5}, "smallest from 1 to size"),
        ({"size": 4, "smallest": 0}, "smallest from 1 to size"),
        ({"size": 4, "alpha": 1.5}, "alpha from 0 to 1"),
        ({"size": 4, "lengths": [1, 2]}, "2 lengths for 3 examples"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        next(same_source_batches(pairs(3), seed=0, epoch=0, **options))
    with pytest.raises(UsageError, match="Process 2 of 2"):
        Shard(2, 2)

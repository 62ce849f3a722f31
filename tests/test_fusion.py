"""Fusing a dense and a lexical list."""

from __future__ import annotations

import numpy as np
import pytest

from ragindex.search.fusion import HEAD, evidence, fuse
from ragindex.store.vector_index import Scored


def listed(scores, ids=None) -> Scored:
    """A result list; ids count from 1 unless they are given."""
    found = np.arange(1, len(scores) + 1) if ids is None else np.asarray(ids)
    return Scored(found.astype(np.int64), np.asarray(scores, np.float32))


EMPTY = listed([])


def slope(count: int, *, top: float = 1.0) -> np.ndarray:
    return np.linspace(top, 0.5, count)


def spike(count: int) -> np.ndarray:
    """One result that stands out of a flat tail."""
    return np.concatenate([[5.0], np.linspace(1.0, 0.9, count - 1)])


def test_one_empty_list_leaves_the_other_as_it_is():
    only = listed([0.9, 0.5, 0.1], [7, 3, 5])
    for fused, weight in ((fuse(only, EMPTY, ceiling=1.0), 1.0), (fuse(EMPTY, only, ceiling=1.0), 0.0)):
        assert fused.ids.tolist() == [7, 3, 5]
        assert fused.scores.tolist() == pytest.approx([0.9, 0.5, 0.1])
        assert fused.dense_weight == weight
    assert len(fuse(EMPTY, EMPTY, ceiling=0.0).ids) == 0


def test_every_candidate_of_either_list_comes_once_and_in_order():
    fused = fuse(listed(slope(50)), listed(slope(50), np.arange(30, 80)), ceiling=1.0)
    assert sorted(fused.ids.tolist()) == list(range(1, 80))
    assert (np.diff(fused.scores) <= 0).all()
    assert np.isfinite(fused.scores).all()


def test_what_both_lists_like_beats_what_one_likes():
    dense, lexical = listed(slope(60), [1, 2, *range(100, 158)]), listed(slope(60), [3, 2, *range(200, 258)])
    assert fuse(dense, lexical, ceiling=1.0).ids[0] == 2


def test_a_list_that_singles_out_its_top_outvotes_one_that_guesses():
    clear, vague = listed(spike(100), np.arange(1, 101)), listed(slope(100), np.arange(201, 301))
    assert fuse(clear, vague, ceiling=5.0).ids[0] == 1
    assert fuse(vague, clear, ceiling=5.0).ids[0] == 1
    assert fuse(clear, vague, ceiling=5.0).dense_weight > 0.5 > fuse(vague, clear, ceiling=5.0).dense_weight


def test_the_unit_of_a_list_does_not_matter():
    dense, lexical = listed(spike(80)), listed(slope(80), np.arange(41, 121))
    scaled = Scored(lexical.ids, lexical.scores * 17)
    plain, other = fuse(dense, lexical, ceiling=2.0), fuse(dense, scaled, ceiling=34.0)
    assert plain.dense_weight == pytest.approx(other.dense_weight, abs=1e-5)
    assert plain.ids[:20].tolist() == other.ids[:20].tolist()


def test_more_trust_gives_the_dense_list_more_say():
    dense, lexical = listed(slope(80)), listed(slope(80), np.arange(41, 121))
    weights = [fuse(dense, lexical, ceiling=1.0, trust=trust).dense_weight for trust in (0.5, 1.0, 2.0)]
    assert weights == sorted(weights)
    assert weights[0] < weights[2]


def test_lexical_list_that_covers_little_of_the_query_has_less_say():
    dense, lexical = listed(slope(80)), listed(spike(80), np.arange(41, 121))
    full, little = (fuse(dense, lexical, ceiling=ceiling).dense_weight for ceiling in (5.0, 500.0))
    assert little > full


@pytest.mark.parametrize("scores", [[20.0], [20.0, 16.0, 3.0], [20.0, 19.9, 19.9, 19.8, 19.8]])
def test_an_identifier_that_few_texts_hold_comes_first_in_a_store_of_a_million(scores):
    """The dense list knows nothing of it, and of a million vectors some always stand out."""
    noise = np.concatenate([[0.182, 0.141, 0.14], np.linspace(0.12, 0.07, HEAD - 3)])
    holders = np.arange(900, 900 + len(scores))
    fused = fuse(listed(noise), listed(scores, holders), ceiling=2.2 * scores[0])
    strong = [number for number, score in zip(holders.tolist(), scores, strict=True) if score > 10]
    assert fused.ids[: len(strong)].tolist() == strong


def test_an_identifier_that_more_texts_hold_than_are_asked_for_fills_the_page():
    noise = np.concatenate([[0.182, 0.141, 0.14], np.linspace(0.12, 0.07, HEAD - 3)])
    holders = listed(np.linspace(15.6, 15.0, 30), np.arange(900, 930))
    found = fuse(listed(noise), holders, ceiling=34.0).ids[:10]
    assert np.isin(found, holders.ids).sum() >= 8


def test_a_few_texts_with_a_word_of_little_weight_do_not_come_before_what_is_clearly_meant():
    few = listed([3.0, 2.9], [900, 901])
    assert fuse(listed(spike(HEAD)), few, ceiling=30.0).ids[0] == 1


def test_ties_are_broken_by_id_and_equal_scores_are_no_evidence():
    same = listed(np.ones(30), np.arange(30, 0, -1))
    fused = fuse(Scored(same.ids[::-1], same.scores), Scored(same.ids[::-1], same.scores), ceiling=1.0)
    assert fused.ids.tolist() == list(range(1, 31))
    assert fused.dense_weight == 0.5


def test_rounding_noise_is_no_opinion():
    ids = np.arange(1, 101)
    noisy = Scored(ids[::-1].astype(np.int64), (0.5 + np.linspace(1e-7, 0, 100)).astype(np.float32))
    lexical = listed(slope(100))
    assert fuse(noisy, lexical, ceiling=1.0).ids[0] == 1


@pytest.mark.parametrize("count", [1, 2, 3, 11, 12, HEAD + 5])
def test_short_lists(count):
    fused = fuse(listed(slope(count)), listed(slope(count), np.arange(2, count + 2)), ceiling=1.0)
    assert len(fused.ids) == count + 1
    assert np.isfinite(fused.scores).all()
    assert 0 <= fused.dense_weight <= 1


def test_evidence():
    assert evidence(np.array([], np.float32)) == 0.0
    assert evidence(np.ones(5, np.float32)) == 0.0
    assert evidence(np.ones(50, np.float32)) == 0.0
    assert evidence(spike(50).astype(np.float32)) > 10 * evidence(slope(50).astype(np.float32))

"""Contrastive losses against values worked out by hand, and what happens at their edges.

Most tests use four documents and two queries in the plane, whose cosines are these (rows: q1, q2, p1, p2):

            q1    q2    p1    p2    n1    n2
    q1       1     0   0.8  -0.6  0.28  -0.8
    q2       0     1   0.6   0.8  0.96  -0.6
    p1     0.8   0.6     1     0   0.8    -1
    p2    -0.6   0.8     0     1   0.6     0
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ragindex.errors import TrainingError, UsageError
from ragindex.train.losses import (
    Contrast,
    GuideMargin,
    Hardness,
    InfoNCE,
    Matryoshka,
    Mixing,
    TaskTemperatures,
    TextIds,
    info_nce,
    list_cosines,
    matryoshka,
    negative_lists,
    spread_out,
    text_ids,
)
from ragindex.train.losses.masks import above_guide
from ragindex.train.losses.mixing import mix_lists, mix_pairs

QUERIES = [[1.0, 0.0], [0.0, 1.0]]
POSITIVES = [[0.8, 0.6], [-0.6, 0.8]]
NEGATIVES = [[[0.28, 0.96]], [[-0.8, -0.6]]]
T = 0.5


def tensor(values: Sequence[object], *, gradient: bool = False) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=gradient)


def pairs(**changes: object) -> Contrast:
    return replace(Contrast(tensor(QUERIES), tensor(POSITIVES)), **changes)


def triples(**changes: object) -> Contrast:
    return pairs(**{"negatives": tensor(NEGATIVES), **changes})


def nce(positive: float, others: Sequence[float], *, t: float = T, extra: Sequence[float] = ()) -> float:
    """-log of the positive's share, in plain arithmetic. extra: terms of the sum that are no e^(cosine / t)."""
    total = math.exp(positive / t) + sum(math.exp(score / t) for score in others) + sum(extra)
    return -math.log(math.exp(positive / t) / total)


def value(contrast: Contrast, options: InfoNCE | None = None, **more: object) -> float:
    return info_nce(contrast, options or InfoNCE(temperature=T), **more).item()


def random_unit(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


# -- directions ------------------------------------------------------------------------------------------------------


def test_in_batch_negatives() -> None:
    assert value(pairs()) == pytest.approx((nce(0.8, [-0.6]) + nce(0.8, [0.6])) / 2)


def test_explicit_negatives_of_all_examples_are_candidates() -> None:
    expected = (nce(0.8, [-0.6, 0.28, -0.8]) + nce(0.8, [0.6, 0.96, -0.6])) / 2
    assert value(triples()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("direction", "first", "second"),
    [("d-q", [0.8, 0.6], [0.8, -0.6]), ("q-q", [0.0], [0.0]), ("d-d", [0.0, -1.0], [0.0, 0.6])],
)
def test_a_further_direction_in_the_same_softmax(direction: str, first: list[float], second: list[float]) -> None:
    options = InfoNCE(temperature=T, directions=("q-d", direction))
    expected = (nce(0.8, [-0.6, 0.28, -0.8, *first]) + nce(0.8, [0.6, 0.96, -0.6, *second])) / 2
    assert value(triples(), options) == pytest.approx(expected)


def test_all_directions_in_one_softmax() -> None:
    options = InfoNCE(temperature=T, directions=("q-d", "d-q", "q-q", "d-d"))
    first = nce(0.8, [-0.6, 0.28, -0.8, 0.8, 0.6, 0.0, 0.0, -1.0])
    second = nce(0.8, [0.6, 0.96, -0.6, 0.8, -0.6, 0.0, 0.0, 0.6])
    assert value(triples(), options) == pytest.approx((first + second) / 2)


def test_the_symmetric_loss_is_the_mean_of_both_ways() -> None:
    options = InfoNCE(temperature=T, directions=("q-d", "d-q"), partition="separate")
    there = (nce(0.8, [-0.6]) + nce(0.8, [0.6])) / 2
    back = (nce(0.8, [0.6]) + nce(0.8, [-0.6])) / 2
    assert value(pairs(), options) == pytest.approx((there + back) / 2)


def test_without_in_batch_negatives_a_query_has_its_own_alone() -> None:
    """NV-Embed's second stage, and training on mined negatives only; its first stage is the test above."""
    options = InfoNCE(temperature=T, in_batch=False)
    assert value(triples(), options) == pytest.approx((nce(0.8, [0.28]) + nce(0.8, [-0.6])) / 2)
    assert value(triples(), options) < value(triples())
    assert value(pairs(), options) == 0.0


def test_what_fills_up_a_list_of_negatives_is_no_candidate() -> None:
    negatives = tensor([[*NEGATIVES[0], [0.6, 0.8]], [[1.0, 0.0], [1.0, 0.0]]])
    present = torch.tensor([[True, False], [False, False]])
    filled = pairs(negatives=negatives, present=present)
    options = InfoNCE(temperature=T, directions=("q-d", "d-d"))
    expected = (nce(0.8, [-0.6, 0.28, 0.0]) + nce(0.8, [0.6, 0.96, 0.0, 0.6])) / 2
    assert value(filled, options) == pytest.approx(expected)


def test_lists_of_different_lengths_are_filled_up() -> None:
    vectors = tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], gradient=True)
    negatives, present = negative_lists(vectors, [2, 0, 1])
    assert negatives.tolist() == [[[1, 0], [0, 1]], [[0, 0], [0, 0]], [[0.6, 0.8], [0, 0]]]
    assert present.tolist() == [[True, True], [False, False], [True, False]]
    (negatives * tensor([1.0, 2.0])).sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.tolist() == [[1.0, 2.0]] * 3
    with pytest.raises(TrainingError, match="3 negatives"):
        negative_lists(vectors, [1, 1])


@pytest.mark.parametrize("options", [InfoNCE(), InfoNCE(mixing=Mixing(2, 2, 0.1))], ids=str)
def test_lists_may_all_be_empty(options: InfoNCE) -> None:
    negatives, present = negative_lists(torch.zeros((0, 2), dtype=torch.float64), [0, 0])
    assert value(pairs(negatives=negatives, present=present), options) == value(pairs(), InfoNCE())


def test_the_processes_of_a_run_share_the_loss_and_the_gradient_of_the_whole_batch() -> None:
    queries, positives, negatives = random_unit(5, 4), random_unit(5, 4, seed=1), random_unit(5, 2, 4, seed=2)
    ids = TextIds(torch.tensor([0, 1, 0, 3, 4]), torch.tensor([5, 6, 7, 6, 8]))
    options = InfoNCE(
        temperature=T,
        directions=("q-d", "d-q", "q-q", "d-d"),
        false_negative_margin=0.1,
        hardness=Hardness(5.0, "explicit"),
    )
    leaves = [item.requires_grad_() for item in (queries, positives, negatives)]
    whole = info_nce(Contrast(queries, positives, negatives, ids=ids), options)
    expected = torch.autograd.grad(whole, leaves)

    parts = [
        info_nce(Contrast(queries[start:stop], positives, negatives, None, queries, start, ids), options)
        for start, stop in ((0, 2), (2, 5))
    ]
    joined = (2 * parts[0] + 3 * parts[1]) / 5
    assert joined.item() == pytest.approx(whole.item())
    for ours, theirs in zip(torch.autograd.grad(joined, leaves), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


# -- temperature -----------------------------------------------------------------------------------------------------


def test_a_temperature_for_each_query() -> None:
    expected = (nce(0.8, [-0.6], t=0.5) + nce(0.8, [0.6], t=0.25)) / 2
    assert value(pairs(), temperature=torch.tensor([0.5, 0.25])) == pytest.approx(expected)


def test_a_learnt_temperature_has_its_own_gradient_in_each_task() -> None:
    temperatures = TaskTemperatures(["facts", "code"], initial=0.5)
    loss = info_nce(pairs(), temperature=temperatures("code"))
    assert loss.item() == pytest.approx(value(pairs()))
    loss.backward()
    # L = log(1 + e^(g / t)) with the gap g between negative and positive; dL/dtheta = -(g / t) sigmoid(g / t).
    slopes = [-gap / T / (1 + math.exp(-gap / T)) for gap in (-0.6 - 0.8, 0.6 - 0.8)]
    assert temperatures.theta.grad is not None
    assert temperatures.theta.grad.tolist() == pytest.approx([sum(slopes) / 2, 0.0])  # "code" is before "facts"


def test_a_learnt_temperature_does_not_fall_below_its_floor() -> None:
    temperatures = TaskTemperatures(["facts"], initial=0.05, floor=0.02)
    with torch.no_grad():
        temperatures.theta -= 10
    assert temperatures("facts").item() == pytest.approx(0.02)
    (-temperatures("facts")).backward()
    assert temperatures.theta.grad is not None
    assert temperatures.theta.grad.item() == pytest.approx(-0.02)  # it can rise again


def test_a_task_without_a_temperature_is_named() -> None:
    with pytest.raises(TrainingError, match="'news'"):
        TaskTemperatures(["facts"])("news")


# -- false negatives -------------------------------------------------------------------------------------------------


def test_candidates_that_score_above_the_positive_are_left_out() -> None:
    """n1 scores 0.96 for q2, whose positive scores 0.8."""
    within = value(triples(), InfoNCE(temperature=T, false_negative_margin=0.2))
    assert within == pytest.approx(value(triples()))
    beyond = value(triples(), InfoNCE(temperature=T, false_negative_margin=0.1))
    assert beyond == pytest.approx((nce(0.8, [-0.6, 0.28, -0.8]) + nce(0.8, [0.6, -0.6])) / 2)


def test_queries_that_score_above_the_positive_are_left_out() -> None:
    near = pairs(queries=tensor([[1.0, 0.0], [0.96, 0.28]]))  # their positives score 0.8 and -0.352
    options = InfoNCE(temperature=T, directions=("q-d", "q-q"), false_negative_margin=0.1)
    second = nce(-0.352, [])  # both the other query, 0.96, and the other document, 0.936, are left out
    assert value(near, options) == pytest.approx((nce(0.8, [-0.6]) + second) / 2)  # 0.96 > 0.8 + 0.1 as well


def test_documents_are_judged_by_the_query_when_they_are_held_against_the_positive() -> None:
    """n1 is left out for q2 in both directions, though cos(p2, n1) is 0.6 only."""
    options = InfoNCE(temperature=T, directions=("q-d", "d-d"), false_negative_margin=0.1)
    expected = (nce(0.8, [-0.6, 0.28, -0.8, 0.0, -1.0]) + nce(0.8, [0.6, -0.6, 0.0])) / 2
    assert value(triples(), options) == pytest.approx(expected)


def test_documents_that_almost_repeat_the_positive_are_left_out() -> None:
    """cos(p1, n1) is 0.8; the positive itself, with a cosine of 1, stays."""
    expected = (nce(0.8, [-0.6, -0.8]) + nce(0.8, [0.6, 0.96, -0.6])) / 2
    assert value(triples(), InfoNCE(temperature=T, near_positive=0.75)) == pytest.approx(expected)
    assert value(triples(), InfoNCE(temperature=T, near_positive=0.85)) == pytest.approx(value(triples()))


def test_examples_with_the_same_query_are_no_negatives_of_each_other() -> None:
    ids = TextIds(text_ids(["a", "a"]), text_ids(["x", "y"]), text_ids(["v", "w"]).reshape(2, 1))
    expected = (nce(0.8, [0.28, -0.8]) + nce(0.8, [0.96, -0.6])) / 2
    assert value(triples(ids=ids)) == pytest.approx(expected)


@pytest.mark.parametrize(("queries", "positives"), [("aa", "xy"), ("ab", "xx")])
def test_related_examples_are_left_out_of_every_direction(queries: str, positives: str) -> None:
    ids = TextIds(text_ids(list(queries)), text_ids(list(positives)))
    options = InfoNCE(temperature=T, directions=("q-d", "d-q", "q-q", "d-d"))
    expected = nce(0.8, [0.8])  # the pair itself, once more in d-q
    assert value(pairs(ids=ids), options) == pytest.approx(expected)


def test_a_document_is_no_negative_of_a_query_that_another_example_pairs_it_with() -> None:
    """Examples 0 and 2 have one query; the positive of 2 is the explicit negative of 1 and of 0."""
    queries, positives = random_unit(3, 4), random_unit(3, 4, seed=1)
    negatives = torch.stack([positives[2], positives[2], random_unit(1, 4, seed=2)[0]]).unsqueeze(1)
    ids = TextIds(text_ids(["a", "b", "a"]), text_ids(["x", "y", "z"]), text_ids(["z", "z", "w"]).reshape(3, 1))
    scores = (queries @ torch.cat([positives, negatives[:, 0]]).T).tolist()
    expected = [
        nce(scores[0][0], [scores[0][1], scores[0][5]]),
        nce(scores[1][1], [scores[1][column] for column in (0, 2, 3, 4, 5)]),
        nce(scores[2][2], [scores[2][1], scores[2][5]]),
    ]
    assert value(Contrast(queries, positives, negatives, ids=ids)) == pytest.approx(sum(expected) / 3)


def test_a_positive_is_no_negative_query_of_a_text_that_it_answers_elsewhere() -> None:
    """Examples 1 and 2 have one query, examples 0 and 2 one positive: so d0 answers q1, and q0 and q1 are related."""
    queries, positives = random_unit(3, 4), random_unit(3, 4, seed=1)
    ids = TextIds(text_ids(["a", "b", "b"]), text_ids(["x", "y", "x"]))
    scores, between = (positives @ queries.T).tolist(), (queries @ queries.T).tolist()
    options = InfoNCE(temperature=T, directions=("q-d", "d-q", "q-q"))
    asked = (queries @ positives.T).tolist()
    expected = [
        nce(asked[0][0], [asked[0][1], scores[0][0]]),
        nce(asked[1][1], [scores[1][1]]),
        nce(asked[2][2], [scores[2][2]]),
    ]
    assert between[0][1] != 0  # q-q would count, were they not related
    assert value(Contrast(queries, positives, ids=ids), options) == pytest.approx(sum(expected) / 3)


def test_equal_texts_have_equal_numbers_everywhere() -> None:
    numbers = text_ids(["a", "b", "a", "", "\ud800"])
    assert numbers[0] == numbers[2]
    assert len(set(numbers.tolist())) == 4
    assert numbers.min() >= 0


@pytest.mark.parametrize(
    ("margin", "kept"),
    [
        (GuideMargin(), ([-0.6, 0.28], [-0.6])),  # the guide puts n2 above p1, and p1 and n1 above p2
        (GuideMargin(0.15), ([-0.6], [-0.6])),  # and n1 is within 0.15 of p1
        (GuideMargin(0.25, "relative"), ([-0.6], [-0.6])),  # within a quarter of 0.6
        (GuideMargin(0.1, "relative"), ([-0.6, 0.28], [-0.6])),
    ],
)
def test_a_guide_leaves_out_what_it_prefers(margin: GuideMargin, kept: tuple[list[float], list[float]]) -> None:
    """The guide's cosines with p1, p2, n1, n2: 0.6, -1, 0.5, 0.8 of q1, and 0.8, 0, 0.87, -0.6 of q2."""
    guide = Contrast(
        tensor([[1.0, 0.0], [0.0, 1.0]]),
        tensor([[0.6, 0.8], [-1.0, 0.0]]),
        tensor([[[0.5, math.sqrt(0.75)]], [[0.8, -0.6]]]),
    )
    options = InfoNCE(temperature=T, guide=margin)
    expected = (nce(0.8, kept[0]) + nce(0.8, kept[1])) / 2
    assert value(triples(), options, guide=guide) == pytest.approx(expected)


def test_a_margin_is_below_the_positive_also_where_that_is_negative() -> None:
    scores, positive = tensor([[-0.5, -0.7, -0.8]]), tensor([-0.6])
    assert above_guide(scores, positive, margin=0.25, kind="relative").tolist() == [[True, True, False]]
    assert above_guide(scores, positive, margin=0.05).tolist() == [[True, False, False]]


# -- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("negatives", "first", "second"),
    [
        ("in-batch", [(-0.6, True), (0.28, False), (-0.8, True)], [(0.6, True), (0.96, True), (-0.6, False)]),
        ("explicit", [(-0.6, False), (0.28, True), (-0.8, False)], [(0.6, False), (0.96, False), (-0.6, True)]),
        ("all", [(-0.6, True), (0.28, True), (-0.8, True)], [(0.6, True), (0.96, True), (-0.6, True)]),
    ],
)
def test_hard_negatives_weigh_more(
    negatives: str, first: list[tuple[float, bool]], second: list[tuple[float, bool]]
) -> None:
    options = InfoNCE(temperature=T, hardness=Hardness(3.0, negatives))

    def row(scores: list[tuple[float, bool]]) -> float:
        terms = [math.exp(score / T) * (math.exp(3 * score) if heavy else 1) for score, heavy in scores]
        return nce(0.8, [], extra=terms)

    assert value(triples(), options) == pytest.approx((row(first) + row(second)) / 2)


def test_hardness_is_a_weight_and_has_no_gradient() -> None:
    """dL/ds of the one negative is its share / t; through the weight it would be share * (1 / t + 3)."""
    query, positive = tensor([[1.0, 0.0]]), tensor([[0.8, 0.6]])
    negative = tensor([[[0.6, 0.8]]], gradient=True)
    options = InfoNCE(temperature=T, hardness=Hardness(3.0, "all"))
    info_nce(Contrast(query, positive, negative), options).backward()
    heavy = math.exp(0.6 / T + 3 * 0.6)
    share = heavy / (heavy + math.exp(0.8 / T))
    assert negative.grad is not None
    assert negative.grad[0, 0].tolist() == pytest.approx([share / T, 0.0])


def test_examples_that_are_learnt_count_less() -> None:
    losses = [nce(0.8, [-0.6]), nce(0.8, [0.6])]
    expected = sum(math.sqrt(1 - math.exp(-loss)) * loss for loss in losses) / 2
    assert value(pairs(), InfoNCE(temperature=T, focal=0.5)) == pytest.approx(expected)


def test_a_focal_weight_has_no_gradient() -> None:
    query, positive = tensor([[1.0, 0.0]]), tensor([[0.8, 0.6]])
    negative = tensor([[[0.6, 0.8]]], gradient=True)
    info_nce(Contrast(query, positive, negative), InfoNCE(temperature=T, focal=2.0)).backward()
    share = math.exp(0.6 / T) / (math.exp(0.6 / T) + math.exp(0.8 / T))
    assert negative.grad is not None
    assert negative.grad[0, 0].tolist() == pytest.approx([share**2 * share / T, 0.0])


# -- mixed negatives -------------------------------------------------------------------------------------------------


def test_a_mixed_pair_lies_between_its_two() -> None:
    """Of the directions 0 and 90 degrees: l and 1 - l, brought to unit length, lie on the line x + y = 1 before."""
    negatives = tensor([[[1.0, 0.0], [0.0, 1.0]]])
    mixed, there = mix_pairs(negatives, count=4000, generator=torch.Generator().manual_seed(0))
    assert mixed.shape == (1, 4000, 2)
    assert there.all()
    torch.testing.assert_close(mixed.norm(dim=-1), torch.ones(1, 4000, dtype=torch.float64))
    shares = mixed[0, :, 0] / mixed[0].sum(dim=-1)
    assert ((shares > 0) & (shares < 1)).all()
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(shares.var()) == pytest.approx(1 / 20, abs=0.005)  # of Beta(2, 2): 1 / (4 (2c + 1))


def test_pairs_are_of_negatives_that_are_there() -> None:
    negatives = tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    present = torch.tensor([[True, True, False], [True, False, False]])
    mixed, there = mix_pairs(negatives, present=present, count=50)
    assert there.tolist() == [[True] * 50, [False] * 50]
    assert (mixed[0] > 0).all()
    assert mixed.isfinite().all()
    alone, _ = mix_pairs(negatives[:, :1])
    assert alone.shape == (2, 0, 2)


def test_a_mixed_list_leans_to_what_is_hard() -> None:
    queries = tensor([[1.0, 0.0], [1.0, 0.0]])
    negatives = tensor([[[0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]], [[0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]]])
    present = torch.tensor([[True, True, False], [False, False, False]])
    mixed, there = mix_lists(queries, negatives, present=present, temperature=0.5)
    heavy = math.exp(0.6 / 0.5) / (math.exp(0.6 / 0.5) + 1)
    point = (heavy * 0.6, heavy * 0.8 + (1 - heavy))
    assert mixed[0, 0].tolist() == pytest.approx([part / math.hypot(*point) for part in point])
    assert there.tolist() == [[True], [False]]
    assert mixed.isfinite().all()


def test_mixed_negatives_join_the_softmax() -> None:
    query, positive = tensor([[1.0, 0.0]]), tensor([[0.8, 0.6]])
    negatives = tensor([[[0.6, 0.8], [0.0, 1.0]]])
    contrast = Contrast(query, positive, negatives, ids=TextIds(*(text_ids([text]) for text in "ax")))
    heavy = math.exp(0.6 / 0.1) / (math.exp(0.6 / 0.1) + 1)
    point = (heavy * 0.6, heavy * 0.8 + (1 - heavy))
    listed = point[0] / math.hypot(*point)
    options = InfoNCE(temperature=T, mixing=Mixing(pairs=0, list_temperature=0.1))
    assert value(contrast, options) == pytest.approx(nce(0.8, [0.6, 0.0, listed]))
    half = replace(contrast, present=torch.tensor([[True, False]]))
    for mixing in (options.mixing, Mixing(pairs=1)):
        assert value(half, InfoNCE(temperature=T, mixing=mixing)) == pytest.approx(nce(0.8, [0.6]))
    paired = InfoNCE(temperature=T, mixing=Mixing(pairs=2))
    first = value(contrast, paired, generator=torch.Generator().manual_seed(1))
    assert first == value(contrast, paired, generator=torch.Generator().manual_seed(1))
    assert nce(0.8, [0.6, 0.0, 0.0, 0.0]) < first < nce(0.8, [0.6, 0.0, 0.7, 0.7])
    assert value(replace(contrast, negatives=None), paired) == 0.0


# -- edges -----------------------------------------------------------------------------------------------------------

EVERYTHING = InfoNCE(
    temperature=0.02,
    directions=("q-d", "q-q", "d-d"),
    false_negative_margin=0.0,
    near_positive=0.5,
    hardness=Hardness(9.0, "all"),
    focal=0.5,
)


@pytest.mark.parametrize("options", [InfoNCE(), EVERYTHING, replace(EVERYTHING, mixing=Mixing(2, 2, 0.1))], ids=str)
@pytest.mark.parametrize("negatives", [False, True])
def test_one_example_alone(options: InfoNCE, negatives: bool) -> None:
    query, positive = tensor([[1.0, 0.0]], gradient=True), tensor([[0.8, 0.6]], gradient=True)
    near = tensor([[[0.8, 0.6], [0.8, 0.6]]]) if negatives and options is not InfoNCE() else None
    loss = info_nce(Contrast(query, positive, near), options)
    loss.backward()
    assert loss.isfinite()
    for leaf in (query, positive):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
    if near is None:
        assert loss.item() == 0.0
        assert not query.grad.any()
        assert not positive.grad.any()


def test_when_everything_else_is_left_out_nothing_is_learnt() -> None:
    """Both examples have one query, and the explicit negatives score above the positives."""
    queries, positives = tensor([[1.0, 0.0]] * 2, gradient=True), tensor(POSITIVES, gradient=True)
    negatives = tensor([[[1.0, 0.0]], [[1.0, 0.0]]], gradient=True)
    ids = TextIds(text_ids(["a", "a"]), text_ids(["x", "y"]))
    temperatures = TaskTemperatures(["all"])
    loss = info_nce(Contrast(queries, positives, negatives, ids=ids), EVERYTHING, temperature=temperatures("all"))
    loss.backward()
    assert loss.item() == 0.0
    for leaf in (queries, positives, negatives, temperatures.theta):
        assert leaf.grad is not None
        assert not leaf.grad.any()  # NaN is true


def test_masks_leave_finite_gradients() -> None:
    leaves = [random_unit(*shape, seed=seed).requires_grad_() for seed, shape in enumerate([(8, 4), (8, 4), (8, 3, 4)])]
    ids = TextIds(torch.arange(8) % 3, torch.arange(8) % 5)
    for options in (EVERYTHING, replace(EVERYTHING, directions=("q-d", "d-q"), partition="separate")):
        loss = info_nce(Contrast(leaves[0], leaves[1], leaves[2], ids=ids), options)
        gradients = torch.autograd.grad(loss, leaves)
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_first(dtype: torch.dtype) -> None:
    leaves = [random_unit(*shape, seed=seed).to(dtype) for seed, shape in enumerate([(8, 16), (8, 16), (8, 3, 16)])]
    options = InfoNCE(temperature=0.02, directions=("q-d", "q-q", "d-d"))
    expected = info_nce(Contrast(*(leaf.float() for leaf in leaves)), options)
    for leaf in leaves:
        leaf.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = info_nce(Contrast(*leaves), options)
        spread = spread_out(leaves[0])
        listed = list_cosines(*leaves)
    assert loss.dtype == spread.dtype == listed.dtype == torch.float32
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)


@pytest.mark.parametrize(
    "make",
    [
        lambda: InfoNCE(temperature=0.0),
        lambda: InfoNCE(temperature=math.nan),
        lambda: InfoNCE(focal=-0.1),
        lambda: InfoNCE(directions=("d-q",)),
        lambda: InfoNCE(directions=("q-d", "q-d")),
        lambda: InfoNCE(directions=("q-d", "x-y")),
        lambda: InfoNCE(directions=("q-d", "q-q"), in_batch=False),
        lambda: InfoNCE(directions=("q-d", "d-d"), partition="separate"),
        lambda: InfoNCE(guide=GuideMargin(), mixing=Mixing()),
        lambda: Hardness(-1.0),
        lambda: Mixing(pairs=-1),
        lambda: Mixing(pairs=0),
        lambda: Mixing(list_temperature=0.0),
        lambda: TaskTemperatures(["a"], initial=0.001),
        lambda: Matryoshka(()),
        lambda: Matryoshka((8, 8)),
        lambda: Matryoshka((8, 4), (1.0,)),
        lambda: Matryoshka((8, 4), (1.0, 0.0)),
    ],
)
def test_options_that_make_no_sense_are_refused(make: object) -> None:
    with pytest.raises(UsageError):
        make()


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": 1},
        {"queries": torch.zeros(0, 2)},
        {"queries": torch.zeros(3, 2)},
        {"anchors": torch.zeros(3, 2)},
        {"negatives": torch.zeros(3, 1, 2)},
        {"present": torch.ones(2, 2, dtype=torch.bool)},
        {"ids": TextIds(torch.zeros(1), torch.zeros(1))},
        {"ids": TextIds(torch.zeros(2), torch.zeros(2), torch.zeros(1, 1))},
    ],
    ids=str,
)
def test_shapes_that_contradict_each_other_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(TrainingError):
        triples(**changes)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(TrainingError, match="guide"):
        info_nce(pairs(), InfoNCE(guide=GuideMargin()))
    with pytest.raises(TrainingError, match="guide"):
        info_nce(pairs(), InfoNCE(), guide=pairs())
    with pytest.raises(TrainingError, match="other texts"):
        info_nce(pairs(), InfoNCE(guide=GuideMargin()), guide=triples())
    part = Contrast(tensor(QUERIES[:1]), tensor(POSITIVES))
    with pytest.raises(TrainingError, match="anchors"):
        info_nce(part, InfoNCE(directions=("q-d", "q-q")))


# -- prefixes --------------------------------------------------------------------------------------------------------


def test_a_loss_of_prefixes() -> None:
    """(0.6, 0, 0.8) and (0.48, 0.36, 0.8): cosine 0.928, and 0.8 when cut to two values, (1, 0) and (0.8, 0.6)."""
    seen = []

    def loss(embeddings: dict[str, Tensor]) -> Tensor:
        seen.append({role: tuple(vectors.shape) for role, vectors in embeddings.items()})
        return 1 - (embeddings["queries"] * embeddings["positives"]).sum(dim=-1).mean()

    vectors = {"queries": tensor([[0.6, 0.0, 0.8]]), "positives": tensor([[0.48, 0.36, 0.8]])}
    assert float(matryoshka(loss, Matryoshka((3, 2), (1.0, 0.5)))(vectors)) == pytest.approx(0.072 + 0.5 * 0.2)
    assert seen == [{"queries": (1, 3), "positives": (1, 3)}, {"queries": (1, 2), "positives": (1, 2)}]
    assert float(matryoshka(loss, Matryoshka((3, 2)))(vectors)) == pytest.approx(0.272)
    with pytest.raises(UsageError, match="4"):
        matryoshka(loss, Matryoshka((4,)))(vectors)

"""Distillation, graded pairs and regularisers against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from ragindex.errors import TrainingError, UsageError
from ragindex.train.losses import (
    angle_similarity,
    combine_scores,
    cosent,
    cosine_regression,
    global_orthogonality,
    list_cosines,
    listwise_kl,
    margin_mse,
    pair_cosines,
    similarity_kl,
    spread_out,
)


def tensor(values: Sequence[object], *, gradient: bool = False) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=gradient)


def shares(scores: Sequence[float], temperature: float) -> list[float]:
    terms = [math.exp(score / temperature) for score in scores]
    return [term / sum(terms) for term in terms]


def divergence(teacher: Sequence[float], student: Sequence[float]) -> float:
    return sum(p * math.log(p / q) for p, q in zip(teacher, student, strict=True))


# -- teachers --------------------------------------------------------------------------------------------------------


def test_the_scores_of_a_list() -> None:
    scores = list_cosines(tensor([[1, 0], [0, 1]]), tensor([[0.6, 0.8]] * 2), tensor([[[0, 1], [0.8, 0.6]]] * 2))
    assert scores.tolist() == [pytest.approx([0.6, 0.0, 0.8]), pytest.approx([0.8, 1.0, 0.6])]
    assert list_cosines(tensor([[1, 0]]), tensor([[0.6, 0.8]])).tolist() == [pytest.approx([0.6])]


def test_cosine_regression_is_the_squared_distance() -> None:
    student = tensor([[1.0, 0.0], [0.0, 1.0]], gradient=True)
    teacher = tensor([[0.6, 0.8], [0.0, -1.0]], gradient=True)
    loss = cosine_regression(student, teacher)
    assert loss.item() == pytest.approx((0.4**2 + 0.8**2 + 2**2) / 2)
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.tolist() == [pytest.approx([-0.6, -0.8]), pytest.approx([0.0, 1.0])]  # -2 t / n


def test_a_student_learns_which_texts_are_near_each_other() -> None:
    """Cosines with the two others; the teacher's vectors may have another length."""
    student = tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    teacher = tensor([[1.0, 0.0, 0.0], [0.8, 0.0, 0.6], [0.0, 1.0, 0.0]])
    rows = [([0.6, 0.0], [0.8, 0.0]), ([0.6, 0.8], [0.8, 0.0]), ([0.0, 0.8], [0.0, 0.0])]
    expected = sum(divergence(shares(theirs, 0.2), shares(ours, 0.5)) for ours, theirs in rows) / 3
    loss = similarity_kl(student, teacher, student_temperature=0.5, teacher_temperature=0.2)
    assert loss.item() == pytest.approx(expected)
    assert similarity_kl(student, student).item() == pytest.approx(0.0)


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_texts_have_no_neighbourhood(count: int) -> None:
    student = tensor([[1.0, 0.0], [0.6, 0.8]][:count], gradient=True)
    loss = similarity_kl(student, tensor([[0.0, 1.0], [0.6, 0.8]][:count]))
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad is not None
    assert not student.grad.any()


def test_margins_of_a_teacher() -> None:
    scores, teacher = tensor([[0.9, 0.5, 0.1], [0.2, 0.4, 0.0]]), tensor([[8.0, 7.0, 3.0], [5.0, 5.0, 1.0]])
    errors = [(0.4 - 1) ** 2, (0.8 - 5) ** 2, (-0.2 - 0) ** 2, (0.2 - 4) ** 2]
    assert margin_mse(scores, teacher).item() == pytest.approx(sum(errors) / 4)
    present = torch.tensor([[True, True, True], [True, True, False]])
    assert margin_mse(scores, teacher, present=present).item() == pytest.approx(sum(errors[:3]) / 3)
    assert margin_mse(scores[:, :1], teacher[:, :1]).item() == 0.0
    assert margin_mse(scores, teacher, present=torch.tensor([[True, False, False]] * 2)).item() == 0.0


def test_the_soft_labels_of_a_list() -> None:
    scores, teacher = tensor([[0.9, 0.5, 0.1], [0.2, 0.4, 0.0]]), tensor([[8.0, 7.0, 3.0], [5.0, 5.0, 1.0]])
    rows = zip(scores.tolist(), teacher.tolist(), strict=True)
    expected = sum(divergence(shares(theirs, 2.0), shares(ours, 0.1)) for ours, theirs in rows) / 2
    loss = listwise_kl(scores, teacher, student_temperature=0.1, teacher_temperature=2.0)
    assert loss.item() == pytest.approx(expected)


def test_what_fills_up_a_list_is_no_candidate() -> None:
    scores = tensor([[0.9, 0.5, 0.1], [0.2, 0.4, 0.0]], gradient=True)
    teacher = tensor([[8.0, 7.0, 3.0], [5.0, 5.0, math.inf]])
    present = torch.tensor([[True, True, False], [True, False, False]])
    loss = listwise_kl(scores, teacher, student_temperature=0.1, present=present)
    assert loss.item() == pytest.approx(divergence(shares([8, 7], 1.0), shares([0.9, 0.5], 0.1)) / 2)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert scores.grad[~present].tolist() == [0.0, 0.0, 0.0]
    assert scores.grad[0, :2].all()


def test_scorers_are_brought_to_one_scale_and_added() -> None:
    """Dense 0.9, 0.5, 0.1; BM25 12, 0, 24; a reranker that finds all equal."""
    dense, lexical, flat = tensor([[0.9, 0.5, 0.1]]), tensor([[12.0, 0.0, 24.0]]), tensor([[0.3, 0.3, 0.3]])
    ranged = combine_scores([dense, lexical, flat], weights=[0.5, 0.3, 0.2], normalise="min-max")
    assert ranged.tolist()[0] == pytest.approx([0.5 * 1 + 0.3 * 0.5, 0.5 * 0.5, 0.3 * 1])
    # Deviations: dense sqrt((0.4^2 + 0 + 0.4^2) / 3), lexical sqrt((0 + 12^2 + 12^2) / 3).
    high = 0.4 / math.sqrt(0.32 / 3)
    low = 12 / math.sqrt(288 / 3)
    standard = combine_scores([dense, lexical])
    assert standard.tolist()[0] == pytest.approx([high / 2, -low / 2, -high / 2 + low / 2])


def test_a_scale_is_that_of_the_candidates_that_are_there() -> None:
    present = torch.tensor([[True, True, False], [True, False, False]])
    scores = tensor([[3.0, 1.0, -math.inf], [5.0, math.nan, 9.0]])
    assert combine_scores([scores], normalise="min-max", present=present).tolist() == [[1, 0, 0], [0, 0, 0]]
    assert combine_scores([scores], present=present).tolist() == [[1, -1, 0], [0, 0, 0]]


def test_equal_scores_stay_equal_though_they_are_rounded() -> None:
    scores = torch.full((1, 3), 0.1)
    scores[0, 1] += 1e-8
    assert combine_scores([scores]).tolist() == [[0.0, 0.0, 0.0]]
    assert combine_scores([torch.zeros(1, 3)]).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    "call",
    [
        lambda: cosine_regression(torch.ones(2, 3), torch.ones(2, 4)),
        lambda: similarity_kl(torch.ones(2, 3), torch.ones(3, 3)),
        lambda: margin_mse(torch.ones(2, 3), torch.ones(2, 2)),
        lambda: listwise_kl(torch.ones(2, 3), torch.ones(2, 2)),
        lambda: combine_scores([torch.ones(2, 3), torch.ones(2, 2)]),
        lambda: cosent(torch.ones(2), torch.ones(3)),
    ],
)
def test_what_does_not_fit_together_is_refused(call: Callable[[], Tensor]) -> None:
    with pytest.raises(TrainingError):
        call()


def test_scorers_need_weights_each() -> None:
    with pytest.raises(UsageError):
        combine_scores([])
    with pytest.raises(UsageError):
        combine_scores([torch.ones(1, 2)], weights=[0.5, 0.5])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_first(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(2, 6, 8, generator=generator), dim=-1).to(dtype)
    wide = vectors.float()
    with torch.autocast("cpu", torch.bfloat16):
        for loss in (cosine_regression, similarity_kl, margin_mse, listwise_kl):
            result = loss(vectors[0], vectors[1])
            assert result.dtype == torch.float32
            torch.testing.assert_close(result, loss(wide[0], wide[1]))


# -- graded pairs ----------------------------------------------------------------------------------------------------


def test_the_order_of_graded_pairs() -> None:
    """Labels 2, 0, 1, 1: pairs that should be above others are (0, 1), (0, 2), (0, 3), (2, 1), (3, 1)."""
    scores = [0.5, 0.4, 0.9, 0.1]
    wrong = [0.4 - 0.5, 0.9 - 0.5, 0.1 - 0.5, 0.4 - 0.9, 0.4 - 0.1]
    expected = math.log(1 + sum(math.exp(gap / 0.2) for gap in wrong))
    loss = cosent(tensor(scores), torch.tensor([2, 0, 1, 1]), temperature=0.2)
    assert loss.item() == pytest.approx(expected)


def test_equal_labels_teach_nothing() -> None:
    scores = tensor([0.5, 0.4], gradient=True)
    loss = cosent(scores, torch.tensor([1.0, 1.0]))
    loss.backward()
    assert loss.item() == 0.0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_similarities_of_pairs() -> None:
    """(0.6 + 0.8i) times the conjugate of (0.8 + 0.6i) is 0.96 + 0.28i; with i it is 0.8 - 0.6i."""
    left, right = tensor([[0.6, 0.8], [0.6, 0.8]]), tensor([[0.8, 0.6], [0.0, 1.0]])
    assert pair_cosines(left, right).tolist() == pytest.approx([0.96, 0.8])
    assert angle_similarity(left, right).tolist() == pytest.approx([0.96 + 0.28, 0.8 - 0.6])
    # A vector of odd length is filled up: (1, 0 | 0, 0) and (0, 0 | 1, 0) are 1 and i, and 1 conj(i) = -i.
    odd = angle_similarity(tensor([[1.0, 0.0, 0.0]]), tensor([[0.0, 0.0, 1.0]]))
    assert odd.tolist() == pytest.approx([1.0])


# -- regularisers ----------------------------------------------------------------------------------------------------


def test_regularisers_look_at_all_pairs() -> None:
    vectors = tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])  # cosines 0.6, 0 and 0.8
    assert spread_out(vectors).item() == pytest.approx((0.36 + 0 + 0.64) / 3)
    assert global_orthogonality(vectors).item() == pytest.approx(((0.6 + 0 + 0.8) / 3) ** 2)  # and 1/3 < 1/2
    near = tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6]])  # cosines 0.6, 0.8 and 0.96
    squares = (0.36 + 0.64 + 0.9216) / 3
    assert global_orthogonality(near).item() == pytest.approx(((0.6 + 0.8 + 0.96) / 3) ** 2 + squares - 0.5)


@pytest.mark.parametrize("regulariser", [spread_out, global_orthogonality])
def test_one_vector_has_nothing_to_spread_from(regulariser: Callable[[Tensor], Tensor]) -> None:
    vector = tensor([[0.6, 0.8]], gradient=True)
    loss = regulariser(vector)
    loss.backward()
    assert loss.item() == 0.0
    assert vector.grad is not None
    assert not vector.grad.any()

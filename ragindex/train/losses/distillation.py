"""Losses that make a student repeat a teacher: its vectors, its similarities, or its scores of a list of documents.

Lists are (n, 1 + k): the positive and then the negatives of a query, see `cosines.list_cosines`. `present` (n, 1 + k)
is False where a list is shorter. Teachers have no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ragindex.errors import TrainingError, UsageError
from ragindex.train.losses.cosines import cosines, widened

__all__ = ["combine_scores", "cosine_regression", "listwise_kl", "margin_mse", "similarity_kl"]


def cosine_regression(student: Tensor, teacher: Tensor) -> Tensor:
    """The mean of |s - t|^2 = 2 - 2 cos(s, t) for unit vectors (n, d) of the same texts.

    Embedding regression as in LEAF (arXiv 2509.12539): no labels, no negatives. Jina Embeddings v5 (arXiv 2602.15547)
    takes half of it, 1 - cos. Raises TrainingError when the vectors are not of one shape.
    """
    _check_shapes("Vectors", student, teacher)
    return (2 - 2 * (widened(student) * widened(teacher.detach())).sum(dim=-1)).mean()


def similarity_kl(
    student: Tensor,
    teacher: Tensor,
    *,
    student_temperature: float = 0.05,
    teacher_temperature: float = 0.05,
) -> Tensor:
    """The mean over i of KL( softmax_j(t_i . t_j / T_t) || softmax_j(s_i . s_j / T_s) ), j != i.

    student: (n, d) and teacher: (n, e), unit vectors of the same texts; their lengths may differ. Which texts of the
    batch are near each other, and how near: similarity-preserving distillation (arXiv 1907.09682) with the rows as
    distributions, as in SEED (arXiv 2101.04731). 0 for fewer than three texts.
    """
    if len(student) != len(teacher):
        raise TrainingError(f"There are {len(student)} vectors of the student, but {len(teacher)} of the teacher.")
    return listwise_kl(
        _off_diagonal(cosines(student, student)),
        _off_diagonal(cosines(teacher, teacher)),
        student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
    )


def margin_mse(scores: Tensor, teacher: Tensor, *, present: Tensor | None = None) -> Tensor:
    """The mean over negatives of ((s+ - s-) - (t+ - t-))^2; scores and teacher: lists (n, 1 + k).

    Hofstätter et al., arXiv 2010.02666. Only differences count, but their size does: scale cosines to the range of the
    teacher first. 0 without negatives.
    """
    _check_shapes("Scores", scores, teacher)
    student, target = widened(scores), widened(teacher.detach())
    errors = ((student[:, :1] - student[:, 1:]) - (target[:, :1] - target[:, 1:])).square()
    if present is None:
        return errors.sum() / max(1, errors.numel())
    there = present[:, 1:]
    return errors.masked_fill(~there, 0.0).sum() / there.sum().clamp_min(1)


def listwise_kl(
    scores: Tensor,
    teacher: Tensor,
    *,
    student_temperature: float = 0.05,
    teacher_temperature: float = 1.0,
    present: Tensor | None = None,
) -> Tensor:
    """The mean over queries of KL( softmax(t / T_t) || softmax(s / T_s) ) over the list of a query.

    scores and teacher: lists (n, 1 + k). Hinton et al. (arXiv 1503.02531) for rankings (arXiv 2010.11386). The factor
    T_s^2 that is often put before it is left out: it serves temperatures above 1, and with those of cosines the loss
    would vanish.
    """
    _check_shapes("Scores", scores, teacher)
    ours = _log_shares(widened(scores) / student_temperature, present)
    theirs = _log_shares(widened(teacher.detach()) / teacher_temperature, present)
    return (theirs.exp() * (theirs - ours)).sum() / max(1, len(ours))


def combine_scores(
    scorers: Sequence[Tensor],
    *,
    weights: Sequence[float] | None = None,
    normalise: Literal["z-score", "min-max"] = "z-score",
    present: Tensor | None = None,
) -> Tensor:
    """The sum over scorers r of w_r * norm(score_r), normed over the list of a query: (n, 1 + k).

    A teacher for `listwise_kl`: soft labels of a whole retrieval pipeline, dense, lexical and reranker, as LG-ANNA
    distils them (arXiv 2506.07438); how they are joined is this project's choice. scorers: lists of scores. weights:
    one each, equal shares by default. normalise: to mean 0 and deviation 1, or to [0, 1], so that the scale of BM25
    does not drown a cosine; a scorer that finds all candidates equal gives 0.
    """
    if not scorers:
        raise UsageError("Soft labels need at least one scorer.")
    shares = [1 / len(scorers)] * len(scorers) if weights is None else list(weights)
    if len(shares) != len(scorers):
        raise UsageError(f"There are {len(scorers)} scorers, but {len(shares)} weights for them.")
    for scores in scorers[1:]:
        _check_shapes("Scores", scorers[0], scores)
    parts = [share * _normalised(scores, normalise, present) for share, scores in zip(shares, scorers, strict=True)]
    return sum(parts[1:], start=parts[0])


def _normalised(scores: Tensor, kind: Literal["z-score", "min-max"], present: Tensor | None) -> Tensor:
    there = torch.ones_like(scores, dtype=torch.bool) if present is None else present
    values = widened(scores.detach()).masked_fill(~there, 0.0)
    if kind == "min-max":
        lowest = values.masked_fill(~there, torch.inf).amin(dim=1, keepdim=True)
        spread = values.masked_fill(~there, -torch.inf).amax(dim=1, keepdim=True) - lowest
    else:
        count = there.sum(dim=1, keepdim=True)
        lowest = values.sum(dim=1, keepdim=True) / count
        spread = (((values - lowest).masked_fill(~there, 0.0) ** 2).sum(dim=1, keepdim=True) / count).sqrt()
    flat = spread <= 10 * torch.finfo(values.dtype).eps * values.abs().amax(dim=1, keepdim=True)
    return ((values - lowest) / spread.masked_fill(flat, 1.0)).masked_fill(flat | ~there, 0.0)


def _log_shares(logits: Tensor, present: Tensor | None) -> Tensor:
    """Logarithm of softmax over what is present; 0 elsewhere, since 0 * -inf would be NaN."""
    if present is None:
        return logits.log_softmax(dim=1)
    return logits.masked_fill(~present, -torch.inf).log_softmax(dim=1).masked_fill(~present, 0.0)


def _off_diagonal(square: Tensor) -> Tensor:
    """The n - 1 other entries of every row, (n, n - 1)."""
    count = len(square)
    return square[~torch.eye(count, dtype=torch.bool, device=square.device)].view(count, count - 1)


def _check_shapes(name: str, first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise TrainingError(f"{name} of shapes {tuple(first.shape)} and {tuple(second.shape)} cannot be compared.")

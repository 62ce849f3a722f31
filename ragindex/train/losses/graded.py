"""Losses of pairs with graded labels, as in semantic textual similarity: their order counts, not their values."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from ragindex.errors import TrainingError
from ragindex.train.losses.cosines import widened

__all__ = ["angle_similarity", "cosent", "pair_cosines"]


def cosent(scores: Tensor, labels: Tensor, *, temperature: float = 0.05) -> Tensor:
    """log(1 + sum of e^{(s_j - s_i) / t} over all i, j with label_i > label_j): a scalar.

    scores: (n,), the similarities of n pairs of texts (`pair_cosines`, or `angle_similarity` for AnglE); labels: (n,),
    any scale. CoSENT: Huang et al., TASLP 2024, doi 10.1109/TASLP.2024.3402087. 0 when all labels are equal.
    """
    if scores.shape != labels.shape:
        raise TrainingError(f"There are {len(scores)} pairs, but {len(labels)} labels for them.")
    logits = widened(scores) / temperature
    wrong = logits.unsqueeze(0) - logits.unsqueeze(1)  # at (i, j): by how much pair j is put above pair i
    wrong = wrong[labels.unsqueeze(1) > labels.unsqueeze(0)]
    return torch.cat([wrong.new_zeros(1), wrong]).logsumexp(dim=0)


def pair_cosines(left: Tensor, right: Tensor) -> Tensor:
    """Cosine of each row of `left` with the same row of `right`, unit vectors (n, d): (n,)."""
    return (widened(left) * widened(right)).sum(dim=-1)


def angle_similarity(left: Tensor, right: Tensor) -> Tensor:
    """| Re z + Im z | of z = sum over k of x_k conj(y_k), the halves of a vector being real and imaginary parts: (n,).

    left, right: (n, d), of any length. Re z is the cosine, Im z the sine of the angle between them in complex space,
    and where the cosine is flat, near 1, the sine is not: AnglE, arXiv 2309.12871, as in its authors' code.
    """
    if left.shape[-1] % 2:
        left, right = pad(left, (0, 1)), pad(right, (0, 1))
    left, right = normalize(widened(left), dim=-1), normalize(widened(right), dim=-1)
    real_left, imaginary_left = left.chunk(2, dim=-1)
    real_right, imaginary_right = right.chunk(2, dim=-1)
    sine = (imaginary_left * real_right - real_left * imaginary_right).sum(dim=-1)
    return ((left * right).sum(dim=-1) + sine).abs()

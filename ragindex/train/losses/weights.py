"""Weights: of negatives by how hard they are, as summands of their logits; of examples by how far they are learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ragindex.errors import UsageError

__all__ = ["Hardness", "focal_weights", "hardness_logits"]


@dataclass(frozen=True, slots=True)
class Hardness:
    """Which negatives of a query weigh e^(strength * cosine) in its softmax.

    negatives: "in-batch" those of other examples, "explicit" the query's own, "all" both. Published: LLaVE 9 in-batch
    (arXiv 2503.04812), EmbeddingGemma 5 explicit (arXiv 2509.20354), RzenEmbed 9 all (arXiv 2510.27350).
    """

    strength: float = 9.0
    negatives: Literal["in-batch", "explicit", "all"] = "all"

    def __post_init__(self) -> None:
        if self.strength < 0:
            raise UsageError(f"A hardness of {self.strength} would favour easy negatives; give 0 or more.")


def hardness_logits(scores: Tensor, *, strength: float) -> Tensor:
    """The summand strength * sg(s) of a negative's logit: its term of the softmax counts e^(strength s) times.

    scores: cosines. sg stops the gradient, so that a negative cannot be made lighter but by moving it away.
    """
    return strength * scores.detach()


def focal_weights(losses: Tensor, *, gamma: float) -> Tensor:
    """(1 - p)^gamma for each example, p = e^-loss being the softmax share of its positive; no gradient.

    losses: cross-entropies, any shape. KaLM-Embedding-V2 (arXiv 2506.20923) with gamma 0.5, after the focal loss
    (arXiv 1708.02002).
    """
    return (-torch.expm1(-losses.detach())).clamp_min(0.0) ** gamma

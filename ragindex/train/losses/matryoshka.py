"""Vectors that can be cut: any loss of embeddings, summed over prefixes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import normalize

from ragindex.errors import UsageError
from ragindex.train.losses.cosines import widened

__all__ = ["Embeddings", "Loss", "Matryoshka", "matryoshka"]

Embeddings = Mapping[str, Tensor]  # by role: "queries", "positives", "negatives"; vectors along the last axis
Loss = Callable[[Embeddings], Tensor]


@dataclass(frozen=True, slots=True)
class Matryoshka:
    """dimensions: lengths to cut to, the whole length usually among them. weights: one for each; all 1 by default.

    KaLM-Embedding-V2 takes 896, 512, 256, 128, 64 with weights 1, 0.3, 0.2, 0.1, 0.1 (arXiv 2506.20923).
    """

    dimensions: tuple[int, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.dimensions or min(self.dimensions) < 1 or len(set(self.dimensions)) < len(self.dimensions):
            raise UsageError(f"Matryoshka dimensions are different numbers from 1 up; got {list(self.dimensions)}.")
        if self.weights and len(self.weights) != len(self.dimensions):
            raise UsageError(f"There are {len(self.dimensions)} dimensions, but {len(self.weights)} weights for them.")
        if any(weight <= 0 for weight in self.weights):
            raise UsageError(f"Matryoshka weights must be above 0; got {list(self.weights)}.")


def matryoshka(loss: Loss, options: Matryoshka) -> Loss:
    """The sum over m of w_m * loss(norm(e[:m])): Matryoshka representation learning (arXiv 2205.13147).

    Every tensor of the mapping is cut and brought to unit length again; what should stay whole (scores, a guide's
    vectors) belongs into the loss itself. The loss that is returned raises UsageError for vectors that are shorter
    than a dimension.
    """
    weights = options.weights or (1.0,) * len(options.dimensions)

    def total(embeddings: Embeddings) -> Tensor:
        longest = min(vectors.shape[-1] for vectors in embeddings.values())
        if max(options.dimensions) > longest:
            raise UsageError(f"Vectors of {longest} values cannot be cut to {max(options.dimensions)}.")
        parts = [
            weight * loss({role: cut(vectors, size) for role, vectors in embeddings.items()})
            for size, weight in zip(options.dimensions, weights, strict=True)
        ]
        return sum(parts[1:], start=parts[0])

    return total


def cut(vectors: Tensor, size: int) -> Tensor:
    """The first `size` values of each vector, at unit length."""
    return normalize(widened(vectors[..., :size]), dim=-1)

"""Hard negatives made of hard negatives, on the unit sphere, anew in every step.

KaLM-Embedding-V2 (arXiv 2506.20923), after MoCHi (arXiv 2010.01028): mined negatives grow easy as the encoder learns;
points between them are harder, and cost no mining.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ragindex.errors import UsageError
from ragindex.train.losses.cosines import cosines, widened

__all__ = ["Mixing", "mix_lists", "mix_pairs"]


@dataclass(frozen=True, slots=True)
class Mixing:
    """pairs: negatives that are made of two of an example's own. concentration: see `mix_pairs`. list_temperature: one
    more is made of all of them, see `mix_lists`; None for no such.
    """

    pairs: int = 1
    concentration: int = 2
    list_temperature: float | None = None

    def __post_init__(self) -> None:
        if self.pairs < 0 or self.concentration < 1:
            raise UsageError("Mixed negatives need a count of 0 or more and a concentration of 1 or more.")
        if self.list_temperature is not None and self.list_temperature <= 0:
            raise UsageError(f"A temperature must be above 0; got {self.list_temperature}.")
        if self.pairs == 0 and self.list_temperature is None:
            raise UsageError("Mixing neither pairs nor lists makes no negatives; leave it out instead.")


def mix_pairs(
    negatives: Tensor,
    *,
    present: Tensor | None = None,
    count: int = 1,
    concentration: int = 2,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """norm(l a + (1 - l) b) for `count` random pairs a, b of an example's negatives, l ~ Beta(c, c).

    negatives: (N, k, d), of which `present` (N, k) are there. Returns the mixtures (N, count, d) and which of them are
    there (N, count): an example with one negative has none. concentration: c, a whole number; 1 is uniform, the larger
    the nearer to the middle; KaLM takes 2. generator: of the draws; torch's own by default.
    """
    examples, size = negatives.shape[:2]
    if present is None:
        present = negatives.new_ones((examples, size), dtype=torch.bool)
    if size < 2:
        return negatives.new_empty((examples, 0, negatives.shape[2])), present.new_empty((examples, 0))
    device = negatives.device
    keys = torch.rand((examples, count, size), generator=generator, device=device)
    chosen = keys.masked_fill(~present.unsqueeze(1), -1.0).topk(2, dim=-1).indices
    rows = torch.arange(examples, device=device).unsqueeze(1)
    left, right = negatives[rows, chosen[..., 0]], negatives[rows, chosen[..., 1]]
    share = _beta((examples, count, 1), concentration, device, generator)
    mixed = normalize(share * widened(left) + (1 - share) * widened(right), dim=-1)
    return mixed, (present.sum(dim=1) > 1).unsqueeze(1).expand(-1, count)


def mix_lists(
    queries: Tensor, negatives: Tensor, *, present: Tensor | None = None, temperature: float
) -> tuple[Tensor, Tensor]:
    """norm(sum_k w_k n_k), w = sg(softmax_k(cos(q, n_k) / temperature)): the harder a negative, the larger its part.

    queries: (N, d); negatives: (N, k, d), of which `present` (N, k) are there. Returns mixtures (N, 1, d) and which of
    them are there (N, 1): an example with fewer than two negatives has none.
    """
    if present is None:
        present = torch.ones_like(negatives[..., 0], dtype=torch.bool)
    scores = cosines(queries.detach().unsqueeze(1), negatives.detach()) / temperature  # (N, 1, k)
    absent = ~present.unsqueeze(1)
    # A row without any negative would be softmax over nothing; its mixture is marked as not there.
    weights = scores.masked_fill(absent, torch.finfo(scores.dtype).min).softmax(dim=-1)
    with torch.autocast(negatives.device.type, enabled=False):
        mixed = normalize(weights @ widened(negatives), dim=-1)
    return mixed, present.sum(dim=1, keepdim=True) > 1


def _beta(
    shape: tuple[int, ...], concentration: int, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Draws of Beta(c, c): the middle one of 2c - 1 uniform draws. torch's own sampler takes no generator."""
    draws = torch.rand((*shape, 2 * concentration - 1), generator=generator, device=device)
    return draws.median(dim=-1).values

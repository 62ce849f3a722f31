"""A static encoder while it is trained: bags of tokens, and the decoder at step 0 without the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import embedding_bag, linear, normalize

from ragindex.encoder.checkpoint import Counting
from ragindex.encoder.head import counted
from ragindex.train.row_gradient import RowGradient

__all__ = ["Bags", "StaticModel", "bags_of"]

_ALIKE = Counting()


@dataclass(frozen=True, slots=True)
class Bags:
    """Texts as bags of tokens, end to end, with the teacher's unit vectors.

    ids (entries,): the distinct tokens of each text; counts (entries,): what they count in it together; starts (n,):
    where the entries of a text begin; targets (n, d).
    """

    ids: torch.Tensor
    counts: torch.Tensor
    starts: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, rows: torch.Tensor) -> Bags:
        """The texts at `rows`, in that order."""
        ends = torch.cat([self.starts[1:], torch.tensor([len(self.ids)])])
        lengths = ends[rows] - self.starts[rows]
        starts = lengths.cumsum(0) - lengths
        entries = torch.arange(int(lengths.sum())) + (self.starts[rows] - starts).repeat_interleave(lengths)
        return Bags(self.ids[entries], self.counts[entries], starts, self.targets[rows])

    def owners(self) -> torch.Tensor:
        """The text that each entry belongs to, (entries,)."""
        marks = torch.zeros(len(self.ids), dtype=torch.long)
        marks[self.starts[1:]] = 1
        return marks.cumsum(0)


def bags_of(pieces: Sequence[np.ndarray], targets: torch.Tensor | None = None, *, counting: Counting = _ALIKE) -> Bags:
    """Bags of token sequences (each non-empty); without targets they serve inference only."""
    lengths = np.array([len(piece) for piece in pieces])
    ids = np.concatenate(pieces).astype(np.int64)
    span = int(ids.max()) + 1
    owners = np.repeat(np.arange(len(pieces)), lengths)
    keys, entries = np.unique(owners * span + ids, return_inverse=True)
    shares = [counted(piece, np.ones(len(piece), dtype=bool), counting) for piece in pieces]
    counts = np.bincount(entries, weights=np.concatenate(shares))
    return Bags(
        torch.from_numpy(keys % span),
        torch.from_numpy(counts.astype(np.float32)),
        torch.from_numpy(np.searchsorted(keys, np.arange(len(pieces)) * span)),
        torch.empty(len(pieces), 0) if targets is None else targets,
    )


class StaticModel(nn.Module):
    """Weighted mean of normalised token rows, then a linear map. asking: pool as `MeanQuery` does."""

    def __init__(self, rows: torch.Tensor, weights: torch.Tensor, dimensions: int, *, asking: bool = False) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows)
        self._gathered = RowGradient(self.rows)
        self.log_weights = nn.Parameter(weights.log())
        self.head = nn.Linear(rows.shape[1], dimensions)
        self.query = nn.Parameter(-torch.eye(rows.shape[1])) if asking else None

    def pooled(self, bags: Bags) -> torch.Tensor:
        """Weighted means, (n, hidden)."""
        used, position = bags.ids.unique(return_inverse=True)
        rows = self._gathered.rows(used)
        rows = rows / rows.square().mean(-1, keepdim=True).add(1e-6).sqrt()
        weights = self.log_weights[bags.ids].exp() * bags.counts
        owners = bags.owners()

        def mean(weights: torch.Tensor) -> torch.Tensor:
            sums = embedding_bag(position, rows, bags.starts, mode="sum", per_sample_weights=weights)
            totals = torch.zeros(len(bags)).index_add(0, owners, weights)
            return sums / totals.clamp_min(1e-12).unsqueeze(1)

        if self.query is None:
            return mean(weights)
        asked = normalize(mean(weights), dim=-1) @ self.query.T
        answers = (normalize(rows, dim=-1)[position] * asked[owners]).sum(-1)
        return mean(weights * answers.exp())

    def forward(self, bags: Bags) -> torch.Tensor:
        """Unit vectors, (n, d)."""
        return normalize(linear(self.pooled(bags), self.head.weight, self.head.bias), dim=-1)

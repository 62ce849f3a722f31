"""Predicting tokens of text: the objective that causal training and masked training share.

    loss = mean over the predicted tokens of a step of -log p(token)

A step is computed a part at a time, each weighed by the tokens it predicts, so its gradient does not depend on memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ragindex.errors import UsageError
from ragindex.train.blocks import Rows, RowSplit, row_batches
from ragindex.train.data.batching import Shard
from ragindex.train.language import LanguageModel, Scores, TokenBatch
from ragindex.train.objective import Backward
from ragindex.train.processes import rank, world_size
from ragindex.train.sharding import in_step

__all__ = ["Hiding", "PredictionOptions", "TokenPrediction"]


class Hiding(Protocol):
    """Decides which tokens of a batch are predicted, and what is read in their place."""

    def __call__(self, batch: TokenBatch, *, generator: torch.Generator | None = None) -> TokenBatch:
        """The batch with other ids and labels. generator: of its draws; torch's own by default."""


@dataclass(frozen=True, slots=True)
class PredictionOptions:
    """tokens: padded tokens in a step (and process); chunk: of those that are computed at a time."""

    tokens: int = 8192
    chunk: int = 8192
    seed: int = 7

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.chunk < 1:
            raise UsageError("A step needs at least one token.")


class TokenPrediction:
    """The objective for `ragindex.train.loop`. hiding: None predicts every token."""

    def __init__(
        self,
        model: LanguageModel,
        split: RowSplit,
        options: PredictionOptions | None = None,
        *,
        hiding: Hiding | None = None,
    ) -> None:
        self._model, self._split, self._hiding = model, split, hiding
        self._options = options or PredictionOptions()
        for rows in split:
            model.check_ids(rows.ids)

    @property
    def model(self) -> nn.Module:
        """The decoder with its head."""
        return self._model

    def parameter_groups(self, rate: float, *, weight_decay: float) -> list[dict[str, Any]]:
        """See `Objective`."""
        return self._model.parameter_groups(rate, weight_decay=weight_decay)

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """Numbers of rows; every process has its own part."""
        shard = Shard(rank(), world_size())
        options = self._options
        return row_batches(self._split.train, tokens=options.tokens, seed=options.seed, epoch=epoch, shard=shard)

    def step(self, batch: list[int], backward: Backward) -> Mapping[str, float]:
        """See `Objective`."""
        rows = self._hidden(self._split.train, batch)
        count = rows.predicted
        total = 0.0
        parts = list(rows.parts(max(1, self._options.chunk // rows.ids.shape[1])))
        for part, weight in in_step(parts, self._model):
            loss = weight * self._model.loss(part) / max(1, count)
            backward(loss)
            total += loss.item()
        return {"loss": total, "tokens": int(self._split.train.lengths[batch].sum()), "predicted": count}

    def evaluate(self) -> Mapping[str, float]:
        """Mean loss (nats), its exponential, and the share of tokens that come first, on held-out rows. What is hidden
        in them is the same every time.
        """
        held_out = self._split.held_out
        generator = torch.Generator().manual_seed(self._options.seed)
        found = Scores()
        order = np.argsort(-held_out.lengths, kind="stable")
        size = max(1, self._options.chunk // int(held_out.lengths.max()))
        for start in range(0, len(order), size):
            batch = [int(row) for row in order[start : start + size]]
            found += self._model.scores(self._hidden(held_out, batch, generator))
        if not found.count:
            return {}
        loss = found.loss / found.count
        return {
            "held_out_loss": loss,
            "held_out_perplexity": math.exp(min(loss, 100.0)),
            "held_out_accuracy": found.right / found.count,
        }

    def _hidden(self, rows: Rows, places: list[int], generator: torch.Generator | None = None) -> TokenBatch:
        batch = TokenBatch.of([rows[place] for place in places])
        return batch if self._hiding is None else self._hiding(batch, generator=generator)

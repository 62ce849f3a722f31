"""The decoder's forward pass in torch: texts sorted into batches, run, pooled and mapped on the device, one copy out.

With `backbone`, the only part of the inference path that loads torch.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch.nn.functional import normalize

from ragindex.encoder.backbone import load_checkpoint
from ragindex.encoder.batching import Batch, Budget, FixedShapes, Schedule, in_order, token_budget_batches
from ragindex.encoder.checkpoint import WEIGHTLESS, Checkpoint, Counting, Pooling
from ragindex.encoder.compiling import compile_layers
from ragindex.encoder.devices import choose_device, choose_dtype, keep_freed_memory, padded_tokens, send
from ragindex.encoder.head import Head
from ragindex.encoder.packing import Packed
from ragindex.encoder.padding import Layout, Padded
from ragindex.encoder.pooling import Pooler, stored_pooling
from ragindex.encoder.tokenizer import Tokenized
from ragindex.errors import EncoderError

__all__ = [
    "Execution",
    "TorchForward",
    "choose_device",
    "choose_dtype",
    "counts_of",
    "pool_states",
    "token_budget_batches",
]

_NO_STATES = np.empty((0, 0), dtype=np.float32)


Execution = Literal["free", "compiled", "stable"]


class TorchForward:
    """Unit vectors for many texts. Calls from several threads are served one after the other: torch already uses
    every core.

    execution: "free" is as fast as can be at once; "compiled" compiles the layers first (torch.compile, a minute and a
    C++ compiler or Triton), for long runs; "stable" computes in fixed shapes, so that a vector is the same bit for bit
    whatever else is encoded with it, and slower the shorter the texts are.
    """

    is_static = False  # layers are run as they are

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        execution: Execution = "free",
    ) -> None:
        self._pooling = checkpoint.config.pooling
        self._counting = checkpoint.config.counting
        self.device = choose_device(device)
        self.dtype = dtype or choose_dtype(self.device)
        if self.device.type == "cpu":
            keep_freed_memory()
        model = load_checkpoint(checkpoint, device=self.device, dtype=self.dtype)
        self._layout: Layout
        self._schedule: Schedule
        if execution == "stable":
            self._layout, self._schedule = Padded(model, masked=True), FixedShapes()
        else:
            self._layout, self._schedule = Packed.of(model) or Padded(model), Budget(padded_tokens(self.device))
        if execution == "compiled":
            compile_layers(model, self._layout)
        head = Head.read(checkpoint.directory)
        self._token_weights = self._tensor(head.token_weights)
        self._weight = self._tensor(head.weight)
        self._bias = self._tensor(head.bias)
        self._pooler: Pooler | None = None
        if self._pooling not in WEIGHTLESS:
            self._pooler = stored_pooling(self._pooling, head.pooler).to(self.device)
        self._lock = threading.Lock()

    @property
    def is_packed(self) -> bool:
        """Whether texts are computed without padding, end to end; the model has proven that none reads another."""
        return isinstance(self._layout, Packed)

    def __call__(self, batch: Sequence[Tokenized]) -> np.ndarray:
        """Unit vectors, float32 (len(batch), d), in the order of `batch`.

        Raises EncoderError for a text that the device's memory cannot hold.
        """
        with self._lock:
            return in_order(self._schedule.compute(batch, self._run))

    def states(self, batch: Sequence[Tokenized]) -> list[np.ndarray]:
        """Last hidden states, float32 (length, hidden) of each text, in the order of `batch`. Raises as a call does."""
        found = [_NO_STATES] * len(batch)
        with self._lock:
            for part in self._schedule.compute(batch, self._last_states):
                for place, row in zip(part.places, part.rows.cpu().float().numpy(), strict=True):
                    found[place] = row[: len(batch[place].ids)]
        return found

    @torch.inference_mode()
    def _last_states(self, items: list[Tokenized], length: int | None = None) -> torch.Tensor:
        """Of each text, (len(items), length, hidden), padded."""
        return self._layout.states(Batch.of(items, length=length))[-1]

    @torch.inference_mode()
    def _run(self, items: list[Tokenized], length: int | None = None) -> torch.Tensor:
        """Unit vectors on the device, (len(items), d); nothing in here waits for it."""
        batch = Batch.of(items, length=length)
        every = self._pooler is not None and self._pooler.needs_all_layers
        layers = self._layout.states(batch, every_layer=every)
        vectors = self._pool([layer.float() for layer in layers], batch)
        if self._weight is not None:
            vectors = vectors @ self._weight.T
        if self._bias is not None:
            vectors = vectors + self._bias
        return normalize(vectors, dim=-1, eps=1e-12)

    def _pool(self, layers: Sequence[torch.Tensor], batch: Batch) -> torch.Tensor:
        pooled = send(batch.pooled, self.device)
        weights = counts_of(send(batch.ids, self.device), pooled, self._token_weights, self._counting)
        if self._pooler is None:
            return pool_states(layers[-1], pooled, weights, self._pooling)
        vectors: torch.Tensor = self._pooler(layers, pooled if weights is None else pooled * weights)
        return vectors

    def _tensor(self, array: np.ndarray | None) -> torch.Tensor | None:
        return None if array is None else torch.from_numpy(array).to(self.device)


def counts_of(
    ids: torch.Tensor, pooled: torch.Tensor, token_weights: torch.Tensor | None, counting: Counting
) -> torch.Tensor | None:
    """What each token counts in pooling, (n, length); None where all count alike.

    ids: (n, length); pooled: as for `pool_states`; token_weights: (vocabulary,) or None. The same in numpy is
    `ragindex.encoder.head.counted`. Nothing in here waits for the device.
    """
    counts = None if token_weights is None else token_weights[ids]
    if counting == Counting():
        return counts
    own = pooled > 0
    shares = torch.ones(ids.shape, device=ids.device)
    if counting.lead is not None:
        places = (own.cumsum(dim=1) - 1).clamp_min(0)
        shares = (1 + places / counting.lead).rsqrt()
    if counting.saturation is not None:
        shares = shares * (counting.saturation + 1) / (counting.saturation + _together(ids, shares * own))
    return shares if counts is None else counts * shares


def _together(ids: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """What all tokens of a text that are the same as a token count together, (n, length). By sorting: comparing all
    with all would take the square of the length.
    """
    ordered, order = ids.sort(dim=1)
    sums = shares.gather(1, order).cumsum(dim=1)
    sums = torch.cat([torch.zeros_like(sums[:, :1]), sums], dim=1)
    first, beyond = torch.searchsorted(ordered, ids), torch.searchsorted(ordered, ids, right=True)
    return sums.gather(1, beyond) - sums.gather(1, first)


def pool_states(
    states: torch.Tensor, pooled: torch.Tensor, token_weights: torch.Tensor | None, pooling: Pooling
) -> torch.Tensor:
    """One vector (n, hidden) a row from states (n, length, hidden), by mask: pad tokens are those with `pooled` 0.

    pooled: (n, length), 1 where a token counts; token_weights: (n, length) or None. See `ragindex.encoder.head` for
    the modes.
    """
    if pooling not in WEIGHTLESS:
        raise EncoderError(f"{pooling} pooling has weights of its own, which this cannot apply or train.")
    if pooling == "last":
        positions = torch.arange(pooled.shape[1], device=pooled.device)
        last = (pooled * (positions + 1)).argmax(dim=1)
        return states[torch.arange(len(states), device=states.device), last]
    shares = pooled * pooled.cumsum(dim=1) if pooling == "weighted-mean" else pooled
    if token_weights is not None:
        shares = shares * token_weights
    return torch.einsum("nl,nlh->nh", shares, states) / shares.sum(dim=1, keepdim=True).clamp_min(1e-12)

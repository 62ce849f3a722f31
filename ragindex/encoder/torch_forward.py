"""The decoder's forward pass in torch: sorted token-budget batches, pooling and head on the device, one copy out
per batch.

The only module of the inference path that imports torch (with `backbone`, which it loads).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.nn.functional import normalize

from ragindex.encoder.backbone import load_checkpoint
from ragindex.encoder.checkpoint import WEIGHTLESS, Checkpoint, Pooling
from ragindex.encoder.head import Head
from ragindex.encoder.pooling import Pooler, stored_pooling
from ragindex.encoder.tokenizer import Tokenized
from ragindex.errors import EncoderError

__all__ = ["TorchForward", "choose_device", "choose_dtype", "pool_states", "token_budget_batches"]

_BUDGET = {"cpu": 4_096, "cuda": 65_536, "mps": 16_384}  # padded tokens in a batch


def choose_device(name: str | None = None) -> torch.device:
    """The device called `name`, or the best there is."""
    if name is not None:
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32


class TorchForward:
    """Unit vectors for many texts. Calls from several threads are served one after the other: torch already uses
    every core.
    """

    def __init__(self, checkpoint: Checkpoint, *, device: str | None = None, dtype: torch.dtype | None = None) -> None:
        self._config = checkpoint.config
        self.device = choose_device(device)
        self.dtype = dtype or choose_dtype(self.device)
        self._model = load_checkpoint(checkpoint, device=self.device, dtype=self.dtype)
        head = Head.read(checkpoint.directory)
        self._token_weights = self._tensor(head.token_weights)
        self._weight = self._tensor(head.weight)
        self._bias = self._tensor(head.bias)
        self._pooler: Pooler | None = None
        if self._config.pooling not in WEIGHTLESS:
            self._pooler = stored_pooling(self._config.pooling, head.pooler).to(self.device)
        self._budget = _BUDGET.get(self.device.type, 4_096)
        self._lock = threading.Lock()

    is_static = False  # layers are run as they are

    def __call__(self, batch: Sequence[Tokenized]) -> np.ndarray:
        """Unit vectors, float32 (len(batch), d), in the order of `batch`."""
        parts: list[np.ndarray] = []
        order: list[int] = []
        with self._lock:
            for indices in token_budget_batches([len(item.ids) for item in batch], self._budget):
                parts.extend(self._halving([batch[index] for index in indices]))
                order.extend(indices)
        stacked = np.concatenate(parts)
        result = np.empty_like(stacked)
        result[order] = stacked
        return result

    def _halving(self, items: list[Tokenized]) -> Iterator[np.ndarray]:
        """Encode a batch; when memory runs out, its two halves."""
        try:
            yield self._run(items)
            return
        except torch.OutOfMemoryError:
            if len(items) == 1:
                raise
        torch.cuda.empty_cache()
        middle = len(items) // 2
        yield from self._halving(items[:middle])
        yield from self._halving(items[middle:])

    @torch.inference_mode()
    def _run(self, items: list[Tokenized]) -> np.ndarray:
        longest = max(len(item.ids) for item in items)
        ids = np.zeros((len(items), longest), dtype=np.int64)
        real = np.zeros((len(items), longest), dtype=np.int64)
        pooled = np.zeros((len(items), longest), dtype=np.float32)
        for row, item in enumerate(items):
            ids[row, : len(item.ids)] = item.ids
            real[row, : len(item.ids)] = 1
            pooled[row, : len(item.ids)] = item.pooled
        tensors = [torch.from_numpy(array).to(self.device, non_blocking=True) for array in (ids, real, pooled)]
        # Without padding no mask is passed: that opens the fused attention kernels.
        mask = tensors[1] if not real.all() else None
        weights = self._token_weights[tensors[0]] if self._token_weights is not None else None
        vectors = self._pool(tensors[0], mask, tensors[2], weights)
        if self._weight is not None:
            vectors = vectors @ self._weight.T
        if self._bias is not None:
            vectors = vectors + self._bias
        return np.asarray(normalize(vectors, dim=-1, eps=1e-12).cpu().numpy())

    def _pool(
        self, ids: torch.Tensor, mask: torch.Tensor | None, pooled: torch.Tensor, weights: torch.Tensor | None
    ) -> torch.Tensor:
        every = self._pooler is not None and self._pooler.needs_all_layers
        output = self._model(input_ids=ids, attention_mask=mask, output_hidden_states=every, use_cache=False)
        if self._pooler is None:
            return pool_states(output.last_hidden_state.float(), pooled, weights, self._config.pooling)
        states = output.hidden_states if every else (output.last_hidden_state,)
        shares = pooled if weights is None else pooled * weights
        vectors: torch.Tensor = self._pooler([layer.float() for layer in states], shares)
        return vectors

    def _tensor(self, array: np.ndarray | None) -> torch.Tensor | None:
        return None if array is None else torch.from_numpy(array).to(self.device)


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


def token_budget_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices grouped so that each group, padded to its longest, holds at most `budget` tokens; longest first.

    Longest first, so that a device that is too small fails at once and not after an hour. Sorting by length keeps
    padding near 10 %.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches

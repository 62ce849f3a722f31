"""From token states to one unit vector: token weights, pooling by mask, the linear head; in numpy.

`ragindex.encoder.torch_forward` holds the same arithmetic for tensors; a test keeps the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ragindex.encoder.checkpoint import HEAD_FILE, Pooling
from ragindex.errors import EncoderError

__all__ = ["Head", "pool"]


@dataclass(frozen=True, slots=True)
class Head:
    """The optional tensors after the decoder, float32; None where the encoder has none.

    token_weights: (vocabulary,), how much a token counts in pooling; weight (d, hidden) and bias (d,): a linear map
    of the pooled state.
    """

    token_weights: np.ndarray | None = None
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None

    @classmethod
    def read(cls, directory: Path) -> Head:
        """The head of an encoder directory; an empty one when it has no head file. Raises EncoderError when the file
        is damaged.
        """
        file = directory / HEAD_FILE
        if not file.is_file():
            return cls()
        try:
            tensors = {name: tensor.astype(np.float32) for name, tensor in load_file(file).items()}
        except (OSError, SafetensorError, TypeError) as error:
            raise EncoderError(f"{file} cannot be read as fp16 or fp32 tensors: {error}.") from error
        return cls(tensors.get("token_weights"), tensors.get("weight"), tensors.get("bias"))

    def apply(self, states: np.ndarray, ids: np.ndarray, pooled: np.ndarray, pooling: Pooling) -> np.ndarray:
        """Unit vector (d,) from the states (length, hidden) of one text."""
        vector = pool(states, self._shares(ids, pooled, pooling))
        if self.weight is not None:
            vector = self.weight @ vector
        if self.bias is not None:
            vector = vector + self.bias
        return vector / max(float(np.linalg.norm(vector)), 1e-12)

    def _shares(self, ids: np.ndarray, pooled: np.ndarray, pooling: Pooling) -> np.ndarray:
        shares = pooled.astype(np.float32)
        if pooling == "last":
            last = np.flatnonzero(pooled)[-1]
            shares = np.zeros_like(shares)
            shares[last] = 1.0
        elif pooling == "weighted-mean":  # SGPT, arXiv 2202.08904: later tokens have read more
            shares *= np.cumsum(shares)
        if self.token_weights is not None and pooling != "last":
            shares *= self.token_weights[ids]
        return shares


def pool(states: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Mean of the states (length, hidden) by shares (length,)."""
    return np.asarray(shares @ states / max(float(shares.sum()), 1e-12), dtype=np.float32)

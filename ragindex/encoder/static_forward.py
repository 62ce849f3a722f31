"""Static embeddings of sentence-transformers and model2vec in numpy: the mean of a text's token rows, linear maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragindex.encoder.checkpoint import WEIGHTS_FILE, Checkpoint
from ragindex.encoder.head import Head, load_tensors
from ragindex.encoder.tokenizer import Tokenized
from ragindex.errors import EncoderError

__all__ = ["StaticForward"]


class StaticForward:
    """Unit vectors for texts. Thread-safe."""

    is_static = True
    device, dtype = "cpu", "float32"

    def __init__(self, checkpoint: Checkpoint) -> None:
        tensors = load_tensors(checkpoint.backbone / WEIGHTS_FILE)
        table = tensors.get("embedding.weight", tensors.get("embeddings"))
        if table is None or table.ndim != 2:
            raise EncoderError(f"{checkpoint.backbone / WEIGHTS_FILE} holds no embeddings.")
        # model2vec lets tokens share rows, and keeps the weights of tokens apart.
        if "mapping" in tensors:
            table = table[tensors["mapping"].astype(np.int64)]
        if "weights" in tensors:
            table = table * tensors["weights"].reshape(-1, 1)
        self._table = table
        self._head = Head.read(checkpoint.directory)

    def __call__(self, batch: Sequence[Tokenized]) -> np.ndarray:
        """Unit vectors, float32 (len(batch), d)."""
        highest = max(int(item.ids.max()) for item in batch)
        if highest >= len(self._table):
            raise EncoderError(
                f"The tokenizer gives token {highest} but the model knows {len(self._table)}: they are not of "
                "the same encoder."
            )
        return np.stack([self._head.apply(self.rows(item.ids), item.ids, item.pooled, "mean") for item in batch])

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """States of tokens (n,), float32 (n, hidden)."""
        return np.asarray(self._table[ids], dtype=np.float32)

    def shares(self, item: Tokenized) -> np.ndarray:
        """What each token of a text counts in its vector, float32 (length,)."""
        return self._head.shares([self.rows(item.ids)], item.ids, item.pooled, "mean")

"""What of a decoder is trained: all of it, or an adapter."""

from __future__ import annotations

from ragindex.encoder.checkpoint import Checkpoint
from ragindex.errors import UsageError
from ragindex.train.preparing import Lora
from ragindex.train.tensors import TensorFiles

__all__ = ["LARGE", "parameter_count", "tuning"]

LARGE = 100_000_000
"""Parameters above which an adapter is trained if nothing else is asked for: memory and old knowledge are spared."""


def parameter_count(checkpoint: Checkpoint) -> int:
    """Parameters of a decoder, from the headers of its weight files."""
    return sum(spec.size for spec in TensorFiles(checkpoint.weight_files()).specs.values())


def tuning(
    checkpoint: Checkpoint, *, rank: int | None = None, alpha: int | None = None, dropout: float = 0.05, seed: int = 7
) -> Lora | None:
    """The adapter to train, or None for all weights.

    rank: None decides by the decoder's size, 0 asks for all weights; alpha: twice the rank by default.
    """
    if rank is None:
        rank = Lora().rank if parameter_count(checkpoint) > LARGE else 0
    if rank < 0 or not 0 <= dropout < 1:
        raise UsageError("An adapter has a rank above 0 and a dropout from 0 to below 1.")
    return Lora(rank=rank, alpha=alpha or 2 * rank, dropout=dropout, seed=seed) if rank else None

"""Measures whether an encoder's vectors depend on anything but their own text: the batch, padding, the code path."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragindex.encoder import Checkpoint, Encoder, find_checkpoint
from ragindex.encoder.foreign import is_static
from ragindex.encoder.foreign_forward import ForeignForward
from ragindex.encoder.numpy_forward import NumpyForward, supports
from ragindex.encoder.static_forward import StaticForward
from ragindex.encoder.torch_forward import TorchForward
from ragindex.errors import UsageError

__all__ = ["ProbeReport", "probe"]

# 1 - cosine. Sums in another order differ by rounding; a vector that reads padding or its neighbours by far more.
_LIMITS = {"float32": 1e-5, "bfloat16": 2e-3}
_TEXT = "The mooring line is inspected every spring and replaced after the third winter."
_TEXTS = (
    "Tide",
    "How long may a spare battery be stored?",
    "def rotate(key: str) -> str: return key[1:] + key[:1]",
    f"{_TEXT} {_TEXT}",
    "潮位計の時計は毎月合わせる。",
)


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What a probe found; deviations are the largest 1 - cosine to the vector of the same text alone.

    attention: as configured, and shown by the self-test at loading; numpy_deviation: of the path that short queries
    take, None where the architecture has none.
    """

    encoder: str
    device: str
    dtype: str
    attention: str
    self_test: str
    batch_deviation: float
    padding_deviation: float
    numpy_deviation: float | None
    limit: float
    ok: bool


def probe(name: str, *, device: str | None = None) -> ProbeReport:
    """Load the encoder called `name` in torch, which runs the attention self-test, and compare vectors.

    Raises EncoderError when it cannot be loaded, BackboneError when it fails the self-test, UsageError for a device
    that cannot be used.
    """
    encoder, checkpoint = Encoder.load(name), find_checkpoint(name)
    try:
        forward = _forward(checkpoint, device)
    except (AssertionError, RuntimeError) as error:  # both are torch's ways to say that a device is unknown or absent
        raise UsageError(f"The device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    prompts = checkpoint.config.prompts
    tokenized = encoder.tokenizer.tokenize([prompts.for_document(text) for text in _TEXTS])
    alone = np.concatenate([forward([item]) for item in tokenized])
    same_length = forward([tokenized[3]] * 8)
    numpy_deviation = _deviation(alone, NumpyForward(checkpoint)(tokenized)) if supports(checkpoint) else None
    batch = _deviation(np.repeat(alone[3:4], 8, axis=0), same_length)
    padding = _deviation(alone, forward(tokenized))
    dtype = str(forward.dtype).removeprefix("torch.")
    limit = _LIMITS.get(dtype, _LIMITS["bfloat16"])
    return ProbeReport(
        encoder=name,
        device=str(forward.device),
        dtype=dtype,
        attention=checkpoint.config.attention,
        self_test="passed",
        batch_deviation=batch,
        padding_deviation=padding,
        numpy_deviation=numpy_deviation,
        limit=limit,
        ok=max(batch, padding, numpy_deviation or 0.0) <= limit,
    )


def _forward(checkpoint: Checkpoint, device: str | None) -> TorchForward | ForeignForward | StaticForward:
    if not checkpoint.is_foreign:
        return TorchForward(checkpoint, device=device)
    return StaticForward(checkpoint) if is_static(checkpoint.directory) else ForeignForward(checkpoint, device=device)


def _deviation(one: np.ndarray, other: np.ndarray) -> float:
    """Largest 1 - cosine between rows of unit vectors (n, d)."""
    return max(0.0, float(1 - np.einsum("ij,ij->i", one, other, dtype=np.float64).min()))

"""Compiles a decoder's layers, so that what happens to a token between two matrix products is one kernel, not ten."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from ragindex.encoder.batching import Batch
from ragindex.encoder.packing import keep_attention_uncompiled
from ragindex.encoder.padding import Layout
from ragindex.encoder.tokenizer import Tokenized
from ragindex.errors import EncoderError

__all__ = ["compile_layers"]

_TRIALS = ((24, 40), (32, 32))  # lengths of texts, with padding and without


@torch.inference_mode()
def compile_layers(model: PreTrainedModel, layout: Layout) -> None:
    """Compile the layers of `model`, in place, and run them as `layout` does: all of them share the code, and it is
    good for any number of tokens.

    Raises EncoderError where that cannot be done.
    """
    keep_attention_uncompiled()
    for module in cast("Iterable[nn.Module]", model.modules()):
        if isinstance(module, GradientCheckpointingLayer):  # what every decoder layer of transformers is
            module.compile(dynamic=True)
    try:
        for lengths in _TRIALS:
            layout.states(Batch.of([_text(length) for length in lengths]))
    except (RuntimeError, OSError) as error:  # a compiler that is missing or fails; torch has no narrower name for it
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise EncoderError(
            f"{type(model).__name__} cannot be compiled here ({reason}); leave the execution at 'free'."
        ) from error


def _text(length: int) -> Tokenized:
    return Tokenized(np.arange(length, dtype=np.int64), np.ones(length, dtype=bool))

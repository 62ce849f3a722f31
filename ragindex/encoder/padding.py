"""Runs a decoder on texts padded to one length: what every architecture understands."""

from __future__ import annotations

from typing import Protocol

import torch
from transformers import PreTrainedModel

from ragindex.encoder.batching import Batch
from ragindex.encoder.devices import send

__all__ = ["Layout", "Padded"]


class Layout(Protocol):
    """A way to run a decoder on a batch of texts."""

    def states(self, batch: Batch, *, every_layer: bool = False) -> list[torch.Tensor]:
        """The last hidden states (n, length, hidden), or those of every layer; what stands where a text has ended is
        finite and means nothing.
        """


class Padded:
    """Rows of one length; a mask keeps texts from reading padding.

    masked: pass the mask also when nothing is padded. By default it is not, which opens the fused attention kernels.
    """

    def __init__(self, model: PreTrainedModel, *, masked: bool = False) -> None:
        self._model = model
        self._masked = masked

    def states(self, batch: Batch, *, every_layer: bool = False) -> list[torch.Tensor]:
        """See `Layout`."""
        device = self._model.device
        mask = send(batch.real, device).long() if self._masked or not batch.real.all() else None
        output = self._model(
            input_ids=send(batch.ids, device), attention_mask=mask, output_hidden_states=every_layer, use_cache=False
        )
        return list(output.hidden_states) if every_layer else [output.last_hidden_state]

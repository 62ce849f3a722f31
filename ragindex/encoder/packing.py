"""Runs a decoder on texts laid end to end in one row, without padding, once it is proven that none reads another.

Everything but attention works on tokens one by one, so a row of any texts will do. Attention is computed text by text:
with a kernel for texts of many lengths on a GPU (FlashAttention's `varlen`, Dao, arXiv 2307.08691), on a CPU for each
run of texts of equal length at once. That is what a block-diagonal mask asks for, without the blocks that it throws
away: over a row of T tokens those cost T², more than the padding that packing saves.

`transformers` takes the attention function from a registry, by name; its models are not touched. Not every architecture
passes on what that function needs, and some count positions by themselves. So a model is packed only after it has shown
that it can be: see `Packed.of`.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import create_masks_for_generate

from ragindex.encoder.batching import Batch
from ragindex.encoder.devices import send
from ragindex.encoder.kernels import Texts, Varlen, attend_by_products, choose_varlen, products_pay
from ragindex.encoder.padding import Padded
from ragindex.encoder.tokenizer import Tokenized

__all__ = ["Packed", "keep_attention_uncompiled"]

_NAME = "ragindex_packed"  # in transformers' registry of attention functions
_LENGTHS = (9, 6, 6, 11, 1)  # of the texts of the proof
_CHANGED = 1  # the one of them that is replaced
_WINDOW = 4  # a sliding window that they reach beyond
_LEAK = 1e-6  # relative; no text moves when another one changes, up to 4e-7 where experts are routed
_FINE, _COARSE = 1e-5, 1e-1  # relative, from a text by itself, in float32 and else; wrong positions are off by more
_REFUSALS = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)

Attend = Callable[..., tuple[torch.Tensor, Any]]  # an attention function, as transformers defines them


class Packed:
    """Texts in one row, each at positions of its own; see `Layout`. Made by `of`."""

    def __init__(self, model: PreTrainedModel, attend: Attend, *, implementation: str) -> None:
        self._model = model
        self._attend = attend
        self._varlen = choose_varlen(model.device, model.dtype) if attend is sdpa_attention_forward else None
        self._config = copy.deepcopy(model.config)  # names the model's own attention, which decides what a mask is
        self._config._attn_implementation = implementation

    @classmethod
    def of(cls, model: PreTrainedModel) -> Packed | None:
        """`model`, from now on for packed texts only; None, and the model as it was, where that would gain nothing or
        is not shown to be right.

        Shown are two things, by forward passes of a few short texts: that no text moves when another one changes, and
        that each has the states that it has by itself. A sliding window is narrow meanwhile, so that they feel it.
        """
        attend, own = _own_attention(model), model.config._attn_implementation
        gains = model.device.type == "cpu" or choose_varlen(model.device, model.dtype) is not None
        if attend is None or own is None or not gains:
            return None
        with _narrow_window(model.config):
            alone = _alone(model)
            model.set_attn_implementation(_NAME)
            proven = _holds(cls(model, attend, implementation=own), model, alone)
        if not proven:
            model.set_attn_implementation(own)
            return None
        return cls(model, attend, implementation=own)

    def states(self, batch: Batch, *, every_layer: bool = False) -> list[torch.Tensor]:
        """See `Layout`."""
        device = self._model.device
        texts = Texts.of(batch.lengths, device)
        positions = np.broadcast_to(np.arange(batch.ids.shape[1]), batch.ids.shape)[batch.real]
        output = self._model(
            input_ids=send(batch.ids[batch.real][None], device),
            position_ids=send(positions[None], device),
            attention_mask=self._mask(texts.longest),
            output_hidden_states=every_layer,
            use_cache=False,
            packed=_Packing(texts, self._attend, self._varlen),
        )
        layers = output.hidden_states if every_layer else (output.last_hidden_state,)
        return _as_rows(layers, batch, device)

    def _mask(self, longest: int) -> Any:
        """Transformers' own mask for a text of this length, of which a shorter one takes a corner; by kind of layer
        where the model has several kinds, None where a text may read all of itself.
        """
        shape = torch.empty((1, longest, 0), dtype=self._model.dtype, device=self._model.device)
        mask = create_masks_for_generate(self._config, shape, attention_mask=None, past_key_values=None)
        return None if isinstance(mask, dict) and all(part is None for part in mask.values()) else mask


@dataclass(frozen=True, slots=True)
class _Packing:
    """What the attention function has to know: travels through the model as its argument `packed`."""

    texts: Texts
    attend: Attend  # the model's own function
    varlen: Varlen | None


def _attend_packed(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed: _Packing,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers, (1, heads, tokens, size) to (1, tokens, heads, size), text by text."""
    plain = packed.attend is sdpa_attention_forward and attention_mask is None  # softmax(scale · QKᵀ) V, causal or not
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    causal = options.get("is_causal")
    causal = bool(getattr(module, "is_causal", True) if causal is None else causal)
    if plain and packed.varlen is not None:
        row = [part[0].transpose(0, 1) for part in (query, key, value)]
        return packed.varlen(*row, texts=packed.texts, scale=scale, causal=causal)[None], None
    parts = []
    for run in packed.texts.runs:
        cut = [
            part[0, :, run.start : run.stop].unflatten(1, (run.count, run.length)).transpose(0, 1)
            for part in (query, key, value)
        ]
        if plain and products_pay(cut[0]):
            read = attend_by_products(*cut, scale=scale, causal=causal)
        else:
            mask = None if attention_mask is None else attention_mask[..., : run.length, : run.length]
            read, _ = packed.attend(module, *cut, mask, **options)
        parts.append(read.flatten(0, 1))
    return torch.cat(parts)[None], None


AttentionInterface.register(_NAME, _attend_packed)


def keep_attention_uncompiled() -> None:
    """Have torch.compile leave the attention function as it is: what it loops over differs from batch to batch."""
    AttentionInterface.register(_NAME, torch.compiler.disable(_attend_packed))


def _own_attention(model: PreTrainedModel) -> Attend | None:
    """The attention function that the model uses; None where it takes none from outside."""
    if not getattr(model, "_supports_attention_backend", False):
        return None
    if model.config._attn_implementation == "sdpa":
        return sdpa_attention_forward
    for module in cast("Iterable[nn.Module]", model.modules()):
        if hasattr(module, "is_causal"):
            return getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    return None


def _as_rows(layers: Iterable[torch.Tensor], batch: Batch, device: torch.device) -> list[torch.Tensor]:
    """States (1, tokens, hidden) as (n, length, hidden); where a text has ended stands some other token's."""
    if batch.real.all():
        return [layer[0].unflatten(0, batch.real.shape) for layer in layers]
    places = np.zeros(batch.real.shape, dtype=np.int64)
    places[batch.real] = np.arange(batch.real.sum())
    index = send(places, device)
    return [layer[0][index] for layer in layers]


@contextlib.contextmanager
def _narrow_window(config: PreTrainedConfig) -> Iterator[None]:
    """Give the model a sliding window that a few tokens reach beyond, if it has one."""
    window = getattr(config, "sliding_window", None)
    if window is not None:
        config.sliding_window = min(window, _WINDOW)
    try:
        yield
    finally:
        if window is not None:
            config.sliding_window = window


def _trial(vocabulary: int, *, changed: bool = False) -> list[Tokenized]:
    """The texts of the proof."""
    generator = np.random.default_rng(0)
    texts = [generator.integers(vocabulary // 4, vocabulary, length) for length in _LENGTHS]
    if changed:
        texts[_CHANGED] = (texts[_CHANGED] + vocabulary // 3) % vocabulary
    return [Tokenized(ids, np.ones(len(ids), dtype=bool)) for ids in texts]


@torch.inference_mode()
def _alone(model: PreTrainedModel) -> list[torch.Tensor]:
    """The states of each text of the proof, (length, hidden), with nothing beside it."""
    padded = Padded(model)
    return [padded.states(Batch.of([text]))[-1][0].float() for text in _trial(_vocabulary(model))]


@torch.inference_mode()
def _holds(packed: Packed, model: PreTrainedModel, alone: Sequence[torch.Tensor]) -> bool:
    try:
        together = packed.states(Batch.of(_trial(_vocabulary(model))))[-1].float()
        others = packed.states(Batch.of(_trial(_vocabulary(model), changed=True)))[-1].float()
    except _REFUSALS:  # an architecture that does not pass on, or take, what packing needs; it says so in many ways
        return False
    limit = _FINE if model.dtype == torch.float32 else _COARSE
    return all(
        _deviation(row[: len(own)], own) <= limit
        and (place == _CHANGED or _deviation(other[: len(own)], row[: len(own)]) <= _LEAK)
        for place, (own, row, other) in enumerate(zip(alone, together, others, strict=True))
    )


def _deviation(states: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference of a token's state, relative to its length."""
    return float(((states - expected).norm(dim=-1) / expected.norm(dim=-1).clamp_min(1e-12)).max())


def _vocabulary(model: PreTrainedModel) -> int:
    return int(cast("Any", model.get_input_embeddings()).num_embeddings)

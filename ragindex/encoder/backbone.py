"""Any decoder of transformers as a text encoder: loading, two-sided attention, and the self-test that proves it.

Two-sided attention needs both switches, the config's and the modules' `is_causal`: with the modules alone padded
batches stay causal, with the config alone some architectures stay causal without padding. A setting that looks right
proves nothing (LLM2Vec's own Qwen2 class is causal), so every load ends in a forward pass that shows it. No modelling
code is copied or patched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from ragindex.encoder.checkpoint import Attention, Checkpoint
from ragindex.errors import BackboneError

__all__ = [
    "check_attention",
    "load_backbone",
    "load_checkpoint",
    "set_attention",
    "set_temperature",
    "without_progress_bar",
]

_ATTENTION_LAYERS = frozenset({"full_attention", "sliding_attention"})
_ONE_SIDED_BIAS = frozenset({"bloom", "mpt"})  # ALiBi as these build it penalises one direction only


def load_checkpoint(checkpoint: Checkpoint, *, device: torch.device, dtype: torch.dtype) -> PreTrainedModel:
    """The decoder of an encoder with everything that its settings ask of it; see `load_backbone`."""
    scaling = checkpoint.rope_scaling
    model = load_backbone(
        checkpoint.backbone,
        attention=checkpoint.config.attention,
        device=device,
        dtype=dtype,
        adapters=checkpoint.adapters,
        rope=None if scaling is None else checkpoint.model_config()["rope_parameters"],
    )
    if checkpoint.config.temperature != 1:
        set_temperature(model, checkpoint.config.temperature)
    return model


def load_backbone(
    directory: Path,
    *,
    attention: Attention,
    device: torch.device,
    dtype: torch.dtype,
    adapters: Sequence[Path] = (),
    rope: Mapping[str, Any] | None = None,
) -> PreTrainedModel:
    """The bare decoder (no language-modelling head) from a local directory, in evaluation mode, switched and
    self-tested.

    adapters: LoRA directories, merged in this order and in float32, whatever `dtype` is; rope: parameters of the rotary
    positions in place of those in config.json. Raises BackboneError when the
    model cannot be loaded or does not attend as asked, EncoderError when an adapter does not fit.
    """
    try:
        with without_progress_bar():
            config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
            if rope is not None:
                _set_rope(config, rope)
            model, info = AutoModel.from_pretrained(
                directory,
                config=config,
                dtype=torch.float32 if adapters else dtype,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise BackboneError(f"The model in {directory} cannot be loaded: {reason}.") from error
    if info["missing_keys"]:  # transformers would fill them with random numbers
        raise BackboneError(
            f"The weights in {directory} are incomplete: {min(info['missing_keys'])} is missing; copy or make it again."
        )
    if adapters:
        from ragindex.encoder.adapters import merge_adapters

        model = merge_adapters(model, adapters)
    backbone: PreTrainedModel = model.to(device=device, dtype=dtype).eval()
    set_attention(backbone, attention)
    check_attention(backbone, attention)
    return backbone


def set_attention(model: PreTrainedModel, attention: Attention) -> None:
    """Switch every attention layer of `model` to causal or bidirectional, in place.

    Raises BackboneError, naming the layer type, for layers that no mask can make two-sided.
    """
    if attention == "bidirectional":
        _refuse_one_sided(model)
    causal = attention == "causal"
    for module in cast("Iterable[Any]", model.modules()):
        if hasattr(module, "config"):
            module.config.is_causal = causal
        if isinstance(getattr(module, "is_causal", None), bool):
            module.is_causal = causal


def set_temperature(model: PreTrainedModel, temperature: float) -> None:
    """Divide the attention logits of `model` by `temperature`, in place; not to be done twice.

    Raises BackboneError for an architecture that keeps its scale elsewhere than in `scaling`.
    """
    layers = [module for module in cast("Iterable[Any]", model.modules()) if hasattr(module, "is_causal")]
    if not layers or not all(isinstance(getattr(layer, "scaling", None), float) for layer in layers):
        raise BackboneError(f"{_name(model)} has no attention scale that could be changed; leave the temperature at 1.")
    for layer in layers:
        layer.scaling /= temperature


@torch.inference_mode()
def check_attention(model: PreTrainedModel, attention: Attention) -> None:
    """Raise BackboneError unless `model` attends as `attention` says, alone and in a padded batch.

    A token in the middle of a sequence is changed: the states before it must move (bidirectional) or stay (causal).
    Neighbours are watched as well as the ends, since a sliding window may be shorter than any probe. A model in which
    no token reads any other (a static one, with zero output projections) has no direction and passes.
    """
    was_training = model.training
    model.eval()
    try:
        for padding in (0, 3):
            influence = _influence(model, padding=padding)
            if attention == "causal" and influence.backward > _TOLERANCE:
                raise BackboneError(
                    f"{_name(model)} reads the future in causal mode; this version of transformers is unusable for it."
                )
            if attention == "bidirectional" and influence.backward <= _TOLERANCE < influence.forward:
                state = "in padded batches" if padding else "without padding"
                raise BackboneError(f"{_name(model)} stayed causal {state} although two-sided attention was asked for.")
    finally:
        model.train(was_training)


_TOLERANCE = 1e-6  # relative; a causal model's influence is exactly 0, up to 4e-7 where experts are routed
_LENGTH = 8
_CHANGED = 4


class _Influence(NamedTuple):
    """Largest relative change of a state before and after a token that was replaced."""

    backward: float
    forward: float


def _influence(model: nn.Module, *, padding: int) -> _Influence:
    vocabulary = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary // 4, vocabulary, (2, _LENGTH), generator=generator)
    ids[1] = ids[0]
    ids[1, _CHANGED] = (ids[0, _CHANGED] + vocabulary // 3) % vocabulary
    arguments: dict[str, Any] = {}
    if padding:
        longer = torch.randint(vocabulary // 4, vocabulary, (1, _LENGTH + padding), generator=generator)
        ids = torch.cat([nn.functional.pad(ids, (0, padding)), longer])
        mask = torch.ones_like(ids)
        mask[:2, _LENGTH:] = 0
        arguments["attention_mask"] = mask
    device = next(model.parameters()).device
    arguments = {key: value.to(device) for key, value in arguments.items()}
    states = model(input_ids=ids.to(device), **arguments).last_hidden_state.float()
    one, other = states[0, :_LENGTH], states[1, :_LENGTH]
    moved = (one - other).norm(dim=-1) / one.norm(dim=-1).clamp_min(1e-12)
    return _Influence(float(moved[:_CHANGED].max()), float(moved[_CHANGED + 1 :].max()))


def _set_rope(config: PreTrainedConfig, rope: Mapping[str, Any]) -> None:
    if not getattr(config, "rope_parameters", None):
        raise BackboneError(f"A {config.model_type} model has no rotary positions that could be scaled.")
    config.rope_parameters = dict(rope)


def _refuse_one_sided(model: PreTrainedModel) -> None:
    for kind in getattr(model.config, "layer_types", None) or ():
        if kind not in _ATTENTION_LAYERS:
            raise BackboneError(f"{_name(model)} has {kind} layers, which cannot be made bidirectional.")
    if model.config.model_type in _ONE_SIDED_BIAS or getattr(model.config, "alibi", False):
        raise BackboneError(
            f"{_name(model)} has a one-sided position bias (ALiBi), so it cannot be made bidirectional."
        )


def _name(model: nn.Module) -> str:
    return type(model).__name__


@contextlib.contextmanager
def without_progress_bar() -> Iterator[None]:
    """Keep transformers' own progress bar off the terminal while weights load."""
    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()

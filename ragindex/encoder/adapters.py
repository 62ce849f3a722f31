"""Merges LoRA adapters into a decoder; the only module that imports peft.

Published LLM2Vec models are such adapters (arXiv 2404.05961): the MNTP adapter is merged first, then the SimCSE or
supervised one. Both were trained on the bare decoder, and their keys must name every one of its adapted layers and
no other: an adapter on the wrong host loads without a word and changes nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from ragindex.encoder.checkpoint import read_json
from ragindex.errors import EncoderError, MissingDependencyError

__all__ = ["merge_adapters"]


def merge_adapters(model: PreTrainedModel, adapters: Sequence[Path]) -> PreTrainedModel:
    """`model`, a bare decoder in float32, with each adapter merged in turn.

    Raises EncoderError when an adapter does not fit the model, MissingDependencyError without peft.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingDependencyError("Adapters need peft; run `pip install 'ragindex[train]'`.") from error
    for directory in adapters:
        kind = read_json(directory / "adapter_config.json").get("peft_type")
        if kind != "LORA":
            raise EncoderError(f"The adapter in {directory} is of the kind {kind}; only LoRA can be merged here.")
        try:
            config = peft.PeftConfig.from_pretrained(str(directory))
            config.base_model_name_or_path = None  # has been followed; peft warns when it is not the model at hand
            config.task_type = None  # a task's own wrapper expects a head, which a bare decoder has not
            tensors = load_file(directory / "adapter_model.safetensors")
            with warnings.catch_warnings():  # of names that peft uses and transformers is about to drop
                warnings.simplefilter("ignore", FutureWarning)
                wrapped = peft.get_peft_model(model, config)
            wanted = peft.get_peft_model_state_dict(wrapped)
        except (OSError, SafetensorError, TypeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            raise EncoderError(f"The adapter in {directory} cannot be loaded: {reason}.") from error
        _check_keys(directory, have=tensors.keys() - wanted.keys(), lack=wanted.keys() - tensors.keys())
        wrong = sorted(name for name, tensor in tensors.items() if tensor.shape != wanted[name].shape)
        if wrong:
            raise EncoderError(f"The adapter in {directory} does not fit the model: {wrong[0]} has another size.")
        peft.set_peft_model_state_dict(wrapped, tensors)
        model = wrapped.merge_and_unload()
    return model


def _check_keys(directory: Path, *, have: set[str], lack: set[str]) -> None:
    if have:
        raise EncoderError(f"The adapter in {directory} does not fit the model, which has no layer for {min(have)}.")
    if lack:
        raise EncoderError(f"The adapter in {directory} is incomplete: {min(lack)} is missing.")

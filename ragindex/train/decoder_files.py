"""Decoders with their language-modelling head on disk: how one is read, and what training leaves of it.

a decoder     config.json, model.safetensors, tokenizer.json, tokenizer_config.json: what transformers reads;
              card.json, how it was made
an encoder    the bare decoder, read both ways (`ragindex.encoder.layout`). A head that is the embedding table is
              kept that way; one of its own lies beside it in lm_head.safetensors, which only training reads
an adapter    config.json, adapter_config.json, adapter_model.safetensors: as LLM2Vec's are published
"""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from ragindex.encoder.checkpoint import TOKENIZER_FILE, WEIGHTS_FILE, Checkpoint
from ragindex.encoder.files import optional
from ragindex.encoder.head import Head
from ragindex.encoder.layout import write_json, write_layout
from ragindex.errors import TrainingError
from ragindex.train.card import CARD_FILE
from ragindex.train.model import save_tensors, stored_dtype
from ragindex.train.vocabulary import find_roles

if TYPE_CHECKING:
    from ragindex.train.language import LanguageModel

__all__ = ["HEAD_FILE", "load_decoder", "made_by", "save_adapter", "save_decoder", "save_encoder"]

HEAD_FILE = "lm_head.safetensors"


def load_decoder(found: Checkpoint) -> PreTrainedModel:
    """The decoder in float32 with the head that it was saved with, without adapters.

    Raises TrainingError when it cannot be read or has no head.
    """
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(found.backbone, local_files_only=True, trust_remote_code=False)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                found.backbone,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise TrainingError(f"The decoder in {found.backbone} cannot be loaded: {reason}.") from error
    decoder, info = loaded
    missing = set(info["missing_keys"])
    head = decoder.get_output_embeddings()
    names = {name for name, item in decoder.named_parameters() if head is not None and item is head.weight}
    if missing and missing <= names and (found.backbone / HEAD_FILE).is_file():
        with torch.no_grad():
            head.weight.copy_(_read_head(found.backbone / HEAD_FILE, head.weight.shape))
    elif missing:
        raise TrainingError(
            f"The decoder in {found.backbone} lacks {min(missing)}; to predict tokens it needs its language-modelling "
            "head, so start from the decoder that it was made of."
        )
    return cast("PreTrainedModel", decoder)


def made_by(checkpoint: Checkpoint | None) -> dict[str, Any]:
    """The card of what training starts from: an encoder's, or the one beside a decoder."""
    if checkpoint is None:
        return {}
    return {**optional(checkpoint.directory / CARD_FILE), **checkpoint.config.card}


def save_decoder(model: LanguageModel, directory: Path, *, card: Mapping[str, object]) -> None:
    """Write a decoder, adapters merged. card: entries to add to those of its source."""
    with _whole(directory) as partial:
        decoder = model.merged()
        dtype = _dtype(model, decoder)
        if dtype != torch.float32:
            decoder = cast("Any", copy.deepcopy(decoder)).to(dtype)
        with _quiet():
            decoder.save_pretrained(partial)
        (partial / TOKENIZER_FILE).write_bytes(model.serialised)
        positions = getattr(decoder.config, "max_position_embeddings", None)
        write_json(partial / "tokenizer_config.json", _tokenizer_config(model.tokenizer, positions))
        write_json(partial / CARD_FILE, {**made_by(model.checkpoint), **card})


def save_encoder(model: LanguageModel, directory: Path, *, card: Mapping[str, object]) -> None:
    """Write an encoder of the inner decoder, with the settings and the head that its source has as one."""
    assert model.checkpoint is not None
    found = model.checkpoint
    with _whole(directory) as partial:
        decoder = model.merged()
        dtype = _dtype(model, decoder)
        table = found.model_config()
        inner = table if "vocab_size" in table else table.get("text_config", table)
        inner["vocab_size"] = model.rows
        write_json(partial / "config.json", {**table, "dtype": str(dtype).removeprefix("torch.")})
        save_tensors(decoder.base_model, partial / WEIGHTS_FILE, dtype=dtype)
        if not model.has_tied_head:
            weight = decoder.get_output_embeddings().weight.detach().cpu()
            save_file({"weight": weight.to(dtype).contiguous()}, partial / HEAD_FILE)
        (partial / TOKENIZER_FILE).write_bytes(model.serialised)
        config = replace(found.config, attention=model.attention, card={**made_by(found), **card})
        write_layout(partial, config, _grown(Head.read(found.directory), model.rows))


def save_adapter(model: LanguageModel, directory: Path, *, place: Path) -> None:
    """Write the adapter alone into a directory that will be moved to `place`. It names its base by a path relative to
    that, or by the id that the base has on the hub.

    The tokenizer is the base's: a token that was added has no row there. Raises TrainingError without an adapter.
    """
    if model.lora is None or model.checkpoint is None:
        raise TrainingError("All weights were trained, so there is no adapter to write; train with LoRA.")
    from peft import get_peft_model_state_dict

    found = model.checkpoint
    with _whole(directory) as partial:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            tensors = get_peft_model_state_dict(model.inner, save_embedding_layers=False)
        save_file(
            {name: item.detach().cpu().contiguous() for name, item in tensors.items()},
            partial / "adapter_model.safetensors",
            metadata={"format": "pt"},
        )
        named = Path(found.name).expanduser().is_dir()
        base = os.path.relpath(found.directory, place.resolve()) if named else found.name
        config = copy.copy(cast("Any", model.inner).peft_config["default"])
        config.base_model_name_or_path, config.inference_mode = base, True
        config.save_pretrained(partial)
        write_json(partial / "config.json", {**found.model_config(), "_name_or_path": base})
        (partial / TOKENIZER_FILE).write_bytes(model.original_tokenizer)


def _dtype(model: LanguageModel, decoder: PreTrainedModel) -> torch.dtype:
    """The type of the source's weights; float32 for a new decoder, and where a value would overflow."""
    if model.checkpoint is None:
        return torch.float32
    dtype = stored_dtype(model.checkpoint)
    largest = max(float(item.detach().abs().max()) for item in decoder.parameters())
    return torch.float32 if largest > torch.finfo(dtype).max else dtype


def _tokenizer_config(tokenizer: Tokenizer, positions: int | None) -> dict[str, object]:
    """What makes transformers take tokenizer.json as it is."""
    roles = find_roles(tokenizer)
    tokens = {"bos_token": roles.begin, "eos_token": roles.end, "pad_token": roles.pad}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **({} if positions is None else {"model_max_length": positions}),
        **{name: tokenizer.id_to_token(token) for name, token in tokens.items() if token is not None},
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }


def _grown(head: Head, rows: int) -> Head:
    """Token weights for tokens that were added: as much as any."""
    if head.token_weights is None or len(head.token_weights) >= rows:
        return head
    more = np.full(rows - len(head.token_weights), head.token_weights.mean(), np.float32)
    return replace(head, token_weights=np.concatenate([head.token_weights, more]))


def _read_head(file: Path, shape: torch.Size) -> torch.Tensor:
    try:
        weight = load_file(file)["weight"]
    except (OSError, SafetensorError, KeyError) as error:
        raise TrainingError(f"{file} is damaged: {error}; delete it or make the encoder again.") from error
    if weight.shape != shape:
        raise TrainingError(f"{file} is of another decoder: its shape is {tuple(weight.shape)}, not {tuple(shape)}.")
    return weight


@contextlib.contextmanager
def _whole(directory: Path) -> Iterator[Path]:
    """A directory to write into, which becomes `directory` when all is written. Raises TrainingError if that has
    something in it.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise TrainingError(f"{directory} is not empty; choose another output.")
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise TrainingError(f"{directory} cannot be written ({error.strerror or error}); free some space.") from error
    if directory.exists():
        directory.rmdir()
    partial.rename(directory)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and its report on missing weights off the terminal: errors here say it."""
    enabled, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if enabled:
            transformers_logging.enable_progress_bar()

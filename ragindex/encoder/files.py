"""What a model's directory holds and what it lacks: weights, tokenizer, limits; imports no torch, no transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ragindex.encoder.architectures import text_config
from ragindex.encoder.checkpoint import TOKENIZER_FILE, WEIGHTS_FILE, read_json
from ragindex.errors import EncoderError

__all__ = [
    "TOKENIZERS",
    "check_complete",
    "check_weights",
    "has_tokenizer",
    "longest_input",
    "optional",
    "tokenizer_of",
]

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tokenizer_config.json")
LONGEST = 8192  # for a model that names no limit that a text could reach


def check_complete(directory: Path, *, tokenizers: Sequence[str] = TOKENIZERS) -> None:
    """Raise EncoderError unless model, weights and tokenizer are there."""
    if not (directory / "config.json").is_file():
        raise EncoderError(f"The encoder in {directory} is incomplete: config.json is missing.")
    if not any((directory / name).is_file() for name in tokenizers):
        raise EncoderError(f"The encoder in {directory} is incomplete: {tokenizers[0]} is missing.")
    check_weights(directory)


def check_weights(directory: Path) -> None:
    """Raise EncoderError unless there are weights as safetensors."""
    if any((directory / f"{WEIGHTS_FILE}{ending}").is_file() for ending in ("", ".index.json")):
        return
    if any(directory.glob("pytorch_model*.bin")):
        raise EncoderError(
            f"The weights in {directory} are pickled, and loading those runs code; convert them to safetensors."
        )
    raise EncoderError(f"The encoder in {directory} is incomplete: it has no {WEIGHTS_FILE}.")


def has_tokenizer(directory: Path) -> bool:
    """Whether any file of a tokenizer is there."""
    return any((directory / name).is_file() for name in TOKENIZERS)


def tokenizer_of(directory: Path) -> Path:
    """`tokenizer.json` where it says everything; the directory where transformers adds to it what other files say."""
    alone = (directory / TOKENIZER_FILE).is_file() and not (directory / "tokenizer_config.json").is_file()
    return directory / TOKENIZER_FILE if alone else directory


def longest_input(directory: Path, model: Mapping[str, Any]) -> int:
    """Longest input in tokens: what the model was built for, or less where its tokenizer says so."""
    config = text_config(model)
    positions = next((config[key] for key in ("max_position_embeddings", "n_positions") if config.get(key)), LONGEST)
    stated = optional(directory / "tokenizer_config.json").get("model_max_length") or positions
    return int(min(positions, stated))


def optional(file: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no such file."""
    return read_json(file) if file.is_file() else {}

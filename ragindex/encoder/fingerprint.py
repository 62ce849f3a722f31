"""A digest over everything that decides an encoder's vectors; loads neither torch nor transformers."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from ragindex.encoder.checkpoint import WEIGHTLESS, Checkpoint, Pooling
from ragindex.encoder.foreign import module_identities
from ragindex.encoder.head import Head
from ragindex.errors import EncoderError

__all__ = ["fingerprint"]

# Keys of config.json that describe the file and not the model. `is_causal` follows the encoder's own setting, and the
# type of the weights is that of the weights.
_SILENT = frozenset({"_name_or_path", "architectures", "dtype", "is_causal", "torch_dtype", "transformers_version"})


def fingerprint(checkpoint: Checkpoint, tokenizer: bytes, dimensions: int) -> str:
    """32 hex digits over weights, adapters, head, tokenizer, pooling, prompts and dimensions.

    tokenizer: the serialised tokenizer. Names, cards and copies do not count; nor does the form of the head on disk.
    Raises EncoderError when a file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    config = checkpoint.config
    # Named one by one: a setting that is added later and decides no vector must not make every store stale.
    identity: dict[str, object] = {
        "attention": config.attention,
        "dimensions": dimensions,
        "model": {key: value for key, value in checkpoint.model_config().items() if key not in _SILENT},
        "pool_special": config.pool_special,
        "pooling": config.pooling,
        "prompts": config.prompts.as_json(),
    }
    if config.temperature != 1:
        identity["temperature"] = config.temperature
    identity |= {name: value for name, value in config.counting._asdict().items() if value is not None}
    digest.update(json.dumps(identity, sort_keys=True).encode())
    digest.update(hashlib.blake2b(tokenizer).digest())
    files = checkpoint.weight_files()
    for adapter in checkpoint.adapters:
        files += [adapter / "adapter_config.json", adapter / "adapter_model.safetensors"]
    for file in files:
        digest.update(file.name.encode() + b"\0" + _content(file))
    if checkpoint.is_foreign:
        digest.update("\n".join(module_identities(checkpoint.directory)).encode())
        return digest.hexdigest()
    head = Head.read(checkpoint.directory).cut(dimensions)
    for name, array in _tensors(head, config.pooling).items():
        digest.update(f"{name} {array.shape}\0".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _content(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "blake2b").digest()
    except OSError as error:
        raise EncoderError(f"{file} cannot be read: {error.strerror}.") from error


def _tensors(head: Head, pooling: Pooling) -> dict[str, np.ndarray]:
    """The tensors that do something: a map that only cuts is no map, as the dimensions say that; one token needs no
    weight.
    """
    weight = head.weight
    if weight is not None and head.bias is None and np.array_equal(weight, np.eye(*weight.shape)):
        weight = None
    found = {"token_weights": None if pooling == "last" else head.token_weights, "weight": weight, "bias": head.bias}
    if pooling not in WEIGHTLESS:
        found |= head.pooler
    return {name: array for name, array in found.items() if array is not None}

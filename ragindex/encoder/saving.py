"""Copies an encoder, whatever it was loaded from, into a directory of its own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from ragindex.encoder.checkpoint import TOKENIZER_FILE, WEIGHTS_FILE, Checkpoint, write_config
from ragindex.encoder.files import optional
from ragindex.encoder.foreign import SETTINGS_FILE, STATIC, limits_file
from ragindex.encoder.foreign import dimensions as module_dimensions
from ragindex.encoder.head import Head, read_modules
from ragindex.encoder.layout import append_cut, named_prompts, write_json, write_layout
from ragindex.errors import UsageError

__all__ = ["save_encoder"]

_KEPT = ("LICENSE*", "NOTICE*", "README.md")
_COPIED = frozenset({".json", ".txt", ".model", ".safetensors"})


def save_encoder(checkpoint: Checkpoint, tokenizer: bytes, target: Path, *, dimensions: int) -> None:
    """Write decoder, tokenizer, head and settings into `target`, which is created and must be empty or absent.

    tokenizer: serialised. Adapters are merged, which takes torch; without them weights are copied as they are.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} is not an empty directory; choose another one.")
    target.mkdir(parents=True, exist_ok=True)
    try:
        if checkpoint.is_foreign:
            _copy_modules(checkpoint, tokenizer, target, dimensions=dimensions)
        else:
            _write(checkpoint, tokenizer, target, dimensions=dimensions)
    except BaseException:  # half an encoder would pass for one
        for item in target.iterdir():
            shutil.rmtree(item) if item.is_dir() else item.unlink()
        raise


def _write(checkpoint: Checkpoint, tokenizer: bytes, target: Path, *, dimensions: int) -> None:
    if checkpoint.adapters:
        _merge(checkpoint, target)
    else:
        index = checkpoint.backbone / f"{WEIGHTS_FILE}.index.json"
        for file in [checkpoint.backbone / "config.json", *checkpoint.weight_files(), *([index] * index.is_file())]:
            shutil.copyfile(file, target / file.name)
        if checkpoint.rope_scaling is not None:  # from now on it is how this decoder is
            table = json.dumps(checkpoint.model_config(), indent=2)
            (target / "config.json").write_text(table + "\n", encoding="utf-8")
    for pattern in _KEPT:
        for file in checkpoint.directory.glob(pattern):
            shutil.copyfile(file, target / file.name)
    (target / TOKENIZER_FILE).write_bytes(tokenizer)
    config = checkpoint.config
    shorter = tuple(step for step in config.matryoshka if step < dimensions)
    write_layout(target, replace(config, dimensions=dimensions, matryoshka=shorter), Head.read(checkpoint.directory))


def _copy_modules(checkpoint: Checkpoint, tokenizer: bytes, target: Path, *, dimensions: int) -> None:
    """Copy a sentence-transformers model as it is, with the settings it was loaded with and a map that cuts."""
    source, config = checkpoint.directory, checkpoint.config
    modules = read_modules(source)
    pooled = config.prompts.pooled == "all"
    prompts = named_prompts(config.prompts, Tokenizer.from_str(tokenizer.decode()), only_read=not pooled)
    if prompts is None:
        raise UsageError(
            "A sentence-transformers model cannot say prompts that do more than stand before a text; load the encoder "
            "with them instead of saving it."
        )
    for folder in {source, *(module.folder for module in modules if module.folder.is_dir())}:
        (target / folder.relative_to(source)).mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            if file.suffix in _COPIED or any(file.match(pattern) for pattern in _KEPT):
                shutil.copyfile(file, target / file.relative_to(source))
    settings = {"similarity_fn_name": "cosine", **optional(source / SETTINGS_FILE), "prompts": prompts}
    write_json(target / SETTINGS_FILE, settings)
    if modules[0].kind != STATIC:
        limits = target / limits_file(modules[0].folder).relative_to(source)
        write_json(limits, {**optional(limits), "max_seq_length": config.max_tokens})
    if dimensions < (full := module_dimensions(modules)):
        append_cut(target, full, dimensions)
    write_config(target, replace(config, dimensions=dimensions))


def _merge(checkpoint: Checkpoint, target: Path) -> None:
    import torch

    from ragindex.encoder.backbone import load_checkpoint

    # The temperature is not in the weights; it is applied anew at every load.
    plain = replace(checkpoint, config=replace(checkpoint.config, temperature=1.0))
    load_checkpoint(plain, device=torch.device("cpu"), dtype=torch.float32).save_pretrained(target)

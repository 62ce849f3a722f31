"""Copies an encoder, whatever it was loaded from, into a directory of its own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from ragindex.encoder.checkpoint import TOKENIZER_FILE, WEIGHTS_FILE, Checkpoint
from ragindex.encoder.head import Head
from ragindex.encoder.layout import write_layout
from ragindex.errors import UsageError

__all__ = ["save_encoder"]

_KEPT = ("LICENSE*", "NOTICE*", "README.md")


def save_encoder(checkpoint: Checkpoint, tokenizer: bytes, target: Path, *, dimensions: int) -> None:
    """Write decoder, tokenizer, head and settings into `target`, which is created and must be empty or absent.

    tokenizer: serialised. Adapters are merged, which takes torch; without them weights are copied as they are.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} is not an empty directory; choose another one.")
    target.mkdir(parents=True, exist_ok=True)
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


def _merge(checkpoint: Checkpoint, target: Path) -> None:
    import torch

    from ragindex.encoder.backbone import load_checkpoint

    # The temperature is not in the weights; it is applied anew at every load.
    plain = replace(checkpoint, config=replace(checkpoint.config, temperature=1.0))
    load_checkpoint(plain, device=torch.device("cpu"), dtype=torch.float32).save_pretrained(target)

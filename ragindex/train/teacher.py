"""Vectors of a teacher encoder for training crops, cached on disk in shards.

A shard holds the crops (`NNNNN.json.gz`, a JSON list) and their unit vectors (`NNNNN.safetensors`, fp16, shape (n,
d)). A shard that exists is not made again, so an interrupted run continues where it stopped.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch.nn.functional import normalize
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from ragindex.encoder.torch_forward import choose_device, choose_dtype, token_budget_batches
from ragindex.train.crops import draw_crops

__all__ = ["Teacher", "make_shards", "read_shards"]


class Teacher:
    """A mean-pooled transformer encoder from a local directory (the all-MiniLM family)."""

    def __init__(self, directory: Path, *, max_tokens: int = 256) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self._device = choose_device()
        self._model = AutoModel.from_pretrained(directory).eval().to(self._device)
        # bfloat16 moves a MiniLM vector by a cosine of 1e-5 and doubles the speed where the hardware has it.
        self._half = choose_dtype(self._device) == torch.bfloat16
        self._max_tokens = max_tokens

    def encode(self, texts: list[str]) -> np.ndarray:
        """Unit vectors, float32 (len(texts), d), in the order of `texts`; texts are cut at `max_tokens` tokens."""
        ids = self.tokenizer(texts, truncation=True, max_length=self._max_tokens)["input_ids"]
        return self._encode(ids)

    def encode_ids(self, ids: list[list[int]]) -> np.ndarray:
        """Unit vectors of token sequences, float32 (len(ids), d); special tokens are added here."""
        first, last = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        return self._encode([[first, *sequence, last] for sequence in ids])

    @torch.inference_mode()
    def _encode(self, ids: list[list[int]], *, token_budget: int = 8192) -> np.ndarray:
        result: np.ndarray | None = None
        for batch in token_budget_batches([len(sequence) for sequence in ids], token_budget):
            padded = self.tokenizer.pad({"input_ids": [ids[index] for index in batch]}, return_tensors="pt")
            padded = {name: tensor.to(self._device) for name, tensor in padded.items()}
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
                states = self._model(**padded).last_hidden_state.float()
            mask = padded["attention_mask"].unsqueeze(-1)
            vectors = normalize((states * mask).sum(1) / mask.sum(1), dim=-1).cpu().numpy()
            if result is None:
                result = np.empty((len(ids), vectors.shape[1]), dtype=np.float32)
            result[batch] = vectors
        return result if result is not None else np.empty((0, 0), dtype=np.float32)


def read_shards(directory: Path) -> Iterator[tuple[list[str], np.ndarray]]:
    """The finished shards of a directory, in order: crops and their float32 unit vectors."""
    for file in sorted(directory.glob("*.safetensors")):
        with gzip.open(file.with_suffix(".json.gz"), "rt", encoding="utf-8") as lines:
            crops = json.load(lines)
        yield crops, load_file(file)["vectors"].astype(np.float32)


def make_shards(
    teacher: Path, files: Sequence[Path], output: Path, *, shards: int, seed: int, size: int = 4096
) -> None:
    """Make the shards below number `shards` that are missing, of `size` crops each."""
    output.mkdir(parents=True, exist_ok=True)
    crops = draw_crops(files, seed=seed)
    model: Teacher | None = None
    for shard in tqdm(range(shards), unit="shard", disable=None):
        batch = list(itertools.islice(crops, size))
        target = output / f"{shard:05d}.safetensors"
        if target.exists():
            continue
        model = model or Teacher(teacher)
        with gzip.open(target.with_suffix(".json.gz"), "wt", encoding="utf-8") as out:
            json.dump(batch, out, ensure_ascii=False)
        partial = target.with_suffix(".partial")
        save_file({"vectors": model.encode(batch).astype(np.float16)}, partial)
        partial.replace(target)  # the vectors appear last and whole: their presence marks a finished shard

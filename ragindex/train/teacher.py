"""Vectors of a teacher encoder for training crops, cached on disk in shards.

A shard holds the crops (`NNNNN.json.gz`, a JSON list) and their unit vectors (`NNNNN.safetensors`, fp16, shape (n,
d)). A shard that exists is not made again, so an interrupted run continues where it stopped. `made.json` says which
teacher and which text they come from; no others are put beside them.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from ragindex.encoder import Encoder
from ragindex.errors import UsageError
from ragindex.train.crops import draw_crops
from ragindex.train.embedder import Embedder, candidate
from ragindex.train.run import data_fingerprint, writing

__all__ = ["make_shards", "read_shards"]

_RECORD = "made.json"
_WHAT = {
    "teacher": "another teacher ({})",
    "text": "other text",
    "seed": "the seed {}",
    "size": "shards of {} texts",
}


def read_shards(directory: Path) -> Iterator[tuple[list[str], np.ndarray]]:
    """The finished shards of a directory, in order: crops and their float32 unit vectors."""
    for file in sorted(directory.glob("*.safetensors")):
        with gzip.open(file.with_suffix(".json.gz"), "rt", encoding="utf-8") as lines:
            crops = json.load(lines)
        yield crops, load_file(file)["vectors"].astype(np.float32)


def make_shards(
    teacher: str,
    files: Sequence[Path],
    output: Path,
    *,
    shards: int,
    seed: int,
    size: int = 4096,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Make the shards below number `shards` that are missing, of `size` crops each.

    teacher: what `Encoder.load` reads. advance: told how many more shards there are. Raises UsageError where `output`
    holds shards of another teacher, text, seed or size, or such of which nothing is known.
    """
    encoder = Encoder.load(teacher)
    _claim(
        output, {"teacher": encoder.fingerprint, "text": data_fingerprint(files), "seed": seed, "size": size}, teacher
    )
    embedder = Embedder(encoder)
    crops = draw_crops(files, seed=seed)
    for shard in range(shards):
        batch = list(itertools.islice(crops, size))
        target = output / f"{shard:05d}.safetensors"
        if not target.exists():
            vectors = embedder.candidates([candidate(crop) for crop in batch])
            with writing(target):
                _write(target, batch, vectors)
        if advance is not None:
            advance(1)


def _write(target: Path, crops: Sequence[str], vectors: np.ndarray) -> None:
    with gzip.open(target.with_suffix(".json.gz"), "wt", encoding="utf-8") as out:
        json.dump(crops, out, ensure_ascii=False)
    partial = target.with_suffix(".partial")
    save_file({"vectors": vectors.astype(np.float16)}, partial)
    partial.replace(target)  # the vectors appear last and whole: their presence marks a finished shard


def _claim(output: Path, made: Mapping[str, object], name: str) -> None:
    record = output / _RECORD
    begun = any(output.glob("*.safetensors"))
    if begun and not record.is_file():
        raise UsageError(
            f"{output} holds shards, but not {_RECORD}, which says how they were made, so none can be added; "
            "choose another folder."
        )
    if not begun:  # a record alone is what is left of a run that failed before its first shard
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
            partial = record.with_suffix(".partial")
            partial.write_text(json.dumps({**made, "name": name}, indent=2) + "\n", encoding="utf-8")
            partial.replace(record)
        return
    known = json.loads(record.read_text(encoding="utf-8"))
    for key, value in made.items():
        if known.get(key) != value:
            what = _WHAT[key].format(known.get("name") if key == "teacher" else known.get(key))
            raise UsageError(f"{output} holds shards made with {what}; choose another folder.")

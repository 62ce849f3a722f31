"""Turns an encoder's output axes so that its first dimensions say the most: Matryoshka steps without training.

A rotation changes no cosine. The axes are the principal ones of the teacher's vectors (not centred, so that cosines
of cut vectors approximate whole ones), largest first; cutting to d dimensions is then the best linear cut for these
texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ragindex.encoder import Encoder
from ragindex.encoder.head import Head
from ragindex.encoder.layout import write_layout
from ragindex.encoder.resolve import find_checkpoint
from ragindex.errors import TrainingError, UsageError
from ragindex.train.run import writing
from ragindex.train.teacher import read_shards

__all__ = ["principal_axes", "rotate"]


def principal_axes(vectors: np.ndarray) -> np.ndarray:
    """Orthogonal (d, d) matrix whose rows are the principal axes of `vectors` (n, d), largest first."""
    _, axes = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors)
    return np.asarray(axes.T[::-1])


def rotate(encoder: str, shards: Path, output: Path, *, steps: Sequence[int] = (64, 128, 256)) -> tuple[int, ...]:
    """Write the encoder called `encoder` into `output` with its head turned, and with those of the steps that are
    shorter than its vectors; these steps.

    shards: a teacher's vectors of texts, see `ragindex.train.teacher`. Raises TrainingError for an encoder without
    head or of other dimensions than the teacher, UsageError for an output that is not empty.
    """
    checkpoint = find_checkpoint(encoder)
    head = Head.read(checkpoint.directory)
    if head.weight is None:
        raise TrainingError(f"{encoder} has no head to rotate.")
    vectors = [vectors for _, vectors in read_shards(shards)]
    if not vectors:
        raise TrainingError(f"{shards} holds no finished shards; make them with `ragindex train vectors`.")
    if vectors[0].shape[1] != len(head.weight):
        raise TrainingError(
            f"The vectors in {shards} have {vectors[0].shape[1]} dimensions, the encoder's {len(head.weight)}; give "
            "those of its teacher."
        )
    axes = principal_axes(np.concatenate(vectors))
    rotated = replace(
        head,
        weight=(axes @ head.weight).astype(np.float32),
        bias=None if head.bias is None else (axes @ head.bias).astype(np.float32),
    )
    matryoshka = tuple(sorted(step for step in steps if step < checkpoint.config.dimensions))
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty; choose another --output.")
    with writing(output):
        Encoder.load(encoder).save(output)
        write_layout(output, replace(checkpoint.config, matryoshka=matryoshka), rotated)
    return matryoshka

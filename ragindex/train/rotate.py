"""Turns an encoder's output axes so that its first dimensions say the most: Matryoshka steps without training.

    python -m ragindex.train.rotate --encoder DIR --shards DIR

A rotation changes no cosine. The axes are the principal ones of the teacher's vectors (not centred, so that cosines
of cut vectors approximate whole ones), largest first; cutting to d dimensions is then the best linear cut for these
texts.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from ragindex.encoder.head import Head
from ragindex.encoder.layout import write_layout
from ragindex.encoder.resolve import find_checkpoint
from ragindex.errors import TrainingError
from ragindex.train.teacher import read_shards

__all__ = ["main", "principal_axes"]


def principal_axes(vectors: np.ndarray) -> np.ndarray:
    """Orthogonal (d, d) matrix whose rows are the principal axes of `vectors` (n, d), largest first."""
    _, axes = np.linalg.eigh(vectors.T.astype(np.float64) @ vectors)
    return np.asarray(axes.T[::-1])


@click.command(help="Rotate an encoder's head, in place, so that cut vectors keep as much as they can.")
@click.option("--encoder", type=click.Path(exists=True), required=True, help="Encoder directory.")
@click.option("--shards", type=click.Path(path_type=Path, exists=True), required=True, help="Teacher vectors of crops.")
@click.option("--steps", default="64,128,256", show_default=True, help="Dimensions to offer.")
def main(encoder: str, shards: Path, steps: str) -> None:
    """Rotate the head and record the steps."""
    checkpoint = find_checkpoint(encoder)
    head = Head.read(checkpoint.directory)
    if head.weight is None or head.bias is None or head.token_weights is None:
        raise TrainingError(f"{encoder} has no head to rotate.")
    vectors = [vectors for _, vectors in read_shards(shards)]
    if not vectors:
        raise TrainingError(f"{shards} holds no finished shards; make them with ragindex.train.teacher.")
    axes = principal_axes(np.concatenate(vectors))
    rotated = Head(
        token_weights=head.token_weights,
        weight=(axes @ head.weight).astype(np.float32),
        bias=(axes @ head.bias).astype(np.float32),
    )
    matryoshka = tuple(step for step in map(int, steps.split(",")) if step < checkpoint.config.dimensions)
    write_layout(checkpoint.directory, replace(checkpoint.config, matryoshka=matryoshka), rotated)


if __name__ == "__main__":
    main()

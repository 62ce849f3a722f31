"""Semantic textual similarity: pairs of sentences with a human score, and correlation with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ragindex.errors import UsageError

__all__ = ["StsPairs", "load_sts", "pearson", "spearman"]


@dataclass(frozen=True, slots=True)
class StsPairs:
    """`scores[i]` says how alike `left[i]` and `right[i]` are, on any scale."""

    left: tuple[str, ...]
    right: tuple[str, ...]
    scores: tuple[float, ...]


def load_sts(file: Path) -> StsPairs:
    """Read a tab-separated file of score, sentence, sentence; a header is skipped, further columns are ignored.

    Raises UsageError, with the line, for anything malformed.
    """
    left, right, scores = [], [], []
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        cells = line.rstrip("\r").split("\t")
        if len(cells) < 3:
            raise UsageError(f"{file}:{number} has {len(cells)} columns; it must have a score and two sentences.")
        score = _number(cells[0])
        if score is None and number == 1:
            continue
        if score is None:
            raise UsageError(f"{file}:{number} has the score {cells[0]!r}; it must be a finite number.")
        scores.append(score)
        left.append(cells[1])
        right.append(cells[2])
    if not scores:
        raise UsageError(f"{file} holds no pairs.")
    return StsPairs(tuple(left), tuple(right), tuple(scores))


def pearson(first: ArrayLike, second: ArrayLike) -> float:
    """Pearson's linear correlation of two sequences of n numbers, in [-1, 1].

    Raises UsageError where it is undefined: fewer than two pairs, or a side without variation.
    """
    x, y = _centred(first), _centred(second)
    if len(x) != len(y):
        raise UsageError(f"A correlation needs pairs; there are {len(x)} and {len(y)} values.")
    return max(-1.0, min(1.0, float(x @ y)))


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation, in [-1, 1]: Pearson's of the ranks, where ties share the mean of theirs.

    Raises UsageError where it is undefined, as `pearson` does.
    """
    return pearson(_ranks(first), _ranks(second))


def _centred(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all() or (array == array[0]).all():
        raise UsageError("A correlation needs at least two pairs of finite numbers that are not all the same.")
    # Scaled first, so that neither tiny nor huge values lose their square.
    array = array - array[0]
    array = array / np.abs(array).max()
    array = array - array.mean()
    centred: NDArray[np.float64] = array / np.linalg.norm(array)
    return centred


def _ranks(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means = np.asarray(ends - (counts - 1) / 2.0, np.float64)
    ranks: NDArray[np.float64] = means[inverse]
    return ranks


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

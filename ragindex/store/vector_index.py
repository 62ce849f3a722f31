"""The protocol of a dense index, and an exact in-memory double."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ragindex.store.rows import Float32Array, IdArray, VectorBatch

__all__ = ["MemoryVectorIndex", "Scored", "VectorIndex", "best", "inside", "merged"]


class Scored(NamedTuple):
    """Results of a search, best first, ties by ascending id: ids (n,) int64 and scores (n,) float32, higher is
    better.
    """

    ids: IdArray
    scores: Float32Array


@runtime_checkable
class VectorIndex(Protocol):
    """Nearest neighbours by inner product over unit vectors; ids are chunk ids (positive)."""

    def add(self, ids: IdArray, vectors: Float32Array) -> None:
        """Put vectors (n, d); an id that is present is replaced."""

    def remove(self, ids: IdArray) -> None:
        """Forget ids; unknown ones are ignored."""

    def search(self, query: Float32Array, k: int, allowed: IdArray | None = None) -> Scored:
        """The k best for `query` (d,) among `allowed` (ascending ids; None: all). Fewer than k only when fewer
        exist.
        """

    def save(self, path: Path) -> None:
        """Write the whole index to a file."""

    def __len__(self) -> int: ...


def best(ids: IdArray, scores: Float32Array, k: int) -> Scored:
    """The k highest scores, ties by ascending id.

    Scores are rounded to 1e-6: two code paths that sum the same products in another order must not decide a tie.
    """
    rounded: Float32Array = np.asarray(np.round(scores, 6), np.float32)
    if 0 < k < len(ids):
        # Keep everything that ties with the k-th score: which of the equals stay is decided by id, below.
        threshold = np.partition(rounded, len(rounded) - k)[len(rounded) - k]
        kept = rounded >= threshold
        ids, rounded = ids[kept], rounded[kept]
    order = np.lexsort((ids, -rounded))[: max(k, 0)]
    return Scored(ids[order].astype(np.int64), rounded[order])


def inside(ascending: IdArray, ids: IdArray) -> npt.NDArray[np.bool_]:
    """Which of the ids are among the ascending ones; unlike `np.isin` it never sorts the large side."""
    if len(ascending) == 0:
        return np.zeros(len(ids), bool)
    places = np.minimum(np.searchsorted(ascending, ids), len(ascending) - 1)
    return np.asarray(ascending[places] == ids)


def merged(parts: list[Scored], k: int) -> Scored:
    """The k best of several disjoint results."""
    if len(parts) == 1:
        return best(parts[0].ids, parts[0].scores, k)
    return best(np.concatenate([part.ids for part in parts]), np.concatenate([part.scores for part in parts]), k)


class MemoryVectorIndex:
    """A VectorIndex held in two arrays and scored exhaustively: the reference that others are tested against."""

    def __init__(self, dimensions: int) -> None:
        self._ids: IdArray = np.empty(0, np.int64)
        self._vectors: Float32Array = np.empty((0, dimensions), np.float32)

    def add(self, ids: IdArray, vectors: Float32Array) -> None:
        """Put vectors (n, d); an id that is present is replaced."""
        self.remove(ids)
        self._ids = np.concatenate([self._ids, np.asarray(ids, np.int64)])
        self._vectors = np.concatenate([self._vectors, np.asarray(vectors, np.float32)])

    def remove(self, ids: IdArray) -> None:
        """Forget ids; unknown ones are ignored."""
        kept = ~np.isin(self._ids, ids)
        self._ids, self._vectors = self._ids[kept], self._vectors[kept]

    def search(self, query: Float32Array, k: int, allowed: IdArray | None = None) -> Scored:
        """The k best for `query` (d,) among `allowed` (ascending ids; None: all)."""
        kept = slice(None) if allowed is None else np.isin(self._ids, allowed)
        return best(self._ids[kept], self._vectors[kept] @ np.asarray(query, np.float32), k)

    def save(self, path: Path) -> None:
        """Write ids and vectors as an `.npz` file."""
        with path.open("wb") as file:
            np.savez(file, ids=self._ids, vectors=self._vectors)

    def contents(self) -> VectorBatch:
        """Everything in the index."""
        return VectorBatch(self._ids, self._vectors)

    def __len__(self) -> int:
        return len(self._ids)

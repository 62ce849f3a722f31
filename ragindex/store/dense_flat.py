"""Vectors as they are, scored one by one: exact, and for a single query a product of NumPy is the fastest way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ragindex.store.dense_base import NOTHING, SLACK
from ragindex.store.faiss_base import Buffer, load_faiss, read_mapped
from ragindex.store.gpu import MOST, Gpu
from ragindex.store.rows import Float32Array, IdArray, VectorBatch
from ragindex.store.schemes import SCHEMES
from ragindex.store.tuning import Truth, Tuning
from ragindex.store.vector_index import Scored, best, inside

__all__ = ["FlatBase", "FlatDraft"]

_CHECKED = 32  # rows that are searched for to compare a copy with the original
_FEW = 0.25  # share of the rows up to which they are gathered


class FlatBase:
    """A FAISS IDMap2 over Flat by ascending id, seen as one array."""

    scheme = SCHEMES["flat"]
    tuning = Tuning()
    factory = "Flat"

    def __init__(self, index: Any, *, buffer: Buffer | None = None, gpu: Gpu | None = None) -> None:
        faiss = load_faiss()
        self._index = index
        self._buffer = buffer  # what a mapped index lies in
        self.ids: IdArray = np.asarray(faiss.vector_to_array(index.id_map), np.int64)
        if np.any(np.diff(self.ids) <= 0):
            raise ValueError("a flat index whose ids do not ascend")
        flat = faiss.downcast_index(index.index)
        rows = faiss.rev_swig_ptr(flat.get_xb(), index.ntotal * index.d)
        self.dimensions = int(index.d)
        # In a file vectors may begin at any byte, and a product over such ones would copy them for every query.
        aligned = np.require(rows, np.float32, "A")
        self._rows: Float32Array = aligned.reshape(index.ntotal, index.d)
        self._gpu = gpu
        self._copy = None if gpu is None else gpu.copied(flat, self._rows[:: max(1, len(self.ids) // _CHECKED)])

    @classmethod
    def of(cls, batch: VectorBatch) -> FlatBase:
        """A base of vectors (n, d) in any order."""
        faiss = load_faiss()
        order = np.argsort(batch.ids)
        index = faiss.IndexIDMap2(faiss.IndexFlatIP(batch.vectors.shape[1]))
        index.add_with_ids(np.ascontiguousarray(batch.vectors[order]), batch.ids[order])
        return cls(index)

    @classmethod
    def read(cls, data: Buffer) -> FlatBase:
        """The base that `save` wrote. Raises ValueError when it is none."""
        faiss = load_faiss()
        index = read_mapped(faiss, data)
        if not hasattr(index, "id_map") or not hasattr(faiss.downcast_index(index.index), "get_xb"):
            raise ValueError("not a flat index")
        return cls(index, buffer=data)

    def nearest(self, query: Float32Array, count: int, usable: IdArray | None) -> Scored:
        """The nearest exactly; see `Base`."""
        if usable is None and self._gpu is not None and count + SLACK <= min(MOST, len(self.ids)):
            found = self._gpu.search(self._copy, query, count + SLACK)
            return best(self.ids[found.ids], found.scores, count)
        if usable is None:
            return best(self.ids, self._rows @ query, count)
        usable = usable[inside(self.ids, usable)]
        if len(usable) == 0:
            return NOTHING
        places = np.searchsorted(self.ids, usable)
        # One product over everything is faster than gathering most of the rows first.
        few = len(usable) < _FEW * len(self.ids)
        return best(usable, self._rows[places] @ query if few else (self._rows @ query)[places], count)

    def on(self, gpu: Gpu) -> FlatBase:
        """See `Base`."""
        return FlatBase(self._index, buffer=self._buffer, gpu=gpu)

    def extended(self, gone: IdArray, put: VectorBatch) -> FlatBase:
        """See `Base`."""
        kept = ~inside(gone, self.ids)
        ids, rows = np.concatenate([self.ids[kept], put.ids]), np.concatenate([self._rows[kept], put.vectors])
        return FlatBase.of(VectorBatch(ids, rows))

    def save(self, path: Path) -> None:
        """Write a FAISS file."""
        load_faiss().write_index(self._index, str(path))


class FlatDraft:
    """Collects vectors."""

    def __init__(self) -> None:
        self._parts: list[VectorBatch] = []

    def add(self, batch: VectorBatch) -> None:
        """See `Draft`."""
        self._parts.append(batch)

    def finished(self, truth: Truth) -> FlatBase:  # noqa: ARG002 - there is nothing to set
        """See `Draft`."""
        ids = np.concatenate([part.ids for part in self._parts])
        return FlatBase.of(VectorBatch(ids, np.concatenate([part.vectors for part in self._parts])))

"""Half floats in a graph of near neighbours (HNSW): searches hardly cost more in a larger one; slow to build.

Malkov and Yashunin, arXiv 1603.09320. Nothing can be taken out of such a graph. What is gone stays as a tombstone, a
node without an id that searches walk over and never return; once every fifth node is one, the graph is built anew.
Which of several equal vectors a search meets is chance, and copies of one text by the hundred are linked to each other
alone: searches then miss more. The recall that is measured when the graph is built tells.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ragindex.store.dense_base import NOTHING, SLACK
from ragindex.store.faiss_base import Buffer, load_faiss, own_copy, read_mapped, selector
from ragindex.store.gpu import Gpu
from ragindex.store.rows import Float32Array, IdArray, VectorBatch
from ragindex.store.schemes import SCHEMES
from ragindex.store.tuning import FAR, Truth, Tuning, enough, tuning_of
from ragindex.store.vector_index import Scored, best, inside

__all__ = ["GraphBase", "GraphDraft"]

_NEIGHBOURS = 32
_CONSTRUCTION = 80  # candidates that are looked at for each neighbour; FAISS's 40 costs recall on near-equal texts
_TOMBSTONE = -1
_MOST_TOMBSTONES = 0.2
_FEWEST = 128  # width of the narrowest search that is tried
_WIDEST = 1024
_STEP = 1.4
_CROWDED = 0.3  # share of usable nodes below which walking over the others costs more than a scan of the usable


class GraphBase:
    """A FAISS IDMap over HNSW over half floats. Scores are exact: half floats are what the catalogue holds."""

    scheme = SCHEMES["hnsw"]
    factory = f"HNSW{_NEIGHBOURS},SQfp16"

    def __init__(self, tuning: Tuning, index: Any, *, buffer: Buffer | None = None) -> None:
        self._faiss = load_faiss()
        self._index = index
        self._buffer = buffer  # what a mapped index lies in
        self._graph = self._faiss.downcast_index(index.index)
        self._storage = self._faiss.downcast_index(self._graph.storage)
        self.tuning = tuning
        self.dimensions = int(index.d)
        self._names: IdArray = np.asarray(self._faiss.vector_to_array(index.id_map), np.int64)  # by node
        order = np.argsort(self._names, kind="stable")
        self._nodes = order[np.count_nonzero(self._names == _TOMBSTONE) :]  # in the order of their ids
        self.ids = self._names[self._nodes]

    @classmethod
    def read(cls, tuning: Tuning, data: Buffer) -> GraphBase:
        """The base that `save` wrote. Raises ValueError when it is none."""
        faiss = load_faiss()
        index = read_mapped(faiss, data)
        if not hasattr(index, "id_map") or not hasattr(faiss.downcast_index(index.index), "hnsw"):
            raise ValueError("not a graph")
        return cls(tuning, index, buffer=data)

    def nearest(self, query: Float32Array, count: int, usable: IdArray | None) -> Scored:
        """A walk through the graph; a scan of the usable vectors where they are few or the walk meets too few of
        them. See `Base`.
        """
        nodes = self._nodes
        if usable is not None:
            usable = usable[inside(self.ids, usable)]
            nodes = self._nodes[np.searchsorted(self.ids, usable)]
        if len(nodes) == 0:
            return NOTHING
        everything = len(nodes) == len(self._names)
        chosen = None if everything else selector(self._faiss, np.sort(nodes))
        wanted = min(count + SLACK, len(nodes))
        if len(nodes) >= _CROWDED * len(self._names):
            width = math.ceil(max(self._graph.hnsw.efSearch, wanted) * len(self._names) / len(nodes))
            found = self._walk(query[None], wanted, width, chosen)[0]
            if len(found.ids) >= min(count, len(nodes)):
                return best(found.ids, found.scores, count)
        parameters = self._faiss.SearchParameters(sel=chosen)
        scores, places = (part[0] for part in self._storage.search(query[None], wanted, params=parameters))
        return best(self._names[places[places >= 0]], scores[places >= 0], count)

    def on(self, gpu: Gpu) -> GraphBase:  # noqa: ARG002 - nothing of it runs there
        """See `Base`."""
        return self

    def extended(self, gone: IdArray, put: VectorBatch) -> GraphBase | None:
        """See `Base`."""
        names = self._names.copy()
        names[inside(gone, names)] = _TOMBSTONE
        if np.count_nonzero(names == _TOMBSTONE) > _MOST_TOMBSTONES * (len(names) + len(put.ids)):
            return None
        index = own_copy(self._faiss, self._index)
        self._faiss.copy_array_to_vector(names, index.id_map)
        if len(put.ids):
            index.add_with_ids(np.ascontiguousarray(put.vectors), put.ids)
        return GraphBase(self.tuning, index)

    def save(self, path: Path) -> None:
        """Write a FAISS file."""
        self._faiss.write_index(self._index, str(path))

    def tuned(self, truth: Truth) -> GraphBase:
        """Search as narrowly as finds what is nearest."""
        width = _FEWEST
        while True:
            found = [each.ids for each in self._walk(truth.queries, min(FAR, len(self.ids)), width, None)]
            if enough(found, truth) or width >= _WIDEST:
                break
            width = math.ceil(_STEP * width)
        self._graph.hnsw.efSearch = width
        return GraphBase(tuning_of(found, truth, rescored=False), self._index)

    def _walk(self, queries: Float32Array, count: int, width: int, chosen: Any) -> list[Scored]:
        parameters = self._faiss.SearchParametersHNSW(sel=chosen, efSearch=width)
        scores, nodes = self._graph.search(queries, count, params=parameters)
        return [Scored(self._names[row[row >= 0]], score[row >= 0]) for row, score in zip(nodes, scores, strict=True)]


class GraphDraft:
    """A graph that grows with every batch."""

    def __init__(self, dimensions: int) -> None:
        faiss = load_faiss()
        graph = faiss.IndexHNSWSQ(dimensions, faiss.ScalarQuantizer.QT_fp16, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = _CONSTRUCTION
        self._index = faiss.IndexIDMap(graph)

    def add(self, batch: VectorBatch) -> None:
        """See `Draft`."""
        self._index.add_with_ids(np.ascontiguousarray(batch.vectors), batch.ids)

    def finished(self, truth: Truth) -> GraphBase:
        """See `Draft`."""
        return GraphBase(Tuning(), self._index).tuned(truth)

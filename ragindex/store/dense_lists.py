"""Codes in inverted lists (IVF): half floats, which score exactly, or smaller ones, whose candidates are rescored.

Half floats are what the catalogue holds, so nothing has to be read again to correct them: measured at 100,000 vectors,
lists of 8-bit codes are no faster to scan, and fetching 250 vectors from the catalogue doubles the time of a query.
Smaller codes are for stores that would not fit in memory otherwise. RaBitQ: Gao and Long, arXiv 2405.12497; with
several bits: Gao et al., arXiv 2409.09913.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ragindex.store.dense_base import NOTHING, SLACK
from ragindex.store.faiss_base import Buffer, load_faiss, own_copy, read_mapped, selector, trainable_lists
from ragindex.store.rows import Float32Array, IdArray, VectorBatch
from ragindex.store.schemes import Scheme
from ragindex.store.tuning import DEEPEST, FAR, Truth, Tuning, enough, tuning_of
from ragindex.store.vector_index import Scored, best

__all__ = ["ListsBase", "ListsDraft", "sample_size"]

_SAMPLE_PER_LIST = 64  # training vectors per inverted list
_FEWEST_PROBES = 8
_STEP = 1.4


def sample_size(count: int) -> int:
    """How many vectors to train on."""
    return trainable_lists(count) * _SAMPLE_PER_LIST


class ListsBase:
    """A FAISS IVF index."""

    def __init__(self, scheme: Scheme, tuning: Tuning, index: Any, *, buffer: Buffer | None = None) -> None:
        self._faiss = load_faiss()
        self._index = index
        self._buffer = buffer  # what a mapped index lies in
        self.scheme = scheme
        self.tuning = tuning
        self.dimensions = int(index.d)
        self.ids = _ids(self._faiss, index)

    @classmethod
    def read(cls, scheme: Scheme, tuning: Tuning, data: Buffer) -> ListsBase:
        """The base that `save` wrote. Raises ValueError when it is none."""
        index = read_mapped(load_faiss(), data)
        if not hasattr(index, "nprobe"):
            raise ValueError("not an index of inverted lists")
        return cls(scheme, tuning, index, buffer=data)

    @property
    def factory(self) -> str:
        """See `Base`."""
        return f"IVF{self._index.nlist},{self.scheme.code}"

    def nearest(self, query: Float32Array, count: int, usable: IdArray | None) -> Scored:
        """What lies in the lists around `query`; in more of them until there is enough. See `Base`."""
        index, total = self._index, len(self.ids)
        # Ids that the base does not hold may be among the usable; they only make the search a little more thorough.
        most = total if usable is None else min(len(usable), total)
        if most == 0:
            return NOTHING
        chosen = None if usable is None else selector(self._faiss, usable)
        # The fewer are usable, the more lists it takes to meet enough of them.
        probes = min(index.nlist, math.ceil(index.nprobe * total / most))
        while True:
            parameters = self._parameters(probes, chosen)
            scores, ids = (part[0] for part in index.search(query[None], min(count + SLACK, total), params=parameters))
            found = ids >= 0
            if np.count_nonzero(found) >= min(count, most) or probes == index.nlist:
                return best(ids[found], scores[found], count)
            probes = min(index.nlist, 4 * probes)

    def extended(self, gone: IdArray, put: VectorBatch) -> ListsBase | None:
        """Lists that were trained are kept until the base has grown fourfold. See `Base`."""
        count = len(self.ids) - len(gone) + len(put.ids)
        if trainable_lists(count) > 2 * self._index.nlist:  # their number goes with the root
            return None
        index = own_copy(self._faiss, self._index)
        if len(gone):
            index.remove_ids(self._faiss.IDSelectorBatch(gone))
        if len(put.ids):
            index.add_with_ids(np.ascontiguousarray(put.vectors), put.ids)
        return ListsBase(self.scheme, self.tuning, index)

    def save(self, path: Path) -> None:
        """Write a FAISS file."""
        self._faiss.write_index(self._index, str(path))

    def tuned(self, truth: Truth) -> ListsBase:
        """Visit the fewest lists that hold what is nearest, then fetch the fewest candidates."""
        rescored = self.scheme.rescored
        depth = min(len(self.ids), DEEPEST if rescored else FAR)
        probes = min(_FEWEST_PROBES, self._index.nlist)
        while True:
            result = self._index.search(truth.queries, depth, params=self._parameters(probes, None))[1]
            found = [ids[ids >= 0] for ids in result]
            if enough(found, truth) or probes == self._index.nlist:
                break
            probes = min(self._index.nlist, math.ceil(_STEP * probes))
        self._index.nprobe = probes
        return ListsBase(self.scheme, tuning_of(found, truth, rescored=rescored), self._index)

    def _parameters(self, probes: int, chosen: Any) -> Any:
        kind = "IVFRaBitQSearchParameters" if self.scheme.code.startswith("RaBitQ") else "SearchParametersIVF"
        return getattr(self._faiss, kind)(sel=chosen, nprobe=probes)


def _ids(faiss: Any, index: Any) -> IdArray:
    lists = index.invlists
    parts = [
        faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).copy()
        for number in range(index.nlist)
        if lists.list_size(number)
    ]
    return np.sort(np.concatenate(parts)).astype(np.int64)


class ListsDraft:
    """Lists trained on sampled vectors (m, d) for about `count` of them, filled batch by batch."""

    def __init__(self, scheme: Scheme, sample: Float32Array, count: int) -> None:
        faiss = load_faiss()
        lists = trainable_lists(count, len(sample))
        index = faiss.index_factory(sample.shape[1], f"IVF{lists},{scheme.code}", faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.cp.niter = 1234, 10
        index.cp.min_points_per_centroid = 1  # a handful of vectors is asked for knowingly
        if scheme.code == "SQfp16":
            index.by_residual = False  # codes of the vectors themselves are exact: they are half floats already
        index.train(np.ascontiguousarray(sample))
        self._scheme, self._index = scheme, index

    def add(self, batch: VectorBatch) -> None:
        """See `Draft`."""
        self._index.add_with_ids(np.ascontiguousarray(batch.vectors), batch.ids)

    def finished(self, truth: Truth) -> ListsBase:
        """See `Draft`."""
        return ListsBase(self._scheme, Tuning(), self._index).tuned(truth)

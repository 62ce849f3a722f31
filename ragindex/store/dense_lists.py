"""Codes in inverted lists (IVF): half floats, which score exactly, or smaller ones, whose candidates are rescored.

Half floats are what the catalogue holds, so nothing has to be read again to correct them: measured at 100,000 vectors,
lists of 8-bit codes are no faster to scan, and fetching 250 vectors from the catalogue doubles the time of a query.
Smaller codes are for stores that would not fit in memory otherwise. RaBitQ: Gao and Long, arXiv 2405.12497; with
several bits: Gao et al., arXiv 2409.09913.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ragindex.store.dense_base import NOTHING, SLACK
from ragindex.store.dense_probing import Allowed, Lists, Probing, allowed_in
from ragindex.store.faiss_base import Buffer, load_faiss, own_copy, read_mapped, trainable_lists
from ragindex.store.gpu import MOST, Gpu
from ragindex.store.rows import Float32Array, IdArray, VectorBatch
from ragindex.store.schemes import Scheme
from ragindex.store.tuning import DEEPEST, FAR, Truth, Tuning, enough, tuning_of
from ragindex.store.vector_index import Scored, best

__all__ = ["ListsBase", "ListsDraft", "sample_size"]

_SAMPLE_PER_LIST = 64  # training vectors per inverted list
_CHECKED = 32  # centres that are searched for to compare a copy with the original
_FEWEST_PROBES = 8
_STEP = 1.4


def sample_size(count: int) -> int:
    """How many vectors to train on."""
    return trainable_lists(count) * _SAMPLE_PER_LIST


class ListsBase:
    """A FAISS IVF index."""

    def __init__(
        self, scheme: Scheme, tuning: Tuning, index: Any, *, buffer: Buffer | None = None, gpu: Gpu | None = None
    ) -> None:
        self._faiss = load_faiss()
        self._index = index
        self._buffer = buffer  # what a mapped index lies in
        self.scheme = scheme
        self.tuning = tuning
        self.dimensions = int(index.d)
        self.ids, self._lists = _placed(self._faiss, index)
        self._sizes = np.bincount(self._lists, minlength=index.nlist)
        self._recent: Allowed | None = None  # a filter is used for several queries
        self._gpu = gpu
        self._copy = None if gpu is None else gpu.copied(index, self._centres(), self._parameters(index.nprobe, None))

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
        if usable is not None and len(usable):
            return best(*self._probed(query, count + SLACK, usable), count)
        index, total = self._index, len(self.ids) if usable is None else 0
        if total == 0:
            return NOTHING
        probes = index.nprobe
        while True:
            ids, scores = self._around(query, min(count + SLACK, total), probes)
            found = ids >= 0
            if np.count_nonzero(found) >= min(count, total) or probes == index.nlist:
                return best(ids[found], scores[found], count)
            probes = min(index.nlist, 4 * probes)

    def _around(self, query: Float32Array, count: int, probes: int) -> Scored:
        parameters = self._parameters(probes, None)
        if self._gpu is not None and max(count, probes) <= MOST:
            return self._gpu.search(self._copy, query, count, parameters)
        scores, ids = (part[0] for part in self._index.search(query[None], count, params=parameters))
        return Scored(ids, scores)

    def _centres(self) -> Float32Array:
        return np.ascontiguousarray(self._index.quantizer.reconstruct_n(0, min(_CHECKED, self._index.nlist)))

    def _probed(self, query: Float32Array, count: int, usable: IdArray) -> Scored:
        allowed = self._recent
        if allowed is None or allowed.ids is not usable:
            allowed = allowed_in(self._faiss, usable, ids=self.ids, lists=self._lists, sizes=self._sizes)
            self._recent = allowed
        if allowed.total == 0:
            return NOTHING
        probing = Probing(self._faiss, self._index, allowed, query)
        return probing.nearest(count, self._parameters(1, allowed.chosen))

    def on(self, gpu: Gpu) -> ListsBase:
        """See `Base`. RaBitQ's codes are the processor's alone."""
        if self.scheme.code.startswith("RaBitQ"):
            return self
        return ListsBase(self.scheme, self.tuning, self._index, buffer=self._buffer, gpu=gpu)

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


class _Placed(NamedTuple):
    """Ids, ascending, and the list that each lies in."""

    ids: IdArray
    lists: Lists


def _placed(faiss: Any, index: Any) -> _Placed:
    held = index.invlists
    sizes = [held.list_size(number) for number in range(index.nlist)]
    parts = [faiss.rev_swig_ptr(held.get_ids(number), size).copy() for number, size in enumerate(sizes) if size]
    ids = np.concatenate(parts).astype(np.int64)
    order = np.argsort(ids, kind="stable")
    lists = np.repeat(np.arange(index.nlist, dtype=np.min_scalar_type(index.nlist)), sizes)
    return _Placed(ids[order], lists[order])


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

"""A VectorIndex in three parts: an immutable base, the vectors put since (the delta) and the ids gone since.

The base finds candidates in the way of its scheme. Where its codes are too short for exact scores, the candidates'
vectors are read from the snapshot's file of vectors, or from the catalogue, and scored again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ragindex.store.dense_base import NOTHING, SLACK, Base, Source
from ragindex.store.dense_build import build, read
from ragindex.store.faiss_base import Buffer, load_faiss
from ragindex.store.gpu import Gpu
from ragindex.store.rows import Float32Array, IdArray, VectorBatch
from ragindex.store.schemes import Scheme
from ragindex.store.tuning import Tuning
from ragindex.store.vector_file import VectorFile
from ragindex.store.vector_index import Scored, best, inside, merged

__all__ = ["FaissIndex", "Fetch"]

Fetch = Callable[[IdArray], VectorBatch]

_NO_IDS: IdArray = np.empty(0, np.int64)


@dataclass(frozen=True)
class _State:
    """What a search sees; replaced as a whole, never changed."""

    base: Base | None  # None when it is empty
    gone: IdArray  # ids of the base that no longer count, ascending
    delta: VectorBatch
    vectors: VectorFile | None = None  # those of the base
    fast: Base | None = None  # the base as it is searched, where that is not itself

    @cached_property
    def base_ids(self) -> IdArray:
        """The ids of the base, ascending."""
        return _NO_IDS if self.base is None else self.base.ids

    @cached_property
    def live(self) -> IdArray:
        """The ids of the base that count, ascending."""
        return self.base_ids if len(self.gone) == 0 else self.base_ids[~inside(self.gone, self.base_ids)]


class FaissIndex:
    """Thread-safe: a search works on the state it started with.

    `fetch` gives vectors out of the catalogue, of those ids that it still has.
    """

    def __init__(
        self,
        dimensions: int,
        fetch: Fetch,
        scheme: Scheme,
        *,
        base: Base | None = None,
        vectors: VectorFile | None = None,
    ) -> None:
        load_faiss()  # one that is missing is told of at once
        self.scheme = scheme
        self._dimensions = dimensions
        self._fetch = fetch
        self._lock = threading.Lock()
        empty = VectorBatch(_NO_IDS, np.empty((0, dimensions), np.float32))
        self._state = _State(base, _NO_IDS, empty, vectors)

    @classmethod
    def build(cls, dimensions: int, fetch: Fetch, scheme: Scheme, source: Source) -> FaissIndex:
        """An index of everything that the source gives."""
        load_faiss()
        return cls(dimensions, fetch, scheme, base=build(scheme, dimensions, source))

    @classmethod
    def read(cls, dimensions: int, fetch: Fetch, scheme: Scheme, *, data: Buffer, tuning: Tuning) -> FaissIndex:
        """The index that `save` wrote, in the buffer itself. Raises ValueError when the bytes are not one of these
        dimensions and this scheme.
        """
        if data.size == 0:
            return cls(dimensions, fetch, scheme)
        base = read(scheme, tuning, data)
        if base.dimensions != dimensions:
            raise ValueError(f"an index of {base.dimensions} dimensions instead of {dimensions}")
        return cls(dimensions, fetch, scheme, base=base)

    @property
    def factory(self) -> str:
        """The FAISS factory string of the base, or one in its manner."""
        base = self._state.base
        return "Flat" if base is None else base.factory

    @property
    def tuning(self) -> Tuning:
        """How the base is searched."""
        base = self._state.base
        return Tuning() if base is None else base.tuning

    @property
    def ids(self) -> IdArray:
        """The ids of the base, ascending."""
        return self._state.base_ids

    @property
    def pending(self) -> int:
        """Rows by which the base is behind: put or gone since it was made."""
        return len(self._state.delta.ids) + len(self._state.gone)

    def missing(self, ids: IdArray) -> IdArray:
        """Those of the ids that the index does not hold."""
        state = self._state
        held = (inside(state.base_ids, ids) & ~inside(state.gone, ids)) | np.isin(ids, state.delta.ids)
        return ids[~held]

    def attach(self, vectors: VectorFile | None) -> None:
        """Read the vectors of the base from this file from now on; None: from the catalogue."""
        with self._lock:
            self._state = replace(self._state, vectors=vectors)

    def run_on(self, gpu: Gpu) -> None:
        """Search the base on a graphics card from now on, if its scheme can be. Raises StoreError as `Gpu.copied`."""
        with self._lock:
            base = self._state.base
            if base is not None and self._state.fast is None:
                self._state = replace(self._state, fast=base.on(gpu))

    def add(self, ids: IdArray, vectors: Float32Array) -> None:
        """Put vectors (n, d); an id that is present is replaced."""
        with self._lock:
            state = _without(self._state, ids)
            delta = VectorBatch(
                np.concatenate([state.delta.ids, np.asarray(ids, np.int64)]),
                np.concatenate([state.delta.vectors, np.asarray(vectors, np.float32)]),
            )
            self._state = replace(state, delta=delta)

    def remove(self, ids: IdArray) -> None:
        """Forget ids; unknown ones are ignored."""
        with self._lock:
            self._state = _without(self._state, ids)

    def search(self, query: Float32Array, k: int, allowed: IdArray | None = None) -> Scored:
        """The k best for `query` (d,) among `allowed` (ascending ids; None: all). Fewer than k only when fewer
        exist. Scores are exact in every scheme.
        """
        state = self._state
        query = np.ascontiguousarray(query, np.float32)
        if k <= 0:
            return NOTHING
        delta = state.delta
        if allowed is not None:
            kept = inside(allowed, delta.ids)
            delta = VectorBatch(delta.ids[kept], delta.vectors[kept])
        recent = best(delta.ids, delta.vectors @ query, k)
        return merged([recent, self._search_base(state, query, k, allowed)], k)

    def compacted(self) -> FaissIndex | None:
        """An index of the same contents and scheme with an empty delta; None where one should be built anew."""
        state = self._state
        if self.pending == 0:
            return self
        if state.base is None or len(state.live) + len(state.delta.ids) == 0:
            return None
        base = state.base.extended(state.gone, state.delta)
        return None if base is None else FaissIndex(self._dimensions, self._fetch, self.scheme, base=base)

    def save(self, path: Path) -> None:
        """Write the base to a file; the delta and what is gone are not in it. See `compacted`."""
        base = self._state.base
        if base is None:
            path.write_bytes(b"")
        else:
            base.save(path)

    def __len__(self) -> int:
        state = self._state
        return len(state.base_ids) - len(state.gone) + len(state.delta.ids)

    def _search_base(self, state: _State, query: Float32Array, k: int, allowed: IdArray | None) -> Scored:
        base, usable = state.fast or state.base, allowed
        if base is None:
            return NOTHING
        if len(state.gone) and allowed is None:
            usable = state.live
        elif allowed is not None and inside(allowed, state.gone).any():  # the same array every time else: see ListsBase
            usable = allowed[~inside(state.gone, allowed)]
        if not base.scheme.rescored:
            return base.nearest(query, k, usable)
        depth = base.tuning.candidates(k + SLACK)
        few = base.ids if usable is None else usable
        # No search could leave anything out where that many are fetched anyway.
        whole = len(few) <= depth
        candidates = few[inside(base.ids, few)] if whole else base.nearest(query, depth, usable).ids
        found = self._vectors_of(state, candidates)
        return best(found.ids, found.vectors @ query, k)

    def _vectors_of(self, state: _State, ids: IdArray) -> VectorBatch:
        """From disk; what the file lacks, or holds damaged, from the catalogue."""
        if state.vectors is None:
            return self._fetch(ids)
        found = state.vectors.fetch(ids)
        if len(found.ids) == len(ids):
            return found
        rest = self._fetch(ids[~np.isin(ids, found.ids)])
        return VectorBatch(np.concatenate([found.ids, rest.ids]), np.concatenate([found.vectors, rest.vectors]))


def _without(state: _State, ids: IdArray) -> _State:
    if len(ids) == 0:
        return state
    gone = np.union1d(state.gone, ids[inside(state.base_ids, ids)])
    kept = ~np.isin(state.delta.ids, ids)
    delta = state.delta if kept.all() else VectorBatch(state.delta.ids[kept], state.delta.vectors[kept])
    return replace(state, gone=gone.astype(np.int64), delta=delta)

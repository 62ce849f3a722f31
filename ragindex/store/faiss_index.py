"""A VectorIndex on FAISS: an immutable base, the vectors put since (the delta) and the ids gone since.

Small bases hold the vectors as they are, larger ones in inverted lists of half floats (IVF, SQfp16). Half floats are
what the catalogue holds, so scores are exact and nothing has to be read again to correct them: measured at 100,000
vectors, lists of 8-bit codes are no faster to scan, and fetching 250 rows for correction doubled the time of a query.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ragindex.store.faiss_base import build, flat_rows, is_flat_size, load_faiss, selector, stored_ids
from ragindex.store.rows import Float32Array, IdArray, VectorBatch
from ragindex.store.vector_index import Scored, best, inside, merged

__all__ = ["FaissIndex", "Fetch"]

Fetch = Callable[[IdArray], VectorBatch]

_SLACK = 16  # results beyond k, so that a tie at the end is decided by id


@dataclass(frozen=True)
class _State:
    """What a search sees; replaced as a whole, never changed."""

    base: Any  # a FAISS index, or None when it is empty
    base_ids: IdArray  # ascending
    gone: IdArray  # ids of the base that no longer count, ascending
    delta: VectorBatch

    @cached_property
    def live(self) -> IdArray:
        """The ids of the base that count, ascending."""
        return self.base_ids if len(self.gone) == 0 else self.base_ids[~inside(self.gone, self.base_ids)]

    @property
    def exact(self) -> bool:
        return self.base is None or not hasattr(self.base, "nprobe")


class FaissIndex:
    """Thread-safe: a search works on the state it started with."""

    def __init__(self, dimensions: int, fetch: Fetch, *, base: Any = None) -> None:
        self._faiss = load_faiss()
        self._dimensions = dimensions
        self._fetch = fetch
        self._lock = threading.Lock()
        empty = VectorBatch(np.empty(0, np.int64), np.empty((0, dimensions), np.float32))
        self._state = _State(base, stored_ids(self._faiss, base), np.empty(0, np.int64), empty)

    @classmethod
    def build(cls, dimensions: int, fetch: Fetch, batches: Iterable[VectorBatch]) -> FaissIndex:
        """An index of vectors that come in batches; the factory is chosen by their number."""
        faiss = load_faiss()
        parts = list(batches)
        if not parts:
            return cls(dimensions, fetch)
        ids = np.concatenate([part.ids for part in parts])
        vectors = np.concatenate([part.vectors for part in parts])
        return cls(dimensions, fetch, base=build(faiss, ids, vectors))

    @classmethod
    def from_bytes(cls, data: bytes, dimensions: int, fetch: Fetch) -> FaissIndex:
        """The index that `save` wrote. Raises ValueError when the bytes are not one of these dimensions."""
        faiss = load_faiss()
        try:
            base = faiss.deserialize_index(np.frombuffer(data, np.uint8))
        except RuntimeError as error:
            raise ValueError("not a FAISS index") from error
        if base.d != dimensions:
            raise ValueError(f"an index of {base.d} dimensions instead of {dimensions}")
        return cls(dimensions, fetch, base=base if base.ntotal else None)

    @property
    def factory(self) -> str:
        """The FAISS factory string of the base."""
        base = self._state.base
        return "Flat" if self._state.exact else f"IVF{base.nlist},SQfp16"

    @property
    def pending(self) -> int:
        """Rows by which the base is behind: put or gone since it was made."""
        return len(self._state.delta.ids) + len(self._state.gone)

    def missing(self, ids: IdArray) -> IdArray:
        """Those of the ids that the index does not hold."""
        state = self._state
        held = (inside(state.base_ids, ids) & ~inside(state.gone, ids)) | np.isin(ids, state.delta.ids)
        return ids[~held]

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
        exist.
        """
        state = self._state
        query = np.ascontiguousarray(query, np.float32)
        if k <= 0:
            return Scored(np.empty(0, np.int64), np.empty(0, np.float32))
        delta = state.delta
        if allowed is not None:
            kept = inside(allowed, delta.ids)
            delta = VectorBatch(delta.ids[kept], delta.vectors[kept])
        recent = best(delta.ids, delta.vectors @ query, k)
        return merged([recent, self._search_base(state, query, k, allowed)], k)

    def compacted(self) -> FaissIndex:
        """An index of the same contents with an empty delta. Lists that were trained are kept until the base has
        grown fourfold.
        """
        state = self._state
        merged_base = _merged_base(self._faiss, state, self._fetch)
        return FaissIndex(self._dimensions, self._fetch, base=merged_base)

    def save(self, path: Path) -> None:
        """Write the whole index to a file."""
        state = self._state
        base = (
            state.base if len(state.delta.ids) + len(state.gone) == 0 else _merged_base(self._faiss, state, self._fetch)
        )
        self._faiss.write_index(base if base is not None else self._faiss.IndexFlatIP(self._dimensions), str(path))

    def __len__(self) -> int:
        state = self._state
        return len(state.base_ids) - len(state.gone) + len(state.delta.ids)

    def _search_base(self, state: _State, query: Float32Array, k: int, allowed: IdArray | None) -> Scored:
        if state.base is not None and not state.exact:
            return self._search_lists(state, query, k, allowed)
        usable = state.live if allowed is None else allowed[inside(state.live, allowed)]
        if len(usable) == 0:
            return Scored(np.empty(0, np.int64), np.empty(0, np.float32))
        # One product over everything is faster than gathering most of the rows first.
        scores = flat_rows(self._faiss, state.base) @ query
        return best(usable, scores[np.searchsorted(state.base_ids, usable)], k)

    def _search_lists(self, state: _State, query: Float32Array, k: int, allowed: IdArray | None) -> Scored:
        base, count = state.base, len(state.base_ids)
        usable = state.live if allowed is None else allowed
        if allowed is not None and len(state.gone):
            usable = allowed[~inside(state.gone, allowed)]
        # Ids that the base does not hold may be among the allowed; they only make the search a little more thorough.
        most = min(len(usable), count)
        if most == 0:
            return Scored(np.empty(0, np.int64), np.empty(0, np.float32))
        chosen = None if usable is state.base_ids else selector(self._faiss, usable)
        # The fewer are allowed, the more lists it takes to meet enough of them.
        probes = min(base.nlist, math.ceil(base.nprobe * count / most))
        while True:
            parameters = self._faiss.SearchParametersIVF(sel=chosen, nprobe=probes)
            scores, ids = (part[0] for part in base.search(query[None], min(k + _SLACK, count), params=parameters))
            found = ids >= 0
            if np.count_nonzero(found) >= min(k, most) or probes == base.nlist:
                return best(ids[found], scores[found], k)
            probes = min(base.nlist, 4 * probes)


def _without(state: _State, ids: IdArray) -> _State:
    if len(ids) == 0:
        return state
    gone = np.union1d(state.gone, ids[inside(state.base_ids, ids)])
    kept = ~np.isin(state.delta.ids, ids)
    delta = state.delta if kept.all() else VectorBatch(state.delta.ids[kept], state.delta.vectors[kept])
    return _State(state.base, state.base_ids, gone.astype(np.int64), delta)


def _merged_base(faiss: Any, state: _State, fetch: Fetch) -> Any:
    count = len(state.live) + len(state.delta.ids)
    if count == 0:
        return None
    if state.base is not None and not state.exact and not is_flat_size(count) and count <= state.base.nlist**2 // 4:
        base = faiss.clone_index(state.base)
        if len(state.gone):
            base.remove_ids(faiss.IDSelectorBatch(state.gone))
        base.add_with_ids(state.delta.vectors, state.delta.ids)
        return base
    old = _vectors_of(faiss, state, fetch)
    return build(faiss, np.concatenate([old.ids, state.delta.ids]), np.concatenate([old.vectors, state.delta.vectors]))


def _vectors_of(faiss: Any, state: _State, fetch: Fetch) -> VectorBatch:
    if state.base is None or not state.exact:
        return fetch(state.live)
    kept = ~inside(state.gone, state.base_ids)
    return VectorBatch(state.base_ids[kept], flat_rows(faiss, state.base)[kept])

"""Which inverted lists to visit under a filter: the nearest ones that hold enough of what is allowed.

A search without a filter visits so many lists that it meets a certain number of vectors. Under a filter that has to be
a number of allowed vectors, and more of them the fewer lie around the query: where a filter excludes what is near, the
order of the lists says little about what remains. Lists without an allowed vector are not visited at all, so a handful
of allowed vectors is scored exactly and at once, however many others there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ragindex.store.faiss_base import selector
from ragindex.store.rows import Float32Array, IdArray
from ragindex.store.vector_index import Scored

__all__ = ["Allowed", "Probing", "allowed_in"]

_ANYWAY = 2_000  # allowed vectors that are scored wherever they lie; it takes a millisecond
_SPARSE = 0.05  # share of the ids below which they are looked up one by one
_SCATTERED = 100  # numbers for each id, from which on a mark for every number would take too much memory

Lists = npt.NDArray[np.unsignedinteger[Any]]
Counts = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Allowed:
    """Ids that a search may return, strangers among them, and what tells FAISS of them; of each list (nlist,) how many
    of them it holds, and how many vectors at all.
    """

    ids: IdArray
    chosen: Any
    held: Counts
    sizes: Counts

    @property
    def total(self) -> int:
        """How many there are."""
        return int(self.held.sum())


def allowed_in(faiss: Any, allowed: IdArray, *, ids: IdArray, lists: Lists, sizes: Counts) -> Allowed:
    """`allowed` over an index of `ids` (both ascending), of which each lies in a list (n,)."""
    if len(allowed) < _SPARSE * len(ids) or ids[-1] > _SCATTERED * len(ids):
        places = np.minimum(np.searchsorted(ids, allowed), len(ids) - 1)
        inside = lists[places[ids[places] == allowed]]
    else:
        marked = np.zeros(int(ids[-1]) + 1, bool)
        marked[allowed[: np.searchsorted(allowed, ids[-1], side="right")]] = True
        inside = lists[marked[ids]]
    return Allowed(allowed, selector(faiss, allowed), np.bincount(inside, minlength=len(sizes)), sizes)


class Probing:
    """Searches the lists of a FAISS IVF index in the order of their centres, for one query (d,)."""

    def __init__(self, faiss: Any, index: Any, allowed: Allowed, query: Float32Array) -> None:
        self._faiss, self._index, self._allowed, self._query = faiss, index, allowed, query[None]
        scores, order = (part[0] for part in index.quantizer.search(self._query, index.nlist))
        scores, order = scores[order >= 0], order[order >= 0]
        held, sizes = allowed.held, allowed.sizes
        around = order[: index.nprobe]
        self._share = held.sum() / sizes.sum()
        self._share_around = held[around].sum() / max(1, sizes[around].sum())
        filled = held[order] > 0
        self._order: IdArray = order[filled]
        self._scores: Float32Array = scores[filled]
        self._met = np.cumsum(held[self._order])

    def nearest(self, count: int, parameters: Any) -> Scored:
        """At least `count` of the allowed, fewer only when there are fewer, in no order that can be relied on."""
        total = self._allowed.total
        lists = self._holding(max(self._enough(), _ANYWAY, count))
        while True:
            found = self._search(lists, min(count, total), parameters)
            if len(found.ids) >= min(count, total) or lists == len(self._order):
                return found
            lists = min(len(self._order), 4 * lists)

    def _enough(self) -> float:
        """How many of the allowed to meet.

        Without a filter it is nprobe / nlist of all. With fewer, the nearest of them lie farther off and wider apart,
        if not by as much as they are fewer: the root of the share kept 99 % of the hundred nearest when it was
        measured. Where the filter excludes what is around the query it takes more, up to all: by the square of how much
        rarer the allowed are there, filters of the farthest half and fifth kept all of the ten nearest, by the root
        alone 41 to 97 % (9,328 passages of three collections, 60 questions).
        """
        usual = self._index.nprobe / self._index.nlist * self._allowed.sizes.sum() * math.sqrt(self._share)
        rarer = max(1.0, self._share / max(self._share_around, 1e-6))
        return float(usual * rarer**2)

    def _holding(self, wanted: float) -> int:
        return min(len(self._order), int(np.searchsorted(self._met, wanted)) + 1)

    def _search(self, lists: int, count: int, parameters: Any) -> Scored:
        order, centres = self._order[:lists], self._scores[:lists]
        scores, ids = np.empty((1, count), np.float32), np.empty((1, count), np.int64)
        given = (self._query, order, centres, scores, ids)
        assert all(array.flags.c_contiguous for array in given)  # FAISS is told where they lie
        query, places, near, *results = map(self._faiss.swig_ptr, given)
        parameters.nprobe = lists
        # FAISS's Python wrapper of it takes no parameters.
        self._index.search_preassigned_c(1, query, count, places, near, *results, False, parameters)
        found = ids[0] >= 0
        return Scored(ids[0][found], scores[0][found])

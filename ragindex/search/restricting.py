"""Searches under a filter: by the list of the allowed chunks, or by asking about what an unfiltered search found.

To list costs a little for every chunk that is allowed, to ask some more for every chunk that is found. So a filter that
lets much through is asked about; when it is used again and again, or what it allows turns out to lie where the query
does not, it is listed after all, and the catalogue keeps the list.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ragindex.filters import Filter
from ragindex.store.allowing import Guess
from ragindex.store.catalog import Catalog
from ragindex.store.rows import IdArray
from ragindex.store.vector_index import Scored, inside

__all__ = ["Restriction", "Restrictions", "Search"]

Search = Callable[[int, IdArray | None], Scored]  # a depth and the allowed ids, ascending (None: all)

_ASKING = 24.0  # what it takes to ask about a chunk, if to list one takes 1; measured with benchmarks/filtered.py
_MARGIN = 1.2  # searches are made deeper than the share says by this, and by a few chunks
_MORE = 32
_PATIENCE = 4  # uses of a filter that are asked about before it is listed
_REMEMBERED = 256  # filters whose uses are counted


@dataclass(frozen=True, slots=True)
class Restriction:
    """A filter (None: none) and how it is applied.

    ids: what it allows, ascending, where that is listed; else share: about how much of everything it lets through, and
    what a search finds is asked about.
    """

    catalog: Catalog
    collection: int
    filter: Filter | None
    ids: IdArray | None = None
    share: float = 1.0

    @property
    def is_void(self) -> bool:
        """Whether it is known to allow nothing."""
        return self.ids is not None and len(self.ids) == 0

    def best(self, search: Search, depth: int) -> Scored:
        """The `depth` best that are allowed; fewer only when there are fewer."""
        if self.filter is None or self.ids is not None:
            return search(depth, self.ids)
        wanted = math.ceil(_MARGIN * depth / self.share) + _MORE
        found = search(wanted, None)
        kept = inside(self.catalog.permitted(self.collection, self.filter, found.ids), found.ids)
        if kept.sum() >= depth or len(found.ids) < wanted:
            return Scored(found.ids[kept][:depth], found.scores[kept][:depth])
        return search(depth, self.catalog.allowed(self.collection, self.filter))


class Restrictions:
    """Chooses how the filters of one collection are applied. Thread-safe."""

    def __init__(self, catalog: Catalog, collection: int) -> None:
        self._catalog = catalog
        self._collection = collection
        self._lock = threading.Lock()
        self._uses: OrderedDict[Filter, int] = OrderedDict()

    def choose(self, filter: Filter | None, results: int) -> Restriction:  # noqa: A002
        """For searches that are to have so many results together."""
        if filter is None:
            return Restriction(self._catalog, self._collection, None)
        ids = self._catalog.known_allowed(self._collection, filter)
        if ids is None:
            guess = self._catalog.guessed(self._collection, filter)
            if guess is not None and _is_asked(guess, results) and self._is_patient(filter):
                return Restriction(self._catalog, self._collection, filter, share=guess.share)
            ids = self._catalog.allowed(self._collection, filter)
        return Restriction(self._catalog, self._collection, filter, ids)

    def _is_patient(self, filter: Filter) -> bool:  # noqa: A002
        """Whether it was asked about only a few times since it was listed last."""
        with self._lock:
            uses = self._uses.pop(filter, 0) + 1
            if uses > _PATIENCE:
                return False
            self._uses[filter] = uses
            if len(self._uses) > _REMEMBERED:
                self._uses.popitem(last=False)
            return True


def _is_asked(guess: Guess, results: int) -> bool:
    """Whether to ask takes less than to list: to list takes 1 for each of share x total chunks, to ask `_ASKING` for
    each of results / share.
    """
    return guess.share**2 * guess.total > _ASKING * results

"""Checks a store, mends it and gives space back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragindex.index import describing
from ragindex.index.places import Places
from ragindex.index.serving import Serving
from ragindex.index.storing import Storing
from ragindex.store.catalog import Catalog
from ragindex.store.lease import PromotionLease, WriterLease
from ragindex.types import Verification

if TYPE_CHECKING:
    from ragindex.index.promotion import Promoter

__all__ = ["Upkeep", "rescue"]


class Upkeep:
    """See the methods of `Index` of the same names."""

    def __init__(
        self, catalog: Catalog, collection: int, *, places: Places, storing: Storing, serving: Serving
    ) -> None:
        self._catalog = catalog
        self._collection = collection
        self._places, self._storing, self._serving = places, storing, serving

    @property
    def promoter(self) -> Promoter:
        """What changes the encoder of the store, and looks after those that it has copies of."""
        from ragindex.index.promotion import Promoter

        return Promoter(self._catalog, self._serving, self._places.chunking)

    def verify(self) -> Verification:
        """Read everything and compare."""
        from ragindex.store.repairing import unlike_copies

        problems = [*self._catalog.integrity(), *unlike_copies(self._catalog)]
        problems += [*self._serving.indexes().problems(), *self.promoter.problems()]
        counts = self._catalog.counts(self._collection)
        return Verification(not problems, counts.documents, counts.chunks, counts.vectors, tuple(problems))

    def repair(self) -> None:
        """Mend without embedding; what remains broken, `verify` tells."""
        from ragindex.store.repairing import repair

        with WriterLease(self._places.store, command="repair"):
            repair(self._places.store)
            self._serving.indexes().rebuild()

    def compact(self, *, forget_previous: bool, dense: str | None) -> dict[str, Any]:
        """Drop what nobody needs, and make the snapshots again."""
        from ragindex.store.repairing import trusted_copies

        store = self._places.store
        self._storing.plan(dense)  # a scheme that cannot be is refused before anything happens
        with PromotionLease(store, command="compact"), WriterLease(store, command="compact"):
            self._storing.remember(dense)
            before = describing.bytes_below(store)
            # The snapshots go with what they know; what they know better than the catalogue must not.
            self._catalog.mend(trusted_copies(self._catalog))
            forgotten = self.promoter.forget() if forget_previous else None
            removed = self.promoter.sweep()
            self._catalog.vacuum()
            self._serving.indexes().rebuild()
        return {
            "vectors_removed": removed,
            "forgotten": forgotten,
            "bytes_before": before,
            "bytes_after": describing.bytes_below(store),
            "dense": describing.dense(self._catalog, self._collection, self._serving.indexes().status()),
        }


def rescue(store: Path) -> None:
    """See `Index.rescue`."""
    from ragindex.store.repairing import repair

    with WriterLease(store, command="repair"):
        repair(store)

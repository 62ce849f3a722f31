"""Switches a store to another encoder while the old one serves, and back again.

Vectors are made beside those that serve, under a lease of their own, so documents may come and go meanwhile. The
writer's lease is taken for the end alone: what came is embedded, the indexes are made, and one transaction switches.
Killed at any moment, the store has the old encoder with all its vectors or the new one with all of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ragindex.config import Chunking
from ragindex.errors import EncoderError, StoreLockedError, UsageError
from ragindex.index import locating
from ragindex.index.serving import Serving, check_room
from ragindex.store.catalog import Catalog
from ragindex.store.lease import PromotionLease, WriterLease
from ragindex.store.rows import EncoderRow
from ragindex.store.snapshot import LiveIndexes, prune

if TYPE_CHECKING:
    from ragindex.encoder import Encoder
    from ragindex.ingest.progress import Progress

__all__ = ["Promoter", "Promotion"]

_PATIENCE = 3600.0  # seconds that hours of embedding wait for another writer to end
_ROUND = 5.0  # seconds after which what that writer has added is embedded already


@dataclass(frozen=True, slots=True)
class Promotion:
    """What a switch did.

    encoder and previous: names by which `Encoder.load` finds them; `previous` is what a rollback goes back to, None
    where there is nothing. embedded: texts embedded for it; chunks of the same text share a vector.
    """

    encoder: str
    fingerprint: str
    previous: str | None
    previous_fingerprint: str | None
    embedded: int
    seconds: float


class Promoter:
    """Promotes encoders in one store. `serving` is told first, so that its process need not load them again."""

    def __init__(self, catalog: Catalog, serving: Serving, chunking: Chunking) -> None:
        self._catalog = catalog
        self._serving = serving
        self._chunking = chunking
        self._store = catalog.directory.resolve()

    def promote(self, encoder: Encoder, *, keep: bool, note: str, progress: Progress) -> Promotion:
        """See `Index.promote`."""
        check_room(encoder, self._chunking)
        with PromotionLease(self._store, command=f"promote {encoder.name}"):
            if keep:
                encoder = locating.keep(encoder, self._store)
            else:
                self._check_findable(encoder)
            return self._switch(encoder, self._serving.register(encoder), note=note, progress=progress)

    def rollback(self, *, note: str, progress: Progress) -> Promotion:
        """See `Index.rollback`."""
        with PromotionLease(self._store, command="encoder rollback"):
            row = self._catalog.previous_encoder()
            if row is None:
                raise UsageError(
                    f"{self._store} has no previous encoder to go back to: none was replaced, or it was forgotten."
                )
            encoder = self._found_again(row)
            check_room(encoder, self._chunking)
            return self._switch(encoder, row, note=note, progress=progress, after=self._catalog.previous_covers())

    def problems(self) -> list[str]:
        """What is wrong with the copies of encoders in the store."""
        copies = {
            locating.located(row.locator, self._store): row for row in self._kept() if locating.is_copy(row.locator)
        }
        return [
            f"The encoder in {place} is missing or damaged; promote it again from where it came."
            for place, row in copies.items()
            if not locating.holds(Path(place), row.fingerprint)
        ]

    def forget(self) -> str | None:
        """Under both leases: give up the way back; returns the name of the encoder that `sweep` will now drop."""
        row = self._catalog.previous_encoder()
        if row is None:
            return None
        self._catalog.forget_previous_encoder()
        return locating.located(row.locator, self._store)

    def sweep(self) -> int:
        """Under both leases: delete what belongs neither to the active encoder nor to the previous one. Returns how
        many vectors went.
        """
        removed = self._catalog.sweep_vectors()
        kept = self._kept()
        locating.delete_copies(self._store, kept=[row.locator for row in kept])
        prune(self._store, kept)
        return removed

    def _switch(self, encoder: Encoder, row: EncoderRow, *, note: str, progress: Progress, after: int = 0) -> Promotion:
        """Under the promotion's lease. after: a chunk up to which all have their vectors."""
        from ragindex.ingest.reembed import embed_missing

        began, embedded = time.monotonic(), 0

        def embed() -> None:
            nonlocal embedded
            embedded += embed_missing(self._catalog, encoder, row, self._chunking, progress, after=after)

        progress.start(0)
        try:
            embed()
            with self._leased(f"promote {encoder.name}", embed):
                embed()
                self._activate(encoder, row, note)
        finally:
            progress.finish()
        before = self._catalog.previous_encoder()
        return Promotion(
            encoder=locating.located(row.locator, self._store),
            fingerprint=row.fingerprint,
            previous=None if before is None else locating.located(before.locator, self._store),
            previous_fingerprint=None if before is None else before.fingerprint,
            embedded=embedded,
            seconds=time.monotonic() - began,
        )

    @contextmanager
    def _leased(self, command: str, meanwhile: Callable[[], None]) -> Iterator[None]:
        """Under the writer's lease. As long as another holds it, `meanwhile` is called every few seconds."""
        lease = WriterLease(self._store, command=command, wait=_ROUND)
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                lease.acquire()
                break
            except StoreLockedError:
                if time.monotonic() >= deadline:
                    raise
                meanwhile()
        try:
            yield
        finally:
            lease.release()

    def _activate(self, encoder: Encoder, row: EncoderRow, note: str) -> None:
        """Under both leases, every chunk having its vector: make the indexes and switch."""
        coming = self._serving.upcoming(encoder, row)
        coming.live.prepare()  # this process's own stay loaded
        for name in self._catalog.collections():
            identifier = self._catalog.collection(name)
            LiveIndexes(self._catalog, self._store, identifier, row.id, row.dimensions).prepare()
        with self._serving.expecting(coming):
            self._catalog.activate_encoder(row.fingerprint, note=note)
            self._serving.current()
        prune(self._store, self._kept())

    def _check_findable(self, encoder: Encoder) -> None:
        """Raise UsageError when no other process could load this very encoder."""
        name = locating.located(locating.locator_of(encoder, self._store), self._store)
        if locating.load(name, encoder.dimensions).fingerprint != encoder.fingerprint:
            raise UsageError(
                f"The encoder {name!r} was loaded with settings of its own, which no other process would know; "
                "promote it with keep=True, or save it to a directory and promote that."
            )

    def _found_again(self, row: EncoderRow) -> Encoder:
        """The encoder of a row. Raises EncoderError when its files are gone, or of another encoder by now."""
        name = locating.located(row.locator, self._store)
        try:
            encoder = locating.load(name, row.dimensions)
        except EncoderError as error:
            raise EncoderError(
                f"The store cannot go back to its previous encoder, so nothing was changed. {error}"
            ) from error
        if encoder.fingerprint != row.fingerprint:
            raise EncoderError(
                f"The store cannot go back to its previous encoder, so nothing was changed: {name} holds another one "
                f"now ({encoder.fingerprint[:8]}, not {row.fingerprint[:8]}). Put the old one back there."
            )
        return encoder

    def _kept(self) -> list[EncoderRow]:
        rows = (self._catalog.encoder(), self._catalog.previous_encoder())
        return [row for row in rows if row is not None]

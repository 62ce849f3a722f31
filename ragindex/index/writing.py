"""Brings one collection level with files and folders, takes documents from programs, and forgets them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ragindex.config import Settings
from ragindex.index.places import Places
from ragindex.index.serving import Generation, Serving
from ragindex.index.storing import Storing
from ragindex.store.catalog import Catalog
from ragindex.store.lease import WriterLease
from ragindex.store.rows import Batch
from ragindex.types import Document, IndexReport

if TYPE_CHECKING:
    from ragindex.ingest.plan import Plan, Scope
    from ragindex.ingest.progress import Progress
    from ragindex.ingest.run import IngestRun

__all__ = ["Writing"]


class Writing:
    """Every method is one run under the writer lease; see the methods of `Index` that call them."""

    def __init__(
        self,
        catalog: Catalog,
        collection: int,
        *,
        places: Places,
        storing: Storing,
        serving: Serving,
        settings: Settings,
    ) -> None:
        self._catalog = catalog
        self._collection = collection
        self._places, self._storing, self._serving = places, storing, serving
        self._settings = settings

    def preview(self, scope: Scope) -> IndexReport:
        """What `add` would do."""
        from ragindex.ingest.run import preview

        return preview(self._planned(scope))

    def add(self, scope: Scope, *, command: str, allow_delete: bool, progress: Progress | None) -> IndexReport:
        """See `Index.add`."""
        from ragindex.ingest.progress import Silent

        shown = progress or Silent()
        began = time.monotonic()
        with WriterLease(self._places.store, command=command):
            self._storing.remember()
            live = self._serving.current().live
            plan = self._planned(scope)
            if not allow_delete:
                plan.check_wipe()
            idle = plan.is_empty and live.settled()
            generation = None if idle else self._serving.for_writing(self._places.chunking)
            self._places.remember(scope)
            if generation is None:
                shown.start(0)
                shown.finish()
                report = IndexReport(unchanged=plan.unchanged, failed=plan.standing)
            else:
                report = self._run(generation, loader=scope.loader, attempt=scope.attempt).execute(plan, shown)
                generation.live.publish(force=True)
            self._places.completed(scope)
        return replace(report, seconds=time.monotonic() - began)

    def put(self, documents: Sequence[Document], *, progress: Progress | None) -> IndexReport:
        """See `Index.put`."""
        from ragindex.ingest.progress import Silent

        began = time.monotonic()
        with WriterLease(self._places.store, command="put"):
            generation = self._serving.for_writing(self._places.chunking)
            self._places.remember_chunking()
            self._storing.remember()
            known = self._catalog.states_of(self._collection, [document.path for document in documents])
            report = self._run(generation, loader="", attempt="").put(documents, known, progress or Silent())
            generation.live.publish(force=True)
        return replace(report, seconds=time.monotonic() - began)

    def remove(self, paths: Sequence[str | Path]) -> int:
        """See `Index.remove`."""
        with WriterLease(self._places.store, command="remove"):
            doomed = set().union(*map(self._places.doomed, paths))
            present = set(self._catalog.states_of(self._collection, sorted(doomed)))
            self._catalog.commit(self._collection, Batch(removes=sorted(present), cleared_failures=sorted(doomed)))
            self._serving.indexes().publish(force=True)
        return len(present)

    def _planned(self, scope: Scope) -> Plan:
        from ragindex.ingest.plan import make_plan

        return make_plan(self._catalog, self._collection, scope)

    def _run(self, generation: Generation, *, loader: str, attempt: str) -> IngestRun:
        from ragindex.ingest.run import IngestRun

        assert generation.row is not None
        return IngestRun(
            catalog=self._catalog,
            collection=self._collection,
            encoder=generation.encoder,
            encoder_id=generation.row.id,
            limits=self._settings.limits,
            chunking=self._places.chunking,
            loader=loader,
            attempt=attempt,
            published=generation.live.publish,
        )

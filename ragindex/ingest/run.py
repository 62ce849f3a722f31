"""One index run: read, cut, embed and commit, each overlapping the next; every commit leaves a store that answers
rightly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from ragindex.chunking import ChunkOptions
from ragindex.config import Chunking, Limits
from ragindex.encoder import Encoder
from ragindex.executor import Executor, LocalExecutor
from ragindex.ingest.context import ChunkContext
from ragindex.ingest.plan import Plan
from ragindex.ingest.progress import Progress
from ragindex.ingest.stages import CutStage, Cutter, Embedded, EmbedStage, LoadStage, Prepared, PreparedDocument
from ragindex.loaders import LoaderPool
from ragindex.store.catalog import Catalog
from ragindex.store.rows import Batch, FailureWrite, FileState
from ragindex.types import Document, Failure, IndexReport

__all__ = ["IngestRun", "preview"]

Item = TypeVar("Item")
Given_contra = TypeVar("Given_contra", contravariant=True)


class Stage(Protocol[Given_contra]):
    """Turns documents of some kind into chunks; `cancel` makes calls under way give up."""

    def __call__(self, batch: Sequence[Given_contra]) -> Prepared: ...

    def cancel(self) -> None: ...


_READ_FILES = 8  # files read by a worker at a time
_COMMIT_CHUNKS = 512  # chunks embedded and committed together
_COMMIT_FILES = 256


@dataclass(frozen=True, slots=True)
class IngestRun:
    """Everything a run works with; `published` is called after each commit, under the lease."""

    catalog: Catalog
    collection: int
    encoder: Encoder
    encoder_id: int
    limits: Limits
    chunking: Chunking
    loader: str
    attempt: str
    published: Callable[[], None]
    executor: Executor = LocalExecutor()  # noqa: RUF009 - holds no state

    def execute(self, plan: Plan, progress: Progress) -> IndexReport:
        """Carry out the plan. An interrupt or an error leaves everything committed so far."""
        report = IndexReport(unchanged=plan.unchanged, failed=plan.standing + plan.unreadable)
        report = self._tidy(plan, report)
        progress.start(len(plan.candidates))
        try:
            with LoaderPool(self.limits, workers=2) as pool:
                stage = LoadStage(pool, self._cutter(), loader=self.loader, attempt=self.attempt)
                report = self._pipeline(stage, plan.candidates, report, progress)
        finally:
            progress.finish()
        return report

    def put(self, documents: Sequence[Document], known: Mapping[str, FileState], progress: Progress) -> IndexReport:
        """Add or replace documents that are no files."""
        progress.start(len(documents))
        try:
            report = self._pipeline(CutStage(self._cutter(), known), documents, IndexReport(), progress)
        finally:
            progress.finish()
        return report

    def _cutter(self) -> Cutter:
        options = ChunkOptions(budget=self.chunking.tokens, overlap=self.chunking.overlap)
        context = ChunkContext(self.encoder, budget=options.budget, late=self.chunking.late)
        return Cutter(context, self.encoder, options)

    def _pipeline(
        self,
        stage: Stage[Item],
        items: Sequence[Item],
        report: IndexReport,
        progress: Progress,
    ) -> IndexReport:
        embed = EmbedStage(self.encoder, self.catalog, self.encoder_id)
        parts = [items[start : start + _READ_FILES] for start in range(0, len(items), _READ_FILES)]
        loaded = self.executor.map(stage, parts, workers=2, ahead=4, cancel=stage.cancel)
        # Closed at once when the run breaks off: left to the garbage collector, threads would outlive the lease.
        with closing(self.executor.map(embed, _regroup(loaded), workers=1, ahead=1)) as batches:
            for batch in batches:
                self._commit(batch)
                embed.committed(batch)
                report = _counted(report, batch)
                done = batch.prepared
                progress.advance(
                    files=len(done.documents) + len(done.failures), chunks=_chunks_passed(done), tokens=batch.tokens
                )
        return report

    def _commit(self, batch: Embedded) -> None:
        if batch.ahead:
            self.catalog.add_vectors(self.encoder_id, batch.ahead)
        if batch.prepared.documents or batch.prepared.failures:
            self.catalog.commit(self.collection, _as_batch(batch))
            self.published()

    def _tidy(self, plan: Plan, report: IndexReport) -> IndexReport:
        """Commit what needs no reading: deletions, moves, folders that cannot be listed."""
        batch = Batch(
            removes=plan.deleted,
            moves=plan.moves,
            failures=[FailureWrite(failure.path, failure.reason) for failure in plan.unreadable],
            cleared_failures=plan.gone_failures,
        )
        if batch.removes or batch.moves or batch.failures or batch.cleared_failures:
            self.catalog.commit(self.collection, batch)
            self.published()
        return replace(report, deleted=len(plan.deleted), moved=len(plan.moves))


def preview(plan: Plan) -> IndexReport:
    """What a run of this plan would report, as far as it can be known without reading files."""
    new = sum(candidate.known is None for candidate in plan.candidates)
    return IndexReport(
        added=new,
        updated=len(plan.candidates) - new,
        moved=len(plan.moves),
        deleted=len(plan.deleted),
        unchanged=plan.unchanged,
        failed=plan.standing + plan.unreadable,
    )


def _regroup(parts: Iterable[Prepared]) -> Iterator[Prepared]:
    """Collect small parts until embedding and committing them together is worth while; embed long documents piece by
    piece, so that neither memory nor what an interrupt can lose grows with their length.
    """
    group = Prepared()
    for part in parts:
        for item in part.documents:
            yield from _pieces(item)
        group = Prepared(group.documents + part.documents, group.failures + part.failures)
        chunks = sum(len(item.chunks) for item in group.documents)
        if chunks >= _COMMIT_CHUNKS or len(group.documents) + len(group.failures) >= _COMMIT_FILES:
            yield group
            group = Prepared()
    if group.documents or group.failures:
        yield group


def _pieces(item: PreparedDocument) -> Iterator[Prepared]:
    if len(item.chunks) <= _COMMIT_CHUNKS:
        return
    for start in range(0, len(item.chunks), _COMMIT_CHUNKS):
        part = slice(start, start + _COMMIT_CHUNKS)
        piece = replace(item, chunks=item.chunks[part], titles=item.titles[part], keys=item.keys[part])
        yield Prepared(ahead=(piece,))


def _chunks_passed(prepared: Prepared) -> int:
    """Chunks that this batch brings the run forward; those of a long document passed with its pieces."""
    whole = (item for item in prepared.documents if len(item.chunks) <= _COMMIT_CHUNKS)
    return sum(len(item.chunks) for item in (*whole, *prepared.ahead))


def _as_batch(batch: Embedded) -> Batch:
    same = [item for item in batch.prepared.documents if item.unchanged]
    return Batch(
        writes=batch.writes,
        touches=[item.state for item in same],
        metadata={item.state.path: item.document.metadata for item in same},
        failures=batch.prepared.failures,
        cleared_failures=[item.state.path for item in batch.prepared.documents],
    )


def _counted(report: IndexReport, batch: Embedded) -> IndexReport:
    documents = batch.prepared.documents
    changed = [item for item in documents if not item.unchanged]
    updated = sum(item.replaces for item in changed)
    chunks = sum(len(item.chunks) for item in changed)
    failed = tuple(Failure(failure.path, failure.reason) for failure in batch.prepared.failures)
    return replace(
        report,
        added=report.added + len(changed) - updated,
        updated=report.updated + updated,
        unchanged=report.unchanged + len(documents) - len(changed),
        failed=report.failed + failed,
        chunks=report.chunks + chunks,
        embedded_chunks=report.embedded_chunks + batch.fresh,
        reused_chunks=report.reused_chunks + chunks - batch.fresh,
        tokens=report.tokens + batch.tokens,
    )

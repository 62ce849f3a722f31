"""`index` and `remove`: what changes which documents a store holds."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ragindex.cli import exit_codes
from ragindex.cli.discovery import is_store
from ragindex.cli.options import collection_option, json_option, locate_or_new, open_index, settings_for
from ragindex.cli.progress import progress_bar
from ragindex.cli.render import failure_lines, report_json, report_lines
from ragindex.cli.switching import promotion_lines
from ragindex.cli.terminal import emit, emit_json, note, note_interrupt
from ragindex.config import Chunking
from ragindex.types import IndexReport

if TYPE_CHECKING:
    from ragindex.index import Index

__all__ = ["index", "remove"]

_DEFAULTS = Chunking()


@dataclass(frozen=True, slots=True)
class _Job:
    """The parsed options of `index`."""

    paths: tuple[str, ...]
    store: Path
    collection: str
    encoder: str | None
    chunk_tokens: int | None
    overlap: int | None
    late_chunking: bool | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    allow_delete: bool

    @property
    def is_new(self) -> bool:
        return not is_store(self.store)


@click.command(short_help="Read files and folders into the store, or bring it up to date.")
@click.argument("paths", metavar="PATH...", nargs=-1)
@click.option("--encoder", metavar="NAME|DIR|HUB_ID", help="The encoder of a new store; the bundled one by default.")
@click.option(
    "--chunk-tokens",
    metavar="N",
    type=int,
    help=f"Tokens of a chunk, headings and prompt included.  [default: {_DEFAULTS.tokens}]",
)
@click.option(
    "--overlap", metavar="N", type=int, help=f"Tokens that neighbouring chunks share.  [default: {_DEFAULTS.overlap}]"
)
@click.option(
    "--late-chunking/--no-late-chunking",
    default=None,
    help="Embed chunks in the context of their document; no gain with the bundled encoder.  [default: no]",
)
@click.option("--include", metavar="GLOB", multiple=True, help="Index only files that match; may be repeated.")
@click.option("--exclude", metavar="GLOB", multiple=True, help="Leave out files that match; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Say what would be done and do nothing.")
@click.option("--watch", is_flag=True, help="Stay, and index again whenever a file changes.")
@click.option("--allow-delete", is_flag=True, help="Go on even if more than half of the documents are gone.")
@click.option("--reembed", is_flag=True, help="Switch the whole store to --encoder first.")
@collection_option
@json_option
@click.pass_context
def index(
    ctx: click.Context,
    *,
    paths: tuple[str, ...],
    encoder: str | None,
    chunk_tokens: int | None,
    overlap: int | None,
    late_chunking: bool | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    dry_run: bool,
    watch: bool,
    allow_delete: bool,
    reembed: bool,
    collection: str,
    as_json: bool,
) -> None:
    """Bring the store level with files and folders: new, changed, moved and deleted ones.

    Makes the store .ragindex here when there is none here or above. Only what is new is embedded. Interrupting is
    safe: run the same command again to go on.

    Exits with 3 when some files could not be indexed.
    """
    _check(paths, dry_run=dry_run, watch=watch, as_json=as_json, reembed=reembed, encoder=encoder)
    if watch and allow_delete:
        raise click.UsageError("--allow-delete is for a single run; it cannot be combined with --watch.")
    job = _Job(
        paths=paths,
        store=locate_or_new(ctx),
        collection=collection,
        encoder=encoder,
        chunk_tokens=chunk_tokens,
        overlap=overlap,
        late_chunking=late_chunking,
        include=include,
        exclude=exclude,
        allow_delete=allow_delete,
    )
    missing = [path for path in paths if not Path(path).expanduser().exists()]
    if missing and job.is_new:  # a mistyped folder must not leave an empty store behind
        raise click.UsageError(f"{missing[0]} does not exist.")
    try:
        if watch:
            _watch(job, reembed=reembed)
            return
        report = _preview(job) if dry_run else _run(job, reembed=reembed)
    except KeyboardInterrupt:
        note_interrupt("Interrupted; everything committed so far is kept, run the same command to go on.")
        ctx.exit(exit_codes.INTERRUPTED)
    _show(report, as_json=as_json, dry_run=dry_run)
    if report.failed:
        ctx.exit(exit_codes.FAILED_FILES)


@click.command(short_help="Forget documents; files on disk stay as they are.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True)
@collection_option
@json_option
@click.pass_context
def remove(ctx: click.Context, *, paths: tuple[str, ...], collection: str, as_json: bool) -> None:
    """Forget documents; a folder removes everything below it. Files on disk stay as they are."""
    with open_index(ctx, collection=collection) as index:
        removed = index.remove(*paths)
    if as_json:
        emit_json({"removed": removed})
    else:
        emit(f"{removed:,} document{'' if removed == 1 else 's'} removed from the index.")


def _check(
    paths: tuple[str, ...], *, dry_run: bool, watch: bool, as_json: bool, reembed: bool, encoder: str | None
) -> None:
    if not paths:
        raise click.UsageError("Say what to index, for example `ragindex index .`.")
    if reembed and encoder is None:
        raise click.UsageError("--reembed needs --encoder, the encoder to switch to.")
    if dry_run and (watch or reembed):
        raise click.UsageError(
            f"--dry-run changes nothing, so it cannot be combined with {'--watch' if watch else '--reembed'}."
        )
    if watch and as_json:
        raise click.UsageError(
            "--watch goes on until it is stopped, so it cannot print one JSON value; leave out --json."
        )


def _open(job: _Job, store: Path, *, encoder: str | None) -> Index:
    from ragindex.index import Index

    chosen = {"chunk_tokens": job.chunk_tokens, "overlap": job.overlap, "late_chunking": job.late_chunking}
    settings = settings_for(job.store, chosen)
    if job.is_new:
        from ragindex.encoder import find_checkpoint

        find_checkpoint(encoder or settings.encoder)  # raises: a mistyped encoder must not leave an empty store behind
    return Index.open(store, encoder=encoder, collection=job.collection, settings=settings)


def _run(job: _Job, *, reembed: bool) -> IndexReport:
    with _open(job, job.store, encoder=None if reembed else job.encoder) as index:
        if reembed:
            _reembed(index, job)
        return index.add(
            *job.paths,
            include=job.include,
            exclude=job.exclude,
            allow_delete=job.allow_delete,
            progress=progress_bar(),
        )


def _preview(job: _Job) -> IndexReport:
    if not job.is_new:
        with _open(job, job.store, encoder=job.encoder) as index:
            return index.add(*job.paths, include=job.include, exclude=job.exclude, dry_run=True)
    # Opening makes a store, and a dry run must leave nothing behind.
    with tempfile.TemporaryDirectory() as folder, _open(job, Path(folder) / "store", encoder=job.encoder) as index:
        return index.add(*job.paths, include=job.include, exclude=job.exclude, dry_run=True)


def _watch(job: _Job, *, reembed: bool) -> None:
    with _open(job, job.store, encoder=None if reembed else job.encoder) as index:
        if reembed:
            _reembed(index, job)
        reports = index.watch(*job.paths, include=job.include, exclude=job.exclude, progress=progress_bar())
        _show(next(reports), as_json=False, dry_run=False)
        note("Watching for changes; Ctrl-C ends.")
        try:
            for report in reports:
                _show(report, as_json=False, dry_run=False)
        except KeyboardInterrupt:  # the way to end a watch, so no failure
            note_interrupt("Stopped watching.")


def _reembed(index: Index, job: _Job) -> None:
    assert job.encoder is not None
    result = index.promote(job.encoder, note="ragindex index --reembed", progress=progress_bar())
    for line in promotion_lines(result):
        note(line)


def _show(report: IndexReport, *, as_json: bool, dry_run: bool) -> None:
    if as_json:
        emit_json(report_json(report))
        return
    emit(report_lines(report, dry_run=dry_run))
    for line in failure_lines(report.failed):
        emit(line)

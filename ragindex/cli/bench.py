"""`bench storage`: the ways to keep vectors, compared on the user's own."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ragindex.cli.options import collection_option, json_option, open_index
from ragindex.cli.terminal import emit, emit_json, note, one_line
from ragindex.config import DENSE_INDEXES
from ragindex.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from ragindex.measure.storage import StorageReport

__all__ = ["bench"]

_PICTURE = "storage.png"
_HEADS = ("scheme", "B/vector", "B on disk", "recall@10", "nDCG@10", "median ms", "build s")


@click.group(short_help="Measure on your own data what a choice costs.")
def bench() -> None:
    """Measure on your own data what a choice costs."""


@bench.command(short_help="Compare the ways to keep vectors: quality, size, speed.")
@click.option(
    "--schemes",
    metavar="NAME,…",
    help=f"Only these, with commas between: {', '.join(DENSE_INDEXES[1:])}.",
)
@click.option(
    "--queries", metavar="N", type=click.IntRange(1, 1000), default=200, show_default=True, help="How many to ask."
)
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help=f"Where {_PICTURE} is written; the current folder by default.",
)
@collection_option
@json_option
@click.pass_context
def storage(
    ctx: click.Context, *, schemes: str | None, queries: int, output: Path | None, collection: str, as_json: bool
) -> None:
    """Build every index that `ragindex compact --index` offers from the vectors of the store, in a temporary folder,
    and compare what they find with an exact search.

    Queries are passages of the store's own chunks, encoded as queries; where there is no encoder to do so, they are
    made of the vectors. The table goes to stdout, a picture of it to storage.png. Nothing of the store changes.
    """
    from ragindex.cli.evaluating.watching import TerminalWatch
    from ragindex.measure.storage import measure_storage

    names = [name.strip() for name in schemes.split(",") if name.strip()] if schemes is not None else []
    if schemes is not None and not names:
        raise UsageError("--schemes names none.")
    file = (output or Path()) / _PICTURE
    with open_index(ctx, collection=collection) as index:
        _make_room(file)
        report = measure_storage(index, schemes=names, queries=queries, watch=TerminalWatch())
    picture = _draw(report, file)
    if as_json:
        emit_json(asdict(report) | {"picture": None if picture is None else str(picture)})
    else:
        emit(_lines(report))
        if picture is not None:
            emit(f"Drawn into {one_line(str(picture))}.")


def _make_room(file: Path) -> None:
    """Say before minutes of work that their picture could not be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(file, error) from error
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise _unwritable(file, None)


def _draw(report: StorageReport, file: Path) -> Path | None:
    """The picture, or None where there is nothing to draw with."""
    from ragindex.measure.storage_plot import plot_storage

    try:
        plot_storage(report, file)
    except MissingDependencyError as error:
        note(str(error))
        return None
    except OSError as error:
        raise _unwritable(file, error) from error
    return file


def _unwritable(file: Path, error: OSError | None) -> UsageError:
    why = "it is not allowed" if error is None else error.strerror or str(error)
    return UsageError(f"{file} cannot be written: {why}; choose another folder with --output.")


def _lines(report: StorageReport) -> list[str]:
    rows = [_HEADS]
    rows += [
        (
            row.scheme + (" *" if row.scheme == report.chosen else ""),
            f"{row.memory_bytes:,.0f}",
            f"{row.disk_bytes:,.0f}" if row.disk_bytes else "-",
            f"{row.recall:.4f}",
            f"{row.ndcg:.4f}",
            f"{row.latency_ms:.2f}",
            f"{row.build_seconds:.1f}",
        )
        for row in report.schemes
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(
            [cells[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))]
        )
        for cells in rows
    ]
    source = (
        "passages of the chunks, encoded as queries"
        if report.queries_from == "texts"
        else "vectors moved along the difference of two others, as no encoder could be asked"
    )
    return [
        f"{report.vectors:,} vectors of {report.dimensions} values; {report.queries:,} queries: {source}.",
        "",
        *table,
        "",
        f"* {report.reason}",
    ]

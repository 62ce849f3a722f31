"""`demo`: indexes the sample corpora and answers a few questions about them, so that one sees what to expect."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from ragindex.cli.discovery import STORE_NAME
from ragindex.cli.options import debug_option, settings_for, store_option
from ragindex.cli.progress import progress_bar
from ragindex.cli.render import hit_lines, human_seconds
from ragindex.cli.terminal import Terminal, emit, one_line, terminal_for, wrap
from ragindex.errors import UsageError
from ragindex.resources import resource

if TYPE_CHECKING:
    from ragindex.index import Index

__all__ = ["demo"]


class _Pick(NamedTuple):
    corpus: str
    query: str


# One of each kind: everyday words, an error code, a page of a PDF, code asked for in words, an identifier, a web page.
_PICKS = (
    _Pick("handbook", "q01"),
    _Pick("handbook", "q10"),
    _Pick("handbook", "q28"),
    _Pick("codebase", "q25"),
    _Pick("codebase", "q61"),
    _Pick("science", "q39"),
)


@click.command(short_help="Index the sample corpora and ask them some questions.")
@click.option(
    "--keep", metavar="DIR", type=click.Path(path_type=Path), help="Leave the files and the store in DIR to play with."
)
@store_option
@debug_option
def demo(*, keep: Path | None) -> None:
    """Index the sample corpora and answer some questions about them."""
    terminal = terminal_for(sys.stdout, os.environ)
    with _workplace(keep) as folder:
        from ragindex.index import Index

        corpora = _copy_corpora(folder)
        store = folder / STORE_NAME
        emit(f"Indexing the samples {', '.join(corpora)}; the first run takes up to a minute …")
        with Index.open(store, settings=settings_for(store)) as index:
            report = index.add(*(folder / name for name in corpora), progress=progress_bar())
            files = report.added + report.unchanged
            emit(f"{files:,} files, {report.chunks:,} passages, {human_seconds(report.seconds)}.")
            for pick in _PICKS:
                emit(_answer_lines(index, _question(pick), terminal))
        emit(_next_steps(keep))


@contextmanager
def _workplace(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="ragindex-demo-") as folder:
            yield Path(folder).resolve()
        return
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise UsageError(f"{keep} is not an empty folder; choose another one to keep the demo in.")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep.resolve()


def _copy_corpora(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in resource("sample_corpora").iterdir() if (entry / "corpus").is_dir())
    for name in names:
        shutil.copytree(resource("sample_corpora") / name / "corpus", folder / name)
    return names


def _question(pick: _Pick) -> str:
    file = resource("sample_corpora") / pick.corpus / "queries.jsonl"
    for line in file.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["_id"] == pick.query:
            return str(entry["text"])
    raise UsageError(f"{file} has no query {pick.query!r}; install ragindex again.")


def _answer_lines(index: Index, question: str, terminal: Terminal) -> list[str]:
    command = wrap(f'$ ragindex query "{one_line(question)}" -k 1', terminal.width)
    lines = ["", *(terminal.bold(row) for row in command)]
    hits = index.search(question, k=1)
    if not hits:
        return [*lines, "No hit."]
    return lines + hit_lines(hits[0], query=question, base=index.base, terminal=terminal, rows=3)


def _next_steps(keep: Path | None) -> list[str]:
    here = "ragindex index .                      read the folder you are in"
    lines = ["", "Now with your own files:", f"  {here}", "  ragindex query how do I …              ask it"]
    lines.append("  ragindex query … --context 2000        a cited block to paste into a prompt")
    if keep is None:
        return [*lines, "  ragindex demo --keep DIR               keep these files and this store to play with"]
    return [*lines, f"  ragindex query … --store {keep / STORE_NAME}    ask the demo more"]

"""The files that a measurement leaves behind when asked to: a plot and TREC runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ragindex.errors import UsageError
from ragindex.evaluation.plot import plot_evaluation, require_matplotlib
from ragindex.evaluation.runs import Run, write_run
from ragindex.measure import Answers, Measured

__all__ = ["check_outputs", "write_outputs"]

_AWKWARD = re.compile(r"[^\w.+-]+")


def check_outputs(*, plot: Path | None, run: Path | None) -> None:
    """Refuse what could not be written in the end, before anything is measured.

    Raises UsageError, and MissingDependencyError for a plot without matplotlib.
    """
    for file in (plot, run):
        if file is not None and not file.absolute().parent.is_dir():
            raise UsageError(f"The folder {file.parent} does not exist; make it first.")
    if plot is not None:
        if plot.suffix.lower() != ".png":
            raise UsageError(f"The plot {plot} would be a PNG; end its name in .png.")
        require_matplotlib()


def write_outputs(found: Measured, *, plot: Path | None, run: Path | None) -> None:
    """Write the files. Raises UsageError when one cannot be written."""
    file = plot
    try:
        if plot is not None:
            plot_evaluation(found.report, plot)
        for target in _targets(found.answers, run):
            file = target.file
            write_run(_scored(target.answers), target.file, tag=f"ragindex-{target.answers.mode}")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror or error}.") from error


class _Target(NamedTuple):
    file: Path
    answers: Answers


def _targets(answers: tuple[Answers, ...], file: Path | None) -> Iterator[_Target]:
    """Where each run goes: to `file` itself when there is one only, else what tells it apart is put before the
    ending.
    """
    if file is None:
        return
    keys = [(each.dataset, each.encoder, each.mode) for each in answers]
    telling = [place for place in range(3) if len({key[place] for key in keys}) > 1]
    taken: Counter[str] = Counter()
    for key, each in zip(keys, answers, strict=True):
        name = ".".join([file.stem, *(_AWKWARD.sub("-", key[place]).strip("-") for place in telling)])
        taken[name] += 1
        number = f".{taken[name]}" if taken[name] > 1 else ""  # names that differ in awkward characters only
        yield _Target(file.with_name(f"{name}{number}{file.suffix}"), each)


def _scored(answers: Answers) -> Run:
    """Reciprocal ranks as scores: they give back this very order, where trec_eval would break ties by id."""
    return {
        query: {document: 1.0 / rank for rank, document in enumerate(documents, start=1)}
        for query, documents in answers.rankings.items()
    }

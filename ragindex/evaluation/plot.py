"""A report as a picture: every mode with its interval side by side, differences, correlations, length diagnostics."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ragindex.errors import MissingDependencyError
from ragindex.evaluation.length import LengthBias
from ragindex.evaluation.metrics import METRICS
from ragindex.evaluation.plot_marks import Curve, Row, Series, curves, dots, forest
from ragindex.evaluation.report import (
    LABELS,
    EvalReport,
    Evaluation,
    MeanReport,
    ModeComparison,
    ModeReport,
    StsReport,
)
from ragindex.evaluation.resampling import Estimate
from ragindex.evaluation.significance import PairedDifference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_evaluation", "require_matplotlib"]

_WIDEST_NAME = 28


class _Difference(NamedTuple):
    label: str
    mode: str
    found: PairedDifference


class _Panel(NamedTuple):
    inches: float
    draw: Callable[[Axes], None]


def require_matplotlib() -> None:
    """Raise MissingDependencyError, naming the extra, when matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingDependencyError("Plots need matplotlib; install it with `pip install 'ragindex[train]'`.")


def plot_evaluation(report: Evaluation, file: Path) -> None:
    """Draw a report into a PNG.

    Raises MissingDependencyError without matplotlib, which the extra `train` brings, and OSError when the file cannot
    be written.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    panels = list(_panels(report))
    heights = [panel.inches for panel in panels]
    columns = max(len(report.datasets), len(report.sts)) + 1
    style = {"font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left"}
    with rc_context(style):
        size = (max(9.0, 1.1 * columns), sum(heights))
        figure = Figure(figsize=size, facecolor="white", layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1))
        FigureCanvasAgg(figure)
        rows = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for axes, panel in zip(rows, panels, strict=True):
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_axisbelow(True)
            panel.draw(axes)
        figure.savefig(file, dpi=140, format="png")


def _panels(report: Evaluation) -> Iterator[_Panel]:
    if len(report.datasets) == 1:
        yield from _single(report.datasets[0])
    elif report.datasets:
        yield from _several(report)
    for dataset in report.datasets:
        yield from _length(dataset)
    if report.sts:
        yield _sts([*report.sts, *([report.mean_sts] if report.mean_sts else [])])


def _single(dataset: EvalReport) -> Iterator[_Panel]:
    names = list(METRICS)
    series = _series([dataset], lambda mode: [mode.estimates[name] for name in names], dataset.encoder)
    about = f"{dataset.dataset}: {dataset.documents:,} documents, {dataset.queries:,} queries"
    title = about if dataset.comparison else f"{about}, {_short(dataset.encoder)}"
    labels = [LABELS[name] for name in names]
    yield _Panel(4.4, partial(dots, names=labels, series=series, title=title, unit="mean over queries"))
    if dataset.comparison is not None:
        yield from _differences(
            [
                _Difference(f"{mode}  {LABELS[name]}", mode, each)
                for mode, by_metric in dataset.comparison.differences.items()
                for name, each in by_metric.items()
            ],
            title=_versus(dataset.encoder, dataset.comparison),
        )


def _several(report: Evaluation) -> Iterator[_Panel]:
    parts: list[EvalReport | MeanReport] = [*report.datasets, *([report.mean] if report.mean else [])]
    names = [*(_short(dataset.dataset) for dataset in report.datasets), *(["mean"] if report.mean else [])]
    series = _series(parts, lambda mode: [mode.estimates["ndcg@10"]], report.encoder)
    title = "nDCG@10" if parts[0].comparison else f"nDCG@10, {_short(report.encoder)}"
    yield _Panel(4.4, partial(dots, names=names, series=series, title=title, unit="mean over queries"))
    if parts[0].comparison is not None:
        yield from _differences(
            [
                _Difference(f"{name}  {mode}", mode, by_metric["ndcg@10"])
                for part, name in zip(parts, names, strict=True)
                if part.comparison is not None
                for mode, by_metric in part.comparison.differences.items()
            ],
            title=f"nDCG@10, {_versus(report.encoder, parts[0].comparison)}",
        )


def _series(
    parts: Sequence[EvalReport | MeanReport], points: Callable[[ModeReport], list[Estimate]], encoder: str
) -> list[Series]:
    """For each mode the measured encoder and, where there is one, the other: the points of all parts in a row."""
    result = []
    for mode in parts[0].modes:
        ours = [point for part in parts for point in points(part.modes[mode])]
        compared = [part.comparison for part in parts if part.comparison is not None]
        if not compared:
            result.append(Series(mode, mode, ours))
            continue
        theirs = [point for each in compared for point in points(each.modes[mode])]
        result.append(Series(f"{mode}, {_short(encoder)}", mode, ours))
        result.append(Series(f"{mode}, {_short(compared[0].against)}", mode, theirs, hollow=True))
    return result


def _length(dataset: EvalReport) -> Iterator[_Panel]:
    sides: dict[str, LengthBias] = {}
    if dataset.length is not None:
        sides[_short(dataset.encoder)] = dataset.length
    if dataset.comparison is not None and dataset.comparison.length is not None:
        sides[_short(dataset.comparison.against)] = dataset.comparison.length
    drawn = [
        Curve(f"{name}, {bias.collapse.documents:,} documents", bias.collapse.tokens, bias.collapse.cosines)
        for name, bias in sides.items()
        if bias.collapse is not None
    ]
    if drawn:
        title = f"{_short(dataset.dataset)}: the same documents cut to a length; rising means collapse"
        yield _Panel(3.4, partial(curves, drawn=drawn, title=title, x="tokens", y="mean cosine of pairs"))
    for name, bias in sides.items():
        rows = [
            Row(f"{mode}, {side}", mode, found.correlation)
            for mode, each in bias.retrieval.items()
            for side, found in (("relevant", each.relevant), ("not relevant", each.other))
            if found is not None
        ]
        if rows:
            about = f"{_short(dataset.dataset)}, {name}"
            yield _forest(rows, title=f"{about}: are longer documents found more (+) or less (−) often?")


def _sts(parts: Sequence[StsReport]) -> _Panel:
    encoder, compared = parts[0].encoder, [part.comparison for part in parts if part.comparison is not None]
    series = []
    for kind in parts[0].correlations:
        ours = LABELS[kind] + (f", {_short(encoder)}" if compared else "")
        series.append(Series(ours, kind, [part.correlations[kind] for part in parts]))
        if compared:
            points = [each.correlations[kind] for each in compared]
            series.append(Series(f"{LABELS[kind]}, {_short(compared[0].against)}", kind, points, hollow=True))
    title = "Sentence pairs" if compared else f"Sentence pairs, {_short(encoder)}"
    names = [_short(part.dataset) for part in parts]
    return _Panel(3.8, partial(dots, names=names, series=series, title=title, unit="correlation with people"))


def _forest(rows: Sequence[Row], *, title: str) -> _Panel:
    return _Panel(1.0 + 0.26 * len(rows), partial(forest, rows=rows, title=title))


def _differences(found: Sequence[_Difference], *, title: str) -> Iterator[_Panel]:
    """A panel of what differs; lexical search does not, between encoders that cut text alike."""
    moved = {mode for _, mode, each in found if each.wins or each.losses}
    rows = [Row(label, mode, Estimate(each.difference, each.interval)) for label, mode, each in found if mode in moved]
    if rows:
        yield _forest(rows, title=title)


def _versus(encoder: str, comparison: ModeComparison) -> str:
    return f"{_short(encoder)} minus {_short(comparison.against)}"


def _short(name: str) -> str:
    """A name for a label: the last part of a path, cut when it is long."""
    last = name.rstrip("/").rpartition("/")[2] or name
    return last if len(last) <= _WIDEST_NAME else f"{last[: _WIDEST_NAME - 1]}…"

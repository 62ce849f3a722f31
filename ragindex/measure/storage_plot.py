"""A storage report as a picture: what is found against what it takes in memory, and against what it takes in time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ragindex.evaluation.plot import require_matplotlib
from ragindex.measure.storage import SchemeFigures, StorageReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_storage"]

# Okabe and Ito, "Color Universal Design" (2008); every scheme has a marker of its own besides.
_COLOURS = ("#000000", "#0072B2", "#D55E00", "#56B4E9", "#009E73", "#CC79A7", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_INK, _GRID = "#222222", "#E9E9E9"


def plot_storage(report: StorageReport, file: Path) -> None:
    """Draw a report into a PNG.

    Raises MissingDependencyError without matplotlib, which the extra `train` brings, and OSError when the file cannot
    be written.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    style = {"font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left"}
    with rc_context(style):
        figure = Figure(figsize=(10.5, 4.6), facecolor="white", layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1))
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, sharey=True)
        rows = report.schemes
        _panel(left, rows, [row.memory_bytes for row in rows], x="bytes of memory for a vector")
        _panel(right, rows, [row.latency_ms for row in rows], x="milliseconds for a search, median")
        left.set_ylabel("recall@10 against exact search")
        left.set_title(f"{report.vectors:,} vectors of {report.dimensions} values")
        source = "passages of the chunks" if report.queries_from == "texts" else "made of the vectors"
        right.set_title(f"{report.queries:,} queries, {source}")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        figure.savefig(file, dpi=140, format="png")


def _panel(axes: Axes, rows: Sequence[SchemeFigures], values: Sequence[float], *, x: str) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(visible=True, color=_GRID)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.set_xlabel(x)
    for number, (row, value) in enumerate(zip(rows, values, strict=True)):
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        axes.plot([value], [row.recall], marker=marker, markersize=9, color=colour, linestyle="", label=row.scheme)
        below = number % 2
        axes.annotate(
            row.scheme,
            (value, row.recall),
            xytext=(0, -15 if below else 9),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=_INK,
        )
    axes.margins(x=0.12)
    least = min(row.recall for row in rows)
    axes.set_ylim(max(0.0, least - max(0.01, 0.25 * (1 - least))), 1.0 + max(0.004, 0.2 * (1 - least)))

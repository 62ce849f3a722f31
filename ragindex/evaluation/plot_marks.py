"""The marks that plots of evaluations are made of: points with whiskers, in columns or in rows, and curves with bands.

Colours are those of Okabe and Ito, "Color Universal Design" (2008), which people with any colour vision can tell
apart; every kind has a marker of its own besides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ragindex.evaluation.resampling import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Curve", "Row", "Series", "curves", "dots", "forest"]

_COLOURS: Mapping[str, str] = {
    "dense": "#0072B2",
    "lexical": "#D55E00",
    "hybrid": "#009E73",
    "spearman": "#0072B2",
    "pearson": "#CC79A7",
}
_MARKERS: Mapping[str, str] = {"dense": "o", "lexical": "s", "hybrid": "D", "spearman": "o", "pearson": "s"}
_CURVES = ("#0072B2", "#E69F00")
_INK, _FAINT, _GRID = "#222222", "#767676", "#E9E9E9"
_LABELLED = 24  # more points than this leave no room for their values


class Series(NamedTuple):
    """Points of one kind (a mode, a correlation), one in each column; hollow ones are those of the other encoder."""

    label: str
    kind: str
    points: Sequence[Estimate]
    hollow: bool = False


class Row(NamedTuple):
    """One estimate with its name."""

    label: str
    kind: str
    point: Estimate


class Curve(NamedTuple):
    """Estimates over positive numbers, drawn on a logarithmic scale."""

    label: str
    x: Sequence[int]
    points: Sequence[Estimate]


def dots(axes: Axes, names: Sequence[str], series: Sequence[Series], *, title: str, unit: str) -> None:
    """Columns with names; in each, the series side by side as points with whiskers."""
    step = min(0.2, 0.8 / len(series))
    for place, each in enumerate(series):
        shift = (place - (len(series) - 1) / 2) * step
        for column, point in enumerate(each.points):
            _whisker(axes, column + shift, point, each, label=each.label if column == 0 else "")
            if len(series) * len(names) <= _LABELLED:
                _value(axes, column + shift, point)
    for column in range(1, len(names)):
        axes.axvline(column - 0.5, color=_GRID, linewidth=0.8)
    crowded = sum(map(len, names)) > 90
    axes.set_xticks(range(len(names)), names, rotation=30 if crowded else 0, ha="right" if crowded else "center")
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(min(0.0, *(point.interval.low - 0.05 for each in series for point in each.points)), 1.09)
    axes.set_ylabel(unit)
    axes.grid(visible=True, axis="y", color=_GRID, linewidth=0.8)
    columns = 3 if len(series) > 4 else len(series)
    # The legend stands between the title and the points, where it can hide none of them.
    axes.set_title(title, pad=10 + 17 * -(-len(series) // columns))
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=columns, frameon=False, fontsize=9, columnspacing=1.4
    )


def forest(axes: Axes, rows: Sequence[Row], *, title: str) -> None:
    """One row for each estimate, top down, around a line at 0; filled where the interval leaves 0 out."""
    for place, (_, kind, point) in enumerate(rows):
        low, high = point.interval
        colour = _COLOURS.get(kind, _INK)
        axes.errorbar(
            point.value,
            place,
            xerr=[[max(0.0, point.value - low)], [max(0.0, high - point.value)]],
            fmt=_MARKERS.get(kind, "o"),
            markersize=5.5,
            color=colour,
            markerfacecolor=colour if low > 0 or high < 0 else "white",
            markeredgewidth=1.4,
            elinewidth=1.3,
            capsize=2.5,
        )
    axes.axvline(0.0, color=_FAINT, linewidth=1.0)
    axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=True, axis="x", color=_GRID, linewidth=0.8)
    bounds = [0.0, *(bound for row in rows for bound in row.point.interval)]
    margin = max(0.06 * (max(bounds) - min(bounds)), 0.002)
    axes.set_xlim(min(bounds) - margin, max(bounds) + margin)
    axes.set_title(title)
    axes.set_xlabel("with 95 % interval; filled: the interval leaves 0 out", color=_FAINT, fontsize=9)


def curves(axes: Axes, drawn: Sequence[Curve], *, title: str, x: str, y: str) -> None:
    """Each curve with a band for its intervals."""
    for (label, places, points), colour in zip(drawn, _CURVES, strict=False):
        lows, highs = [point.interval.low for point in points], [point.interval.high for point in points]
        axes.fill_between(places, lows, highs, color=colour, alpha=0.18, linewidth=0)
        axes.plot(places, [point.value for point in points], color=colour, marker="o", markersize=5, label=label)
    ticks = sorted({place for curve in drawn for place in curve.x})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, color=_GRID, linewidth=0.8)
    axes.legend(frameon=False, fontsize=9)


def _whisker(axes: Axes, x: float, point: Estimate, series: Series, *, label: str) -> None:
    low, high = point.interval
    colour = _COLOURS.get(series.kind, _INK)
    axes.errorbar(
        x,
        point.value,
        yerr=[[max(0.0, point.value - low)], [max(0.0, high - point.value)]],
        fmt=_MARKERS.get(series.kind, "o"),
        markersize=6,
        color=colour,
        markerfacecolor="white" if series.hollow else colour,
        markeredgewidth=1.4,
        elinewidth=1.3,
        capsize=2.5,
        label=label or None,
    )


def _value(axes: Axes, x: float, point: Estimate) -> None:
    text = f"{point.value:.2f}".replace("0.", ".", 1).replace("1.00", "1")
    top = max(point.value, point.interval.high)
    above = 3 if top - point.value > 0.02 else 6  # points; a short whisker ends within its marker
    axes.annotate(text, (x, top), xytext=(0, above), textcoords="offset points", ha="center", fontsize=8, color=_INK)

"""A run's log as a picture: loss, learning rate, gradient norm, and what was measured on held-out data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ragindex.errors import TrainingError

__all__ = ["plot_run"]

_KNOWN = ("step", "seconds", "evaluation", "rate", "gradient_norm", "loss", "texts", "tokens")


def plot_run(rows: Sequence[Mapping[str, Any]], file: Path, *, title: str) -> None:
    """Draw the rows of a log into a PNG. Raises TrainingError without matplotlib, which the extra `train` brings."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TrainingError("Plots need matplotlib; install it with `pip install 'ragindex[train]'`.") from error
    steps = [row for row in rows if not row.get("evaluation")]
    measured = [row for row in rows if row.get("evaluation")]
    keys = list(dict.fromkeys(key for row in measured for key in row if key not in _KNOWN))
    panels: list[tuple[str, list[str], Sequence[Mapping[str, Any]]]] = [("loss", ["loss"], steps)]
    # One panel each: a perplexity and an accuracy share no scale.
    panels += [(key.replace("_", " "), [key], measured) for key in keys]
    panels += [("learning rate", ["rate"], steps), ("gradient norm", ["gradient_norm"], steps)]
    figure = Figure(figsize=(8, 2.2 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (label, names, source) in zip(axes, panels, strict=True):
        for name in names:
            points = [(row["step"], row[name]) for row in source if row.get(name) is not None]
            marker = "o" if source is measured else ""
            axis.plot(
                [x for x, _ in points], [y for _, y in points], marker=marker, markersize=3, linewidth=1, label=name
            )
        axis.set_ylabel(label)
        axis.grid(visible=True, alpha=0.3)
        if len(names) > 1:
            axis.legend(fontsize="small", frameon=False)
    axes[0].set_title(title)
    axes[-1].set_xlabel("step")
    figure.savefig(file, dpi=110)

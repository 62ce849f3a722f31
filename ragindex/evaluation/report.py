"""What an evaluation found, as numbers, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ragindex.errors import UsageError
from ragindex.evaluation.metrics import (
    Qrels,
    Rankings,
    average_precision,
    judged,
    ndcg,
    recall,
    reciprocal_rank,
)
from ragindex.evaluation.significance import Interval, mean_interval

__all__ = ["EvalReport", "ModeReport", "evaluate", "table"]


@dataclass(frozen=True, slots=True)
class ModeReport:
    """Means over the judged queries, each in [0, 1]; ci95 is the bootstrap interval of nDCG@10."""

    ndcg_at_10: float
    recall_at_100: float
    mrr_at_10: float
    map_at_100: float
    ci95: Interval

    def as_json(self) -> dict[str, Any]:
        """The object that `ragindex eval --json` prints for a mode."""
        return {
            "ndcg@10": self.ndcg_at_10,
            "recall@100": self.recall_at_100,
            "mrr@10": self.mrr_at_10,
            "map@100": self.map_at_100,
            "ci95": list(self.ci95),
        }


@dataclass(frozen=True, slots=True)
class EvalReport:
    """One data set, searched in one or more modes."""

    dataset: str
    documents: int
    queries: int
    modes: Mapping[str, ModeReport]

    def as_json(self) -> dict[str, Any]:
        """The object that `ragindex eval --json` prints."""
        return {
            "dataset": self.dataset,
            "documents": self.documents,
            "queries": self.queries,
            "modes": {name: mode.as_json() for name, mode in self.modes.items()},
        }


def evaluate(rankings: Rankings, qrels: Qrels) -> ModeReport:
    """Measure ranked document ids, best first, at least 100 of them per query where that many exist.

    Raises UsageError when no query has a relevant document, or a ranking names a document twice.
    """
    if not judged(qrels):
        raise UsageError("No query has a relevant document; there is nothing to measure.")
    gains = ndcg(rankings, qrels, k=10)
    return ModeReport(
        ndcg_at_10=float(gains.mean()),
        recall_at_100=float(recall(rankings, qrels, k=100).mean()),
        mrr_at_10=float(reciprocal_rank(rankings, qrels, k=10).mean()),
        map_at_100=float(average_precision(rankings, qrels, k=100).mean()),
        ci95=mean_interval(gains),
    )


def table(report: EvalReport) -> str:
    """The report as plain text: one line about the data set, one row per mode; no line break at the end."""
    rows: list[tuple[str, ...]] = [("mode", "ndcg@10", "95% interval", "recall@100", "mrr@10", "map@100")]
    for name, mode in report.modes.items():
        interval = f"{mode.ci95.low:.3f}-{mode.ci95.high:.3f}"
        figures = (mode.recall_at_100, mode.mrr_at_10, mode.map_at_100)
        rows.append((name, f"{mode.ndcg_at_10:.3f}", interval, *(f"{figure:.3f}" for figure in figures)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{report.dataset}: {report.documents:,} documents, {report.queries:,} queries"]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)

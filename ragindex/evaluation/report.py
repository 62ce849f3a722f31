"""What an evaluation found, as values and as the JSON of `ragindex eval`.

One data set gives its object, {"dataset", "documents", "queries", "modes", "encoder"}, with "length" and "comparison"
where they were asked for; one file of sentence pairs gives {"dataset", "pairs", "spearman", "pearson", "ci95",
"intervals", "encoder"}, with "comparison". Whenever there are several, the value is {"encoder", "datasets": [...],
"sts": [...], "mean": {"datasets", "sts"}}: both lists hold these objects, both means their average (null for fewer than
two).

"modes" maps a mode to the mean of every metric, "ci95" (of nDCG@10) and "intervals" (of each metric). "comparison"
holds "against", the same figures of that encoder, and "differences": for each mode and metric "difference" (the
encoder minus the one it is held against), "ci95", "p_value", and the queries as "wins", "losses", "ties". "length"
holds "collapse" ("documents", "tokens", "cosine" and "intervals" at each length, "growth" and its "ci95"; or null)
and "retrieval": for each mode "relevant" and "not_relevant", each "correlation", "ci95", "pairs", or null; see
`ragindex.evaluation.length`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragindex.evaluation.length import LengthBias
from ragindex.evaluation.metrics import METRICS, Qrels, Rankings, measured
from ragindex.evaluation.resampling import Estimate, Floats, Interval
from ragindex.evaluation.significance import PairedDifference, mean_intervals, paired_differences
from ragindex.evaluation.sts import Correlation, CorrelationDifference, mean_correlation

__all__ = [
    "LABELS",
    "EvalReport",
    "Evaluation",
    "MeanReport",
    "ModeComparison",
    "ModeReport",
    "PerQuery",
    "StsComparison",
    "StsReport",
    "compare_modes",
    "compare_sts",
    "evaluate",
    "mean_sts",
    "summarise",
]

LABELS: Mapping[str, str] = {
    "ndcg@10": "nDCG@10",
    "recall@10": "recall@10",
    "recall@100": "recall@100",
    "mrr@10": "MRR@10",
    "map@100": "MAP@100",
    "spearman": "Spearman",
    "pearson": "Pearson",
}
"""How metrics are written for people."""

PerQuery = Mapping[str, Mapping[str, Floats]]
"""Values of each judged query, by mode and then by metric; see `ragindex.evaluation.metrics.measured`."""


@dataclass(frozen=True, slots=True)
class ModeReport:
    """Means over the judged queries, each in [0, 1], by the names of `METRICS`."""

    estimates: Mapping[str, Estimate]

    @property
    def ndcg_at_10(self) -> float:
        """Mean nDCG@10."""
        return self.estimates["ndcg@10"].value

    @property
    def recall_at_100(self) -> float:
        """Mean recall@100."""
        return self.estimates["recall@100"].value

    @property
    def mrr_at_10(self) -> float:
        """Mean reciprocal rank, cut at 10."""
        return self.estimates["mrr@10"].value

    @property
    def map_at_100(self) -> float:
        """Mean average precision, cut at 100."""
        return self.estimates["map@100"].value

    @property
    def ci95(self) -> Interval:
        """The interval of nDCG@10."""
        return self.estimates["ndcg@10"].interval

    def as_json(self) -> dict[str, Any]:
        """The object under a mode of `ragindex eval --json`."""
        values = {name: self.estimates[name].value for name in ("ndcg@10", "recall@100", "mrr@10", "map@100")}
        further = {name: estimate.value for name, estimate in self.estimates.items() if name not in values}
        intervals = {name: list(estimate.interval) for name, estimate in self.estimates.items()}
        return {**values, "ci95": list(self.ci95), **further, "intervals": intervals}


@dataclass(frozen=True, slots=True)
class ModeComparison:
    """The same queries answered with another encoder: what it reached, and how much better the measured one is."""

    against: str
    modes: Mapping[str, ModeReport]
    differences: Mapping[str, Mapping[str, PairedDifference]]
    length: LengthBias | None = None

    def as_json(self) -> dict[str, Any]:
        """The object under "comparison"."""
        value: dict[str, Any] = {
            "against": self.against,
            "modes": {name: mode.as_json() for name, mode in self.modes.items()},
            "differences": {
                mode: {name: _difference_json(each) for name, each in by_metric.items()}
                for mode, by_metric in self.differences.items()
            },
        }
        return value if self.length is None else {**value, "length": self.length.as_json()}


@dataclass(frozen=True, slots=True)
class EvalReport:
    """One data set, searched in one or more modes."""

    dataset: str
    documents: int
    queries: int
    modes: Mapping[str, ModeReport]
    encoder: str = ""
    length: LengthBias | None = None
    comparison: ModeComparison | None = None

    def as_json(self) -> dict[str, Any]:
        """The object that `ragindex eval --json` prints for a data set."""
        value: dict[str, Any] = {
            "dataset": self.dataset,
            "documents": self.documents,
            "queries": self.queries,
            "modes": {name: mode.as_json() for name, mode in self.modes.items()},
            "encoder": self.encoder,
        }
        value |= {} if self.length is None else {"length": self.length.as_json()}
        return value if self.comparison is None else {**value, "comparison": self.comparison.as_json()}


@dataclass(frozen=True, slots=True)
class MeanReport:
    """The mean of several data sets, each counting the same however many queries it has."""

    datasets: int
    modes: Mapping[str, ModeReport]
    comparison: ModeComparison | None = None

    def as_json(self) -> dict[str, Any]:
        """The object under "mean"."datasets"."""
        value = {"modes": {name: mode.as_json() for name, mode in self.modes.items()}}
        return value if self.comparison is None else {**value, "comparison": self.comparison.as_json()}


@dataclass(frozen=True, slots=True)
class StsComparison:
    """The same pairs scored by another encoder: what it reached, and how much better the measured one is."""

    against: str
    correlations: Mapping[str, Estimate]
    differences: Mapping[str, CorrelationDifference]

    def as_json(self) -> dict[str, Any]:
        """The object under "comparison"."""
        differences = {
            name: {"difference": each.difference, "ci95": list(each.interval), "p_value": each.p_value}
            for name, each in self.differences.items()
        }
        return {"against": self.against, **_correlations_json(self.correlations), "differences": differences}


@dataclass(frozen=True, slots=True)
class StsReport:
    """One file of sentence pairs, or the mean of several (`pairs` counts them all)."""

    dataset: str
    pairs: int
    correlations: Mapping[str, Estimate]
    encoder: str = ""
    comparison: StsComparison | None = None

    def as_json(self) -> dict[str, Any]:
        """The object that `ragindex eval --json` prints for a file of sentence pairs."""
        value = {
            "dataset": self.dataset,
            "pairs": self.pairs,
            **_correlations_json(self.correlations),
            "encoder": self.encoder,
        }
        return value if self.comparison is None else {**value, "comparison": self.comparison.as_json()}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that was measured with one encoder; the means are None for fewer than two."""

    encoder: str
    datasets: tuple[EvalReport, ...] = ()
    sts: tuple[StsReport, ...] = ()
    mean: MeanReport | None = None
    mean_sts: StsReport | None = None

    def as_json(self) -> dict[str, Any]:
        """The value that `ragindex eval --json` prints."""
        datasets = [each.as_json() for each in self.datasets]
        sts = [each.as_json() for each in self.sts]
        if len(datasets) + len(sts) == 1:
            return (datasets + sts)[0]
        mean = None if self.mean is None else self.mean.as_json()
        mean_sts = None if self.mean_sts is None else self.mean_sts.as_json()
        return {
            "encoder": self.encoder,
            "datasets": datasets,
            "sts": sts,
            "mean": {"datasets": mean, "sts": mean_sts},
        }


def evaluate(rankings: Rankings, qrels: Qrels) -> ModeReport:
    """Measure ranked document ids, best first, at least 100 of them per query where that many exist.

    Raises UsageError when no query has a relevant document, or a ranking names a document twice.
    """
    return summarise([{"": measured(rankings, qrels)}])[""]


def summarise(groups: Sequence[PerQuery]) -> dict[str, ModeReport]:
    """Means with intervals, by mode, over one data set or several with the same modes."""
    tables = [_table(group) for group in groups]
    means = np.mean([table.mean(axis=0) for table in tables], axis=0).tolist()
    estimates = list(map(Estimate, means, mean_intervals(tables)))
    width = len(METRICS)
    return {
        mode: ModeReport(dict(zip(METRICS, estimates[start : start + width], strict=True)))
        for start, mode in zip(range(0, len(estimates), width), groups[0], strict=True)
    }


def compare_modes(groups: Sequence[PerQuery], others: Sequence[PerQuery]) -> dict[str, dict[str, PairedDifference]]:
    """`groups` minus `others`, by mode and metric: the same queries of the same data sets in the same order."""
    differences = paired_differences([_table(other) for other in others], [_table(group) for group in groups])
    width = len(METRICS)
    return {
        mode: dict(zip(METRICS, differences[start : start + width], strict=True))
        for start, mode in zip(range(0, len(differences), width), groups[0], strict=True)
    }


def compare_sts(ours: Mapping[str, Correlation], others: Mapping[str, Correlation], *, against: str) -> StsComparison:
    """`ours` minus `others`, by the name of the correlation."""
    return StsComparison(
        against=against,
        correlations={name: each.estimate() for name, each in others.items()},
        differences={name: each.above(others[name]) for name, each in ours.items()},
    )


def mean_sts(files: Sequence[Mapping[str, Correlation]]) -> dict[str, Correlation]:
    """The mean of each correlation over several files."""
    return {name: mean_correlation([each[name] for each in files]) for name in files[0]}


def _table(group: PerQuery) -> Floats:
    """Queries in rows, modes and within them metrics in columns."""
    return np.stack([by_metric[name] for by_metric in group.values() for name in METRICS], axis=1)


def _difference_json(each: PairedDifference) -> dict[str, Any]:
    return {
        "difference": each.difference,
        "ci95": list(each.interval),
        "p_value": each.p_value,
        "wins": each.wins,
        "losses": each.losses,
        "ties": each.ties,
    }


def _correlations_json(correlations: Mapping[str, Estimate]) -> dict[str, Any]:
    return {
        **{name: each.value for name, each in correlations.items()},
        "ci95": list(correlations["spearman"].interval),
        "intervals": {name: list(each.interval) for name, each in correlations.items()},
    }

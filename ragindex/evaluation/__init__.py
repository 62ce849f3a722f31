"""Measures retrieval: judged data sets, metrics, significance and reports; loads neither encoders nor stores."""

from __future__ import annotations

from ragindex.evaluation.datasets import Dataset, Passage, load_dataset, save_dataset
from ragindex.evaluation.limit import limit_dataset
from ragindex.evaluation.report import EvalReport, Evaluation, ModeReport, evaluate
from ragindex.evaluation.significance import (
    Comparison,
    Interval,
    PairedDifference,
    mean_interval,
    paired_bootstrap,
    paired_differences,
    randomisation_test,
)

__all__ = [
    "Comparison",
    "Dataset",
    "EvalReport",
    "Evaluation",
    "Interval",
    "ModeReport",
    "PairedDifference",
    "Passage",
    "evaluate",
    "limit_dataset",
    "load_dataset",
    "mean_interval",
    "paired_bootstrap",
    "paired_differences",
    "randomisation_test",
    "save_dataset",
]

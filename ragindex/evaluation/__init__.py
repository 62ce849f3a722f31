"""Measures retrieval: judged data sets, metrics, significance and reports; knows neither encoders nor stores."""

from __future__ import annotations

from ragindex.evaluation.datasets import Dataset, Passage, load_dataset, save_dataset
from ragindex.evaluation.limit import limit_dataset
from ragindex.evaluation.report import EvalReport, ModeReport, evaluate, table
from ragindex.evaluation.significance import Comparison, Interval, mean_interval, paired_bootstrap, randomisation_test

__all__ = [
    "Comparison",
    "Dataset",
    "EvalReport",
    "Interval",
    "ModeReport",
    "Passage",
    "evaluate",
    "limit_dataset",
    "load_dataset",
    "mean_interval",
    "paired_bootstrap",
    "randomisation_test",
    "save_dataset",
    "table",
]

"""Measures whole indexes and encoders on judged data, as a user would meet them: same chunks, same fusion, same folding
of documents.
"""

from __future__ import annotations

from ragindex.measure.retrieval import MODES, fill, rank_documents
from ragindex.measure.session import Answers, Measured, SentencePairs, Work, measure
from ragindex.measure.watch import Unwatched, Watch

__all__ = [
    "MODES",
    "Answers",
    "Measured",
    "SentencePairs",
    "Unwatched",
    "Watch",
    "Work",
    "fill",
    "measure",
    "rank_documents",
]

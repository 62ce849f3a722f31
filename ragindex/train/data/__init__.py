"""Training data: examples and where they come from, without repeats, leaks and needless text, cut into batches."""

from __future__ import annotations

from ragindex.train.data.batching import Shard, same_source_batches
from ragindex.train.data.dedupe import deduplicate, deduplicate_texts, duplicate_groups
from ragindex.train.data.documents import (
    DocumentSplit,
    folder_documents,
    parsed_again,
    split_documents,
    store_documents,
)
from ragindex.train.data.examples import Example, read_examples, write_examples
from ragindex.train.data.leakage import EvaluationGuard, Leak
from ragindex.train.data.pairs import PAIR_KINDS, PairOptions, document_pairs, pairs_from_documents
from ragindex.train.data.selection import best_share, score_texts, select_examples, target_similarity

__all__ = [
    "PAIR_KINDS",
    "DocumentSplit",
    "EvaluationGuard",
    "Example",
    "Leak",
    "PairOptions",
    "Shard",
    "best_share",
    "deduplicate",
    "deduplicate_texts",
    "document_pairs",
    "duplicate_groups",
    "folder_documents",
    "pairs_from_documents",
    "parsed_again",
    "read_examples",
    "same_source_batches",
    "score_texts",
    "select_examples",
    "split_documents",
    "store_documents",
    "target_similarity",
    "write_examples",
]

"""Measures a whole index on a judged data set, as a user would meet it: same chunks, same fusion, same folding of
documents.

The data set is indexed into a temporary store, every query is asked in every mode, and chunks are folded to documents
by their best.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ragindex.config import Settings
from ragindex.evaluation import Dataset, EvalReport, evaluate, load_dataset
from ragindex.index import Index
from ragindex.ingest.progress import Progress
from ragindex.types import Document, Mode

__all__ = ["MODES", "evaluate_folder", "rank_documents"]

MODES: tuple[Mode, ...] = ("dense", "lexical", "hybrid")
_DEPTH = 100  # documents per query, as recall@100 and MAP@100 need them


def evaluate_folder(
    directory: Path,
    *,
    modes: Sequence[Mode] | None = None,
    encoder: str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The JSON of `ragindex eval` for a data set directory (BEIR layout, or a `corpus/` folder of files with qrels).

    Raises UsageError for a directory that is no data set, or has no judged query.
    """
    dataset = load_dataset(directory)
    scratch = tempfile.TemporaryDirectory(prefix="ragindex-eval-")
    with scratch as folder, Index.open(Path(folder) / "store", encoder=encoder, settings=settings) as index:
        fill(index, dataset, progress)
        reports = {str(mode): evaluate(rank_documents(index, dataset, mode), dataset.qrels) for mode in modes or MODES}
        documents = int(index.status()["documents"])
    return EvalReport(dataset.name, documents, len(dataset.queries), reports).as_json()


def fill(index: Index, dataset: Dataset, progress: Progress | None) -> None:
    """Put the data set's documents into an index; their ids become paths."""
    if dataset.corpus is not None:
        index.put(
            [Document(path=key, text=text, title=title) for key, (title, text) in dataset.corpus.items()],
            progress=progress,
        )
    elif dataset.files is not None:
        index.add(dataset.files, progress=progress)


def rank_documents(index: Index, dataset: Dataset, mode: Mode) -> Mapping[str, Sequence[str]]:
    """Ranked document ids of every query, best first, at most 100."""
    prefix = "" if dataset.files is None else f"{dataset.files.resolve().as_posix()}/"
    return {
        key: [path.removeprefix(prefix) for path in index.rank_documents(text, k=_DEPTH, mode=mode)]
        for key, text in dataset.queries.items()
    }

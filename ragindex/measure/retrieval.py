"""One encoder on one judged data set: indexed into a temporary store, every query asked in every mode.

Chunks are folded to documents as `Index.rank_documents` does it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ragindex.config import Settings
from ragindex.evaluation import Dataset
from ragindex.evaluation.length import LengthBias, retrieval_bias
from ragindex.evaluation.metrics import Rankings
from ragindex.index import Index
from ragindex.ingest.progress import Progress
from ragindex.measure.length import measure_collapse
from ragindex.measure.watch import Watch, counted
from ragindex.types import Document, IndexReport, Mode

if TYPE_CHECKING:
    from ragindex.encoder import Encoder

__all__ = ["MODES", "Answered", "answer", "fill", "rank_documents"]

MODES: tuple[Mode, ...] = ("dense", "lexical", "hybrid")
_DEPTH = 100  # documents per query, as recall@100 and MAP@100 need them


@dataclass(frozen=True, slots=True)
class Answered:
    """What one encoder made of a data set; `length` where it was asked for."""

    documents: int
    rankings: Mapping[Mode, Rankings]
    length: LengthBias | None


def answer(
    dataset: Dataset,
    *,
    encoder: Encoder,
    modes: Sequence[Mode],
    settings: Settings,
    watch: Watch,
    instruction: str | None = None,
    length_bias: bool = False,
) -> Answered:
    """Index the data set and ask its queries. Raises what `Index` raises."""
    about = f"{dataset.name}, {encoder.name}"
    scratch = tempfile.TemporaryDirectory(prefix="ragindex-eval-")
    with scratch as folder, Index.open(Path(folder) / "store", encoder=encoder, settings=settings) as index:
        report = fill(index, dataset, watch.stage(f"{about}: indexing", "documents"))
        if report.failed:
            watch.note(f"{dataset.name}: {len(report.failed):,} files could not be read and cannot be found.")
        rankings = _ask(index, dataset, modes, instruction, watch.stage(f"{about}: asking", "queries"))
        documents = index.documents()
        length = None
        if length_bias:
            sizes = {_id(dataset, row["path"]): int(row["characters"]) for row in documents}
            length = LengthBias(
                collapse=measure_collapse(index, progress=watch.stage(f"{about}: cutting", "lengths")),
                retrieval={mode: retrieval_bias(rankings[mode], dataset.qrels, sizes) for mode in modes},
            )
    return Answered(len(documents), rankings, length)


def fill(index: Index, dataset: Dataset, progress: Progress | None) -> IndexReport:
    """Put the data set's documents into an index; their ids become paths."""
    if dataset.corpus is None:
        assert dataset.files is not None
        return index.add(dataset.files, progress=progress)
    documents = [Document(path=key, text=text, title=title) for key, (title, text) in dataset.corpus.items()]
    return index.put(documents, progress=progress)


def rank_documents(index: Index, dataset: Dataset, mode: Mode) -> Rankings:
    """Ranked document ids of every query, best first, at most 100."""
    return _ask(index, dataset, [mode], None, None)[mode]


def _ask(
    index: Index, dataset: Dataset, modes: Sequence[Mode], instruction: str | None, progress: Progress | None
) -> dict[Mode, dict[str, list[str]]]:
    result: dict[Mode, dict[str, list[str]]] = {mode: {} for mode in modes}
    queries = dataset.queries.items()
    # A query in all modes at once: the engine remembers the vectors of the last queries only.
    for key, text in queries if progress is None else counted(queries, len(queries), progress):
        for mode in modes:
            asked = bool(text.strip())  # an empty query is no mistake of the system's, and finds nothing
            paths = index.rank_documents(text, k=_DEPTH, mode=mode, instruction=instruction) if asked else []
            result[mode][key] = [_id(dataset, path) for path in paths]
    return result


def _id(dataset: Dataset, path: str) -> str:
    """The document's id in the data set: of a file, its path below the corpus folder."""
    return path if dataset.files is None else path.removeprefix(f"{dataset.files.resolve().as_posix()}/")

"""An encoder adapted to a store or a folder and, if it proved itself, promoted: training and index brought together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragindex.errors import UsageError
from ragindex.evaluation import Dataset, load_dataset
from ragindex.index import Index
from ragindex.types import Document

if TYPE_CHECKING:
    from ragindex.ingest.progress import Progress
    from ragindex.train.adapt import Adaptation, AdaptOptions
    from ragindex.train.objective import Reporter
    from ragindex.train.sharding import Footprint

__all__ = ["adapt_folder", "adapt_store"]

_SCRATCH = "training"  # in the store: an interrupted run goes on from there


def adapt_folder(
    path: Path,
    output: Path,
    *,
    encoder: str = "bundled",
    options: AdaptOptions | None = None,
    judgements: Path | None = None,
    reporter: Reporter | None = None,
    footprint: Footprint | None = None,
) -> dict[str, Any]:
    """Adapt `encoder` to the documents below `path` (files, or a data set in BEIR layout, whose queries are not read);
    the JSON of `ragindex train adapt`.

    `output` receives the candidate whether it won or not; `promoted` says whether it did. footprint: the memory that
    training may take. Raises UsageError and
    TrainingError as `ragindex.train.adapt.adapt` does.
    """
    from ragindex.train.adapt import adapt
    from ragindex.train.data.documents import folder_documents

    documents = _listed(path) if (path / "corpus.jsonl").is_file() else folder_documents(path)
    adaptation = adapt(
        documents,
        encoder,
        output,
        options=options,
        judged=_judged(judgements),
        reporter=reporter,
        footprint=footprint,
    )
    return _as_json(adaptation, encoder=str(output), promoted=adaptation.won)


def adapt_store(
    index: Index,
    *,
    output: Path | None = None,
    options: AdaptOptions | None = None,
    judgements: Path | None = None,
    reporter: Reporter | None = None,
    footprint: Footprint | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Adapt the encoder of a store to its documents, and promote the result if it won: the store is embedded anew
    while the old encoder serves; `Index.rollback` goes back. The JSON of `ragindex train adapt`.

    output: also receives the candidate, whether it won or not. The store is untouched unless it won.
    """
    from ragindex.train.adapt import AdaptOptions, adapt
    from ragindex.train.data.documents import parsed_again

    options = options or AdaptOptions()
    documents = [parsed_again(document) for document in index.iter_documents()]
    present = index.encoder
    target = output or index.store / _SCRATCH / _key(documents, present.fingerprint, options)
    if output is None and (target / "run" / "finished.json").is_file():
        shutil.rmtree(target)  # stopped after its training: the rest is repeated
    adaptation = adapt(
        documents,
        _locator(index),
        target,
        options=options,
        judged=_judged(judgements),
        reporter=reporter,
        footprint=footprint,
    )
    serving = present.name
    if adaptation.won:
        verdict = adaptation.verdicts["pseudo"]
        promotion = index.promote(
            str(target),
            keep=True,
            note=f"adapted: nDCG@10 {verdict.before['dense']:.3f} → {verdict.after['dense']:.3f}",
            progress=progress,
        )
        serving = promotion.encoder
    if output is None:
        shutil.rmtree(index.store / _SCRATCH, ignore_errors=True)
    return _as_json(adaptation, encoder=serving, promoted=adaptation.won)


def _as_json(adaptation: Adaptation, *, encoder: str, promoted: bool) -> dict[str, Any]:
    verdict = adaptation.verdicts["pseudo"]
    table: dict[str, Any] = {
        "promoted": promoted,
        "encoder": encoder,
        "before": _figures(verdict.before),
        "after": _figures(verdict.after),
        "lexical": {"ndcg@10": round(verdict.lexical, 4)},
        "p_value": max(item.gain.p_value for item in adaptation.verdicts.values()),
        "interval": [round(verdict.gain.interval.low, 4), round(verdict.gain.interval.high, 4)],
        "reason": adaptation.reason,
        "questions": verdict.questions,
        "pairs": adaptation.pairs,
        "steps": adaptation.summary.steps,
        "seconds": round(adaptation.seconds, 1),
    }
    if "judged" in adaptation.verdicts:
        judged = adaptation.verdicts["judged"]
        table["judged"] = {
            "questions": judged.questions,
            "before": _figures(judged.before),
            "after": _figures(judged.after),
            "lexical": {"ndcg@10": round(judged.lexical, 4)},
            "p_value": judged.gain.p_value,
        }
    return table


def _figures(means: Mapping[str, float]) -> dict[str, float]:
    return {"ndcg@10": round(means["dense"], 4), "hybrid_ndcg@10": round(means["hybrid"], 4)}


def _judged(directory: Path | None) -> Dataset | None:
    return None if directory is None else load_dataset(directory)


def _listed(directory: Path) -> Iterable[Document]:
    """The documents of a data set in BEIR layout. Its queries and judgements are not looked at."""
    file = directory / "corpus.jsonl"
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                yield Document(path=str(row["_id"]), text=str(row["text"]), title=str(row.get("title") or ""))
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(f"{file}:{number} is no document with _id and text.") from error


def _locator(index: Index) -> str:
    """The name by which the serving encoder loads from anywhere."""
    name = index.encoder.name
    return name if name == "bundled" else str(Path(name).expanduser())


def _key(documents: Iterable[Document], fingerprint: str, options: AdaptOptions) -> str:
    """Another corpus, encoder or option is another run; the same ones go on with an interrupted one."""
    digest = blake2b(digest_size=8)
    digest.update(json.dumps([fingerprint, asdict(options)]).encode())
    for document in documents:
        digest.update(f"{document.path}\0{document.sha256 or document.text}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()

"""Judged data sets in the BEIR layout, and BM25 over their documents, for the benchmarks of quality."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ragindex.evaluation import Dataset

_DEPTH = 100
_SMOOTH = 60


def names_of(folder: Path, chosen: str | None) -> list[str]:
    """The sets to use: those named, separated by commas, or all of the folder."""
    return chosen.split(",") if chosen else sorted(file.parent.name for file in folder.glob("*/queries.jsonl*"))


def sampled(dataset: Dataset, count: int | None) -> Dataset:
    """The data set with at most `count` of its queries, the same ones every time."""
    if count is None or len(dataset.queries) <= count:
        return dataset
    chosen = set(random.Random(0).sample(sorted(dataset.queries), count))
    return replace(
        dataset,
        queries={key: text for key, text in dataset.queries.items() if key in chosen},
        qrels={key: judged for key, judged in dataset.qrels.items() if key in chosen},
    )


def bm25s_rankings(dataset: Dataset) -> Mapping[str, Sequence[str]]:
    """Document ids by query, from bm25s over whole documents. Ones without a common word are no results."""
    import bm25s
    import Stemmer

    texts = passages(dataset)
    ids = list(texts)
    stemmer = Stemmer.Stemmer("english")
    retriever = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    tokens = bm25s.tokenize(list(texts.values()), stopwords="en", stemmer=stemmer, show_progress=False)
    retriever.index(tokens, show_progress=False)
    asked = bm25s.tokenize(list(dataset.queries.values()), stopwords="en", stemmer=stemmer, show_progress=False)
    found, scores = retriever.retrieve(asked, k=min(_DEPTH, len(ids)), show_progress=False)
    return {
        key: [ids[place] for place, score in zip(places, own, strict=True) if score > 0]
        for key, places, own in zip(dataset.queries, found, scores, strict=True)
    }


def reciprocal_rank_fusion(*lists: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    """Rankings of the same queries fused by 1 / (60 + rank) (Cormack, Clarke and Büttcher, SIGIR 2009), as frameworks
    do it.
    """
    fused = {}
    for key in lists[0]:
        scores: dict[str, float] = {}
        for ranked in lists:
            for rank, name in enumerate(ranked[key], 1):
                scores[name] = scores.get(name, 0.0) + 1 / (_SMOOTH + rank)
        fused[key] = sorted(scores, key=lambda name: (-scores[name], name))
    return fused


def passages(dataset: Dataset) -> Mapping[str, str]:
    """Title and text of each document, as one string."""
    if dataset.corpus is not None:
        return {key: f"{title} {text}".strip() for key, (title, text) in dataset.corpus.items()}
    assert dataset.files is not None
    files = sorted(path for path in dataset.files.rglob("*") if path.is_file())
    return {
        file.relative_to(dataset.files).as_posix(): file.read_text(encoding="utf-8", errors="replace") for file in files
    }

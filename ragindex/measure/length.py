"""The same documents cut to ever longer beginnings and encoded, for the diagnostic of length collapse."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ragindex.evaluation.length import Collapse, collapse
from ragindex.ingest.progress import Progress
from ragindex.measure.watch import counted

if TYPE_CHECKING:
    from ragindex.index import Index

__all__ = ["measure_collapse"]

_SHORTEST = 16  # tokens; longer cuts double it
_LOOKED_AT = 1024  # documents whose length is counted
_ENCODED = 256  # documents that are cut and encoded
_ENOUGH = 30  # fewer documents say little about the others
_CHARACTERS = 16  # no more of them are read for a token


def measure_collapse(index: Index, *, progress: Progress, seed: int = 0) -> Collapse | None:
    """Mean cosine between a seeded sample of documents, cut to 16, 32, 64, … tokens.

    The longest cut is the longest that the encoder reads whole and at least 30 of the documents fill; all of the
    sample fill it. None when that is the shortest one.
    """
    encoder = index.encoder
    room = encoder.max_tokens - encoder.document_overhead("")
    texts = _sampled((document.text[: room * _CHARACTERS] for document in index.iter_documents()), seed)
    ends = [encoder.tokenizer.offsets(text)[:, 1] for text in texts]
    sizes = np.array([len(end) for end in ends])
    cuts = [_SHORTEST]
    while cuts[-1] * 2 <= room and np.count_nonzero(sizes >= cuts[-1] * 2) >= _ENOUGH:
        cuts.append(cuts[-1] * 2)
    if len(cuts) < 2:
        return None
    chosen = np.flatnonzero(sizes >= cuts[-1])[:_ENCODED].tolist()
    return collapse(
        {
            cut: encoder.encode_documents([texts[place][: int(ends[place][cut - 1])] for place in chosen])
            for cut in counted(cuts, len(cuts), progress)
        }
    )


def _sampled(texts: Iterable[str], seed: int) -> list[str]:
    """Some of the texts in random order, each with the same chance; only they are held in memory."""
    generator = random.Random(seed)  # noqa: S311 (a sample, not secrets)
    kept: list[str] = []
    for seen, text in enumerate(texts):
        if seen < _LOOKED_AT:
            kept.append(text)
        elif (place := generator.randrange(seen + 1)) < _LOOKED_AT:
            kept[place] = text
    generator.shuffle(kept)
    return kept

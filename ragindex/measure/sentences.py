"""One encoder on pairs of sentences: how alike it finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ragindex.evaluation.clipping import clipped_queries
from ragindex.evaluation.resampling import Floats
from ragindex.evaluation.sts import StsPairs
from ragindex.ingest.progress import Progress
from ragindex.measure.watch import counted

if TYPE_CHECKING:
    from ragindex.encoder import Encoder

__all__ = ["cosines"]

_BATCH = 512


def cosines(encoder: Encoder, pairs: StsPairs, *, progress: Progress, instruction: str | None = None) -> Floats:
    """The cosine of each pair, (n,).

    Both sides are encoded as queries, as nothing tells them apart: that is how E5 (arXiv 2212.03533) and LLM2Vec
    (arXiv 2404.05961) are measured. instruction: None is none at all, as an encoder's default one is for retrieval.
    A sentence is cut to what the encoder reads.
    """
    told = instruction or ""
    sentences = list(dict.fromkeys((*pairs.left, *pairs.right)))
    vectors = np.empty((len(sentences), encoder.dimensions), np.float32)
    starts = range(0, len(sentences), _BATCH)
    for start in counted(starts, len(starts), progress):
        texts = clipped_queries(encoder, sentences[start : start + _BATCH], instruction=told)
        vectors[start : start + _BATCH] = encoder.encode_queries(texts, instruction=told)
    places = {sentence: place for place, sentence in enumerate(sentences)}
    left = vectors[[places[sentence] for sentence in pairs.left]].astype(np.float64)
    right = vectors[[places[sentence] for sentence in pairs.right]].astype(np.float64)
    result: Floats = np.einsum("nd,nd->n", left, right)
    return result

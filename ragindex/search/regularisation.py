"""Scores of passages brought nearer to those of their like. Pure.

Passages that say the same answer the same questions (the cluster hypothesis: Jardine and van Rijsbergen, 1971), so one
that ranks high among others that rank low is more often there by chance. Score regularisation (Diaz, "Regularizing ad
hoc retrieval scores", CIKM 2005) by one step over the similarities of the candidates.
"""

from __future__ import annotations

import numpy as np

from ragindex.store.rows import Float32Array

__all__ = ["regularised"]

_SHARPNESS = 1.5  # how much more a passage counts that is one standard deviation more alike, as a power of e
_FEWEST = 3  # below which nothing can be said of who is more alike


def regularised(scores: Float32Array, vectors: Float32Array, *, share: float) -> Float32Array:
    """New scores (n,) from scores (n,) and vectors (n, d) of length 1: each is `share` the mean of the others,
    weighted by likeness. Likeness is standardised for each passage, so that it matters little how near to each other an
    encoder puts everything.
    """
    if len(scores) < _FEWEST or share == 0:
        return scores
    others = ~np.eye(len(scores), dtype=bool)
    alike = (vectors @ vectors.T)[others].reshape(len(scores), -1)
    alike = alike - alike.mean(axis=1, keepdims=True)
    weights = np.exp(_SHARPNESS * alike / np.maximum(alike.std(axis=1, keepdims=True), 1e-6))
    theirs = np.broadcast_to(scores, (len(scores), len(scores)))[others].reshape(alike.shape)
    mean = (weights * theirs).sum(axis=1) / weights.sum(axis=1)
    return np.asarray((1 - share) * scores + share * mean, np.float32)

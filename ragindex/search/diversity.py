"""Maximal marginal relevance: hits that answer, but not all the same way."""

from __future__ import annotations

import numpy as np

from ragindex.store.rows import Float32Array

__all__ = ["diversified"]


def diversified(
    scores: Float32Array, vectors: Float32Array, *, diversity: float, count: int, scaled: bool = True
) -> list[int]:
    """Indices of `count` candidates in the order of their choice.

    Each next one maximises (1 - diversity) * score - diversity * (largest cosine to those chosen), with scores scaled
    to [0, 1] (Carbonell and Goldstein, SIGIR 1998). scores: (n,), best first; vectors: (n, d), unit norm; diversity
    in [0, 1]; scaled: off for scores that are cosines themselves and are to be weighed against them as they are.
    """
    span = float(scores.max() - scores.min()) if len(scores) else 0.0
    relevance = np.asarray(scores, np.float64)
    if scaled:
        relevance = (scores - scores.min()) / span if span > 0 else np.ones(len(scores))
    # Cosines below 0 count as far enough apart, unless everything is weighed as it is.
    nearest = np.full(len(scores), 0.0 if scaled else -1.0)
    chosen: list[int] = []
    free = np.ones(len(scores), dtype=bool)
    while len(chosen) < min(count, len(scores)):
        value = (1.0 - diversity) * relevance - diversity * nearest
        pick = int(np.argmax(np.where(free, value, -np.inf)))
        chosen.append(pick)
        free[pick] = False
        nearest = np.maximum(nearest, vectors @ vectors[pick])
    return chosen

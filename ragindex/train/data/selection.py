"""Picks the training text that is most like what the encoder will be used for.

Benchmark-targeted ranking (BETR; Mizrahi et al., arXiv 2507.12466) embeds target examples and candidates in one space,
scores each candidate by its similarity to the targets and trains on the best share. The paper scores a sample and
teaches a classifier to score the rest of a web-sized corpus; here every candidate is embedded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ragindex.errors import TrainingError, UsageError
from ragindex.train.data.examples import Example

__all__ = ["best_share", "score_texts", "select_examples", "target_similarity"]

Vectors = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Vectors]

_TEXTS = 1024  # candidates in memory as vectors
_TARGETS = 4096  # targets that a batch of candidates is held against at a time


def select_examples(
    examples: Sequence[Example],
    targets: Sequence[str],
    *,
    encode: Encode,
    share: float,
    by: Literal["query", "positive"] = "query",
    top: int = 1,
) -> list[Example]:
    """The `share` of the examples that is most like the targets, in their order.

    targets: queries to judge examples by their query, or texts of a corpus to judge them by their positive. `encode`
    gives the vectors (n, d) of texts; `top` as in `target_similarity`. Raises UsageError for a share that is not above
    0 and at most 1.
    """
    texts = (example.query if by == "query" else example.positive for example in examples)
    scores = score_texts(texts, encode(targets) if targets else np.zeros((0, 0), np.float32), encode=encode, top=top)
    return [examples[index] for index in best_share(scores, share)]


def score_texts(texts: Iterable[str], targets: Vectors, *, encode: Encode, top: int = 1) -> NDArray[np.float32]:
    """The similarity of each text to the targets (m, d), (n,); 1,024 texts are embedded and held at a time."""
    scores = [target_similarity(encode(batch), targets, top=top) for batch in _batches(texts)]
    return np.concatenate(scores) if scores else np.zeros(0, np.float32)


def target_similarity(candidates: Vectors, targets: Vectors, *, top: int = 1) -> NDArray[np.float32]:
    """For each candidate (n, d) the mean cosine to the `top` targets (m, d) that are nearest to it, (n,).

    With 1 a candidate needs a single target that is like it, so that rare targets are served too; more are steadier
    against odd targets. Raises TrainingError when there are no targets, UsageError for a `top` below 1.
    """
    if not len(targets):
        raise TrainingError("There are no target texts to select training text by; give queries or documents.")
    if top < 1:
        raise UsageError(f"top is {top}; it must be at least 1.")
    top = min(top, len(targets))
    left, right = _unit(candidates), _unit(targets)
    nearest = np.full((len(left), 0), -np.inf, np.float32)
    for start in range(0, len(right), _TARGETS):
        nearest = np.concatenate([nearest, left @ right[start : start + _TARGETS].T], axis=1)
        if nearest.shape[1] > top:
            nearest = np.partition(nearest, -top, axis=1)[:, -top:]
    mean: NDArray[np.float32] = nearest.mean(axis=1)
    return mean


def best_share(scores: NDArray[np.float32], share: float) -> list[int]:
    """The indices of the best `share` of the scores, ascending; at least one, and of equals the first.

    Raises UsageError for a share that is not above 0 and at most 1.
    """
    if not 0 < share <= 1:
        raise UsageError(f"The share to select is {share}; it must be above 0 and at most 1.")
    count = math.ceil(share * len(scores))
    chosen: list[int] = np.sort(np.argsort(-scores, kind="stable")[:count]).tolist()
    return chosen


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
    return unit


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    source = iter(texts)
    while batch := list(islice(source, _TEXTS)):
        yield batch

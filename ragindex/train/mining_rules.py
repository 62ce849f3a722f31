"""The rules of mining as functions: how near a negative may be, when two texts are one, how scores are joined."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from ragindex.errors import UsageError
from ragindex.store.analysis import words

__all__ = ["PART", "MiningOptions", "ScoreKind", "Values", "drawn", "overlap", "score_limit", "soft_scores"]

ScoreKind = Literal["dense", "guide", "soft"]
Values = npt.NDArray[np.float64]

PART = 0.5  # overlap from which one text is taken for a part of the other
_GRAM = 5  # words


@dataclass(frozen=True, slots=True)
class MiningOptions:
    """What is looked for.

    negatives: how many an example shall have, those it brings along included; depth: results of a ranking; skip: so
    many of the hardest candidates are passed over, whatever else is wrong with them; lexical: ask words as well as
    vectors.
    share, margin, limit: rules for a candidate's cosine, see `score_limit`; None is no rule.
    guide_margin: by how much the guide must find the positive nearer. other_documents: none of the positive's document.
    temperature: 0 takes the hardest; above, see `drawn`.
    scores: what `Example.scores` is to hold, for distillation; "dense": the encoder's cosines, "guide": the guide's,
    "soft": `soft_scores` of both and of BM25.
    """

    negatives: int = 4
    depth: int = 100
    skip: int = 0
    lexical: bool = True
    share: float | None = 0.95
    margin: float | None = None
    limit: float | None = None
    guide_margin: float = 0.0
    other_documents: bool = False
    temperature: float = 0.0
    scores: ScoreKind | None = None
    seed: int = 7

    def __post_init__(self) -> None:
        if self.negatives < 1 or self.depth < 1 or self.skip < 0:
            raise UsageError("Mining needs at least 1 negative and a depth of 1, and cannot skip fewer than 0.")
        if self.skip >= self.depth:
            raise UsageError(
                f"Skipping {self.skip} candidates at a depth of {self.depth} leaves none; raise the depth."
            )
        if self.share is not None and not 0 < self.share <= 1:
            raise UsageError(f"The share of the positive's score is {self.share}; it must be above 0 and at most 1.")
        if not self.temperature >= 0:
            raise UsageError(f"The temperature is {self.temperature}; it must not be negative.")
        if self.seed < 0:
            raise UsageError(f"The seed is {self.seed}; it must not be negative.")


def score_limit(positive: float, options: MiningOptions) -> float:
    """The cosine below which a candidate may be a negative, given the positive's: the least of

        share * positive      TopK-PercPos, the best of NV-Retriever (arXiv 2407.15831) with 0.95
        positive - margin     TopK-MarginPos
        limit                 TopK-Abs

    as far as they are asked for. A positive with a cosine below 0 has its limit below itself, too.
    """
    limits = [np.inf]
    if options.share is not None:
        limits.append(positive - (1 - options.share) * abs(positive))
    if options.margin is not None:
        limits.append(positive - options.margin)
    if options.limit is not None:
        limits.append(options.limit)
    return float(min(limits))


def overlap(one: str, other: str) -> float:
    """The share of the shorter text's distinct word 5-grams that the other text holds; case and punctuation aside.

    A text of fewer words is one gram.
    """
    first, second = _grams(one), _grams(other)
    return len(first & second) / min(len(first), len(second))


def soft_scores(scores: npt.NDArray[np.floating]) -> Values:
    """One score (n,) from those of several scorers (s, n), NaN where one does not know a text.

    Each row is brought to mean 0 and deviation 1 over what it knows; the result is the mean of what is known of a
    column. So cosines and BM25 can stand in one soft label, as lexical, dense and reranker's scores do in
    LG-ANNA-Embedding (arXiv 2506.07438).
    """
    known = ~np.isnan(scores)
    values = np.where(known, scores, 0.0).astype(np.float64)
    count = np.maximum(known.sum(axis=1, keepdims=True), 1)
    centred = np.where(known, values - values.sum(axis=1, keepdims=True) / count, 0.0)
    spread = np.sqrt((centred**2).sum(axis=1, keepdims=True) / count)
    standard = centred / np.where(spread > 1e-6, spread, 1.0)  # less is rounding, not an opinion
    return np.asarray(standard.sum(axis=0) / np.maximum(known.sum(axis=0), 1))


def drawn(hardness: Values, *, temperature: float, seed: tuple[int, int]) -> npt.NDArray[np.int64]:
    """All places of `hardness` (n,) in the order in which they are to be tried: hardest first, or at random.

    Above 0 they are drawn by softmax(hardness / temperature) without being put back; infinity draws evenly. Adding
    Gumbel noise and sorting does it in one go (Kool et al., arXiv 1903.06059).
    """
    if temperature == 0:
        return np.argsort(-hardness, kind="stable")
    noise = np.random.default_rng(seed).gumbel(size=len(hardness))
    return np.argsort(-(hardness / temperature + noise), kind="stable")


@lru_cache(maxsize=1 << 14)  # a text is compared with many others
def _grams(text: str) -> frozenset[tuple[str, ...]]:
    found = words(text) or text.split()  # characters and pairs of them in scripts without spaces
    return frozenset(tuple(found[start : start + _GRAM]) for start in range(max(1, len(found) - _GRAM + 1)))

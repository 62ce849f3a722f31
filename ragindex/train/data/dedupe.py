"""Removes exact and near duplicates, from examples and from plain texts; the first of a group stays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ragindex.errors import UsageError
from ragindex.train.data.examples import Example
from ragindex.train.data.keys import text_key
from ragindex.train.data.minhash import near_duplicate_groups

__all__ = ["deduplicate", "deduplicate_texts", "duplicate_groups"]


def deduplicate(examples: Sequence[Example], *, threshold: float | None = 0.8) -> list[Example]:
    """The examples without repeats, in their order.

    One repeats another when both its query and its positive do: many queries may ask for one passage. `threshold` as
    in `duplicate_groups`.
    """
    queries = duplicate_groups([example.query for example in examples], threshold=threshold)
    positives = duplicate_groups([example.positive for example in examples], threshold=threshold)
    return [examples[index] for index in _firsts(list(zip(queries.tolist(), positives.tolist(), strict=True)))]


def deduplicate_texts(texts: Sequence[str], *, threshold: float | None = 0.8) -> list[int]:
    """The indices of the texts that repeat none before them, ascending. `threshold` as in `duplicate_groups`."""
    return _firsts(duplicate_groups(texts, threshold=threshold).tolist())


def duplicate_groups(texts: Sequence[str], *, threshold: float | None = 0.8) -> NDArray[np.int64]:
    """For each text the index of the first text of its group, (n,).

    Texts with the same words in the same order are one group, whatever their case and punctuation (`keys.folded`).
    With a `threshold` in (0, 1], texts whose word 5-grams have that Jaccard similarity are too, as far as MinHash finds
    them (`minhash.near_duplicate_groups`); None asks for exact repeats only.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise UsageError(f"The threshold for near duplicates is {threshold}; it must be above 0 and at most 1.")
    seen: dict[bytes, int] = {}
    exact = np.array([seen.setdefault(text_key(text), index) for index, text in enumerate(texts)], np.int64)
    if threshold is None:
        return exact
    distinct = np.flatnonzero(exact == np.arange(len(texts)))
    near = distinct[near_duplicate_groups([texts[index] for index in distinct.tolist()], threshold=threshold)]
    place = np.zeros(len(texts), np.int64)
    place[distinct] = near
    groups: NDArray[np.int64] = place[exact]
    return groups


def _firsts(groups: Sequence[object]) -> list[int]:
    seen: set[object] = set()
    kept = []
    for index, group in enumerate(groups):
        if group not in seen:
            seen.add(group)
            kept.append(index)
    return kept

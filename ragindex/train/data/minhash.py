"""Finds texts that nearly repeat each other: MinHash over word 5-grams, candidates from banded signatures.

Broder, "On the resemblance and containment of documents" (1997): the share of equal minima of two texts under random
permutations of their grams estimates the Jaccard similarity of the gram sets. Bands of a signature that agree make a
candidate pair (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", ch. 3), which is then judged by the whole
signature.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ragindex.train.data.keys import folded

__all__ = ["near_duplicate_groups"]

_GRAM = 5  # words
_FUNCTIONS = 128
_RECALL = 0.9  # of the pairs at the threshold that the bands must make candidates
_SLICE = 1 << 18  # words whose grams are in memory at a time
_PAIRS = 1 << 14  # candidate pairs that are judged at a time

_U64 = NDArray[np.uint64]
_U32 = NDArray[np.uint32]
_Indices = NDArray[np.int64]


def near_duplicate_groups(texts: Sequence[str], *, threshold: float = 0.8) -> _Indices:
    """For each text the index of the first text of its group, (n,).

    Texts are grouped when the estimated Jaccard similarity of their word 5-grams is at least `threshold` (standard
    error 0.035 at 0.8), and so are the neighbours of neighbours. Case and punctuation do not count; a text of fewer
    than five words is one gram. Memory: 512 bytes a text. The answer depends on nothing but the texts.
    """
    if not len(texts):
        return np.zeros(0, np.int64)
    signatures = np.concatenate([_signatures(words, lengths) for words, lengths in _slices(texts)])
    return _connected(len(texts), _similar_pairs(signatures, threshold))


def _slices(texts: Sequence[str]) -> Iterator[tuple[_U64, _Indices]]:
    """The words of some consecutive texts, as numbers end to end, and how many words each text has (at least one)."""
    vocabulary: dict[str, int] = {}
    words: list[int] = []
    lengths: list[int] = []
    for text in texts:
        found = folded(text).split() or [""]
        words.extend([vocabulary.setdefault(word, len(vocabulary)) for word in found])
        lengths.append(len(found))
        if len(words) >= _SLICE:
            yield np.array(words, np.uint64), np.array(lengths, np.int64)
            words, lengths = [], []
    if lengths:
        yield np.array(words, np.uint64), np.array(lengths, np.int64)


def _signatures(words: _U64, lengths: _Indices) -> _U32:
    """Minima of the grams of each text under `_FUNCTIONS` hash functions, (texts, functions)."""
    ends = np.cumsum(lengths)
    starts = ends - lengths
    mixed = _mixed(words)
    # A gram at each word: the word, then the ones after it as far as the text goes.
    last = np.repeat(ends, lengths)
    grams = mixed.copy()
    here = np.arange(len(words))
    for step in range(1, _GRAM):
        inside = here + step < last
        grams[inside] = grams[inside] * np.uint64(0x9E3779B97F4A7C15) + mixed[here[inside] + step]
    # The last four words of a text begin no whole gram; in a text this short the first one is all there is.
    whole = (here + _GRAM <= last) | (here == np.repeat(starts, lengths))
    grams = _mixed(grams[whole])
    counts = np.add.reduceat(whole.astype(np.int64), starts)
    firsts = np.cumsum(counts) - counts
    generator = np.random.default_rng(5)
    factors = generator.integers(0, 1 << 63, _FUNCTIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = generator.integers(0, 1 << 63, _FUNCTIONS, dtype=np.uint64)
    signatures = np.empty((len(lengths), _FUNCTIONS), np.uint32)
    for column, (factor, offset) in enumerate(zip(factors, offsets, strict=True)):
        hashed = ((grams * factor + offset) >> np.uint64(32)).astype(np.uint32)
        signatures[:, column] = np.minimum.reduceat(hashed, firsts)
    return signatures


def _mixed(values: _U64) -> _U64:
    """A bijection that makes neighbouring numbers unlike each other (the finaliser of splitmix64)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _similar_pairs(signatures: _U32, threshold: float) -> Iterator[tuple[_Indices, _Indices]]:
    """Pairs of similar texts, band by band. In a bucket each text is held against the first and the one before it, so
    that a bucket of a thousand repeats costs a thousand comparisons and not half a million.
    """
    width = _band_width(threshold)
    for first_column in range(0, _FUNCTIONS, width):
        keys = np.zeros(len(signatures), np.uint64)
        for column in range(first_column, first_column + width):
            keys = _mixed(keys ^ signatures[:, column].astype(np.uint64))
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        fresh = np.concatenate([[True], ordered[1:] != ordered[:-1]])
        if fresh.all():
            continue
        first = order[np.maximum.accumulate(np.where(fresh, np.arange(len(order)), 0))]
        repeats = np.flatnonzero(~fresh)
        for left in (first[repeats], order[repeats - 1]):
            right = order[repeats]
            similar = _agreement(signatures, left, right) >= threshold
            yield left[similar], right[similar]


def _band_width(threshold: float) -> int:
    """Functions in a band, as many as recall allows: wide bands make few candidates of unlike texts. At 0.8 it is 8,
    which makes candidates of 95 % of the pairs at the threshold and of 6 % of those at 0.5.
    """
    widths = (16, 8, 4, 2)
    return next((each for each in widths if 1 - (1 - threshold**each) ** (_FUNCTIONS // each) >= _RECALL), 1)


def _agreement(signatures: _U32, left: _Indices, right: _Indices) -> NDArray[np.float64]:
    """The share of functions on which the texts of each pair agree, (pairs,)."""
    parts = np.split(np.arange(len(left)), range(_PAIRS, len(left), _PAIRS))
    return np.concatenate([(signatures[left[part]] == signatures[right[part]]).mean(1) for part in parts])


def _connected(count: int, pairs: Iterator[tuple[_Indices, _Indices]]) -> _Indices:
    parents = list(range(count))

    def root(node: int) -> int:
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for left, right in pairs:
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            low, high = sorted((root(one), root(other)))
            parents[high] = low
    return np.array([root(node) for node in range(count)], np.int64)

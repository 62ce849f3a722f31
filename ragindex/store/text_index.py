"""The protocol of a lexical index, and a small in-memory BM25 double."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from ragindex.store.rows import Float32Array, IdArray, TextEntry
from ragindex.store.vector_index import Scored, best
from ragindex.store.word_order import order_gains

__all__ = ["MemoryTextIndex", "TextEntry", "TextIndex", "bm25_ceiling", "rarity"]

# Robertson and Zaragoza (2009), "The Probabilistic Relevance Framework"; the constants that tantivy uses.
_K1 = 1.2
_B = 0.75


@runtime_checkable
class TextIndex(Protocol):
    """Ranked full-text search; ids are chunk ids. The query is plain words: it has no syntax and never raises for
    its content.
    """

    def add(self, entries: Sequence[TextEntry]) -> None:
        """Put chunks; one whose id is present is replaced."""

    def remove(self, ids: IdArray) -> None:
        """Forget ids; unknown ones are ignored."""

    def search(self, query: str, k: int, allowed: IdArray | None = None) -> Scored:
        """The k best chunks that share a word with `query` among `allowed` (ascending ids; None: all)."""

    def ceiling(self, query: str) -> float:
        """What a chunk would score that held every word of `query` without end: the limit of BM25; 0 for no words.

        A word that no chunk holds counts as the rarest there is.
        """

    def order_gains(self, query: str, texts: Sequence[str]) -> Float32Array:
        """What each text (n,) gains, on the scale of `search`, by holding words of `query` in the same order."""

    def __len__(self) -> int: ...


def bm25_ceiling(terms: Mapping[str, float], holders: Mapping[str, int], total: int) -> float:
    """The limit of BM25 for words (with what they count in the query), each held by `holders` of `total` chunks."""
    return sum(count * rarity(holders[term], total) * (_K1 + 1) for term, count in terms.items())


def rarity(holders: int, total: int) -> float:
    """The inverse document frequency of a word, as BM25 has it, that `holders` of `total` chunks hold."""
    return math.log(1 + (total - holders + 0.5) / (holders + 0.5))


class MemoryTextIndex:
    """A TextIndex over Python dictionaries: BM25 of the body only."""

    def __init__(self, terms: Callable[[str], list[str]] | None = None) -> None:
        self._terms = terms or (lambda text: text.lower().split())
        self._counts: dict[int, Counter[str]] = {}

    def add(self, entries: Sequence[TextEntry]) -> None:
        """Put chunks; one whose id is present is replaced."""
        for entry in entries:
            self._counts[entry.chunk_id] = Counter(self._terms(entry.text))

    def remove(self, ids: IdArray) -> None:
        """Forget ids; unknown ones are ignored."""
        for chunk_id in ids.tolist():
            self._counts.pop(chunk_id, None)

    def search(self, query: str, k: int, allowed: IdArray | None = None) -> Scored:
        """The k best chunks that share a word with `query` among `allowed` (ascending ids; None: all)."""
        total = len(self._counts)
        mean = sum(counts.total() for counts in self._counts.values()) / max(total, 1)
        scores: dict[int, float] = {}
        for term, repeats in Counter(self._terms(query)).items():
            holders = [chunk_id for chunk_id, counts in self._counts.items() if term in counts]
            idf = rarity(len(holders), total)
            for chunk_id in holders:
                counts = self._counts[chunk_id]
                damping = _K1 * (1 - _B + _B * counts.total() / mean)
                gain = repeats * idf * counts[term] * (_K1 + 1) / (counts[term] + damping)
                scores[chunk_id] = scores.get(chunk_id, 0.0) + gain
        permitted = None if allowed is None else set(allowed.tolist())
        found = {key: value for key, value in scores.items() if permitted is None or key in permitted}
        return best(np.array(list(found), np.int64), np.array(list(found.values()), np.float32), k)

    def ceiling(self, query: str) -> float:
        """The limit of BM25 for `query`."""
        terms = Counter(self._terms(query))
        holders = {term: sum(term in counts for counts in self._counts.values()) for term in terms}
        return bm25_ceiling(terms, holders, len(self._counts))

    def order_gains(self, query: str, texts: Sequence[str]) -> Float32Array:
        """What each text (n,) gains by holding words of `query` in the same order."""
        asked, total = self._terms(query), len(self._counts)
        worth = {term: rarity(sum(term in counts for counts in self._counts.values()), total) for term in asked}
        return order_gains(asked, map(self._terms, texts), worth, count=len(texts))

    def __len__(self) -> int:
        return len(self._counts)

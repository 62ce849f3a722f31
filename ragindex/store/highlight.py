"""Which words of a query a text contains, seen through the lexical index's own analysis."""

from __future__ import annotations

from ragindex.store.analysis import words
from ragindex.store.tantivy_index import shared_analyser

__all__ = ["matched_terms"]


def matched_terms(query: str, text: str) -> tuple[str, ...]:
    """Words of `query`, in order and without repeats, that `text` has in any form with the same stem; no stop words."""
    present = set(_stems(" ".join(words(text))))
    found: dict[str, None] = {}
    for word in words(query):
        stems = _stems(word)
        if stems and stems[0] in present:
            found[word] = None
    return tuple(found)


def _stems(text: str) -> list[str]:
    return list(shared_analyser().analyze(text))

"""From ranked chunks to ranked documents."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["ranked_documents"]

_FURTHER = 0.15  # what each further chunk of a document counts, in powers


def ranked_documents(chunks: Iterable[tuple[str, float]], *, additive: bool) -> list[str]:
    """Documents best first, from (document, score) of their chunks, best first.

    A document ranks by its best chunk. With `additive` scores (BM25 is a sum over words) its further chunks count 0.15,
    0.0225, … of what they stand above the last score of the list: a long text answers with several of its parts, and
    without this the same words score less for being cut apart. Cosines do not add up that way; measured, it harms them.
    """
    listed = list(chunks)
    if not additive:
        return list(dict.fromkeys(name for name, _ in listed))
    floor = listed[-1][1] if listed else 0.0
    totals: dict[str, float] = {}
    counts: dict[str, int] = {}
    for name, score in listed:
        place = counts.get(name, 0)
        totals[name] = totals.get(name, 0.0) + (score - floor) * _FURTHER**place
        counts[name] = place + 1
    return sorted(totals, key=lambda name: -totals[name])

"""Folds hits together that say the same: overlapping spans of one document, and near-duplicates anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ragindex.store.rows import ChunkRow

__all__ = ["Candidate", "merge"]

_SHINGLE = 5  # words
_SAME = 0.9  # share of common shingles from which two texts count as the same
_MOST = 3  # chunks that one hit may span


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk on its way to becoming a hit; `row` spans all the chunks joined with it, `merged` names these and its
    copies, `chunks` counts what is spanned.
    """

    row: ChunkRow
    score: float
    merged: tuple[int, ...] = ()
    chunks: int = 1


def merge(candidates: Iterable[Candidate], limit: int) -> list[Candidate]:
    """The first `limit` candidates after folding; each keeps the place and the chunk id of its best.

    Overlapping spans of a document become one span (up to three chunks long); a text that repeats one above it, word
    for word or nearly (Jaccard of 5-word shingles at least 0.9), is dropped in its favour.
    """
    kept: list[Candidate] = []
    shingles: list[frozenset[int]] = []
    for candidate in candidates:
        own = _shingles(candidate.row.text)
        place = next((place for place, other in enumerate(kept) if _joins(other, candidate)), None)
        if place is not None:
            kept[place] = _joined(kept[place], candidate)
            continue
        place = next((place for place, theirs in enumerate(shingles) if _similar(own, theirs)), None)
        if place is not None:
            kept[place] = replace(kept[place], merged=(*kept[place].merged, candidate.row.chunk_id))
        elif len(kept) < limit:
            kept.append(candidate)
            shingles.append(own)
        else:
            break
    return kept


def _joins(one: Candidate, other: Candidate) -> bool:
    """Whether two spans of a document become one."""
    same = one.row.document_id == other.row.document_id
    return same and _overlap(one.row, other.row) and one.chunks < _MOST


def _overlap(one: ChunkRow, other: ChunkRow) -> bool:
    return one.start < other.end and other.start < one.end


def _joined(best: Candidate, other: Candidate) -> Candidate:
    first, last = sorted((best.row, other.row), key=lambda row: row.start)
    text = first.text if last.end <= first.end else first.text + last.text[first.end - last.start :]
    row = replace(
        best.row,
        start=first.start,
        end=max(first.end, last.end),
        text=text,
        page=first.page,
        line_start=first.line_start,
        line_end=max(first.line_end, last.line_end),
        tokens=best.row.tokens + other.row.tokens,
    )
    return replace(best, row=row, merged=(*best.merged, other.row.chunk_id), chunks=best.chunks + 1)


def _shingles(text: str) -> frozenset[int]:
    words = text.casefold().split()
    if len(words) <= _SHINGLE:
        return frozenset({hash(tuple(words))})
    return frozenset(map(hash, zip(*(words[start:] for start in range(_SHINGLE)), strict=False)))


def _similar(one: frozenset[int], other: frozenset[int]) -> bool:
    smaller, larger = sorted((len(one), len(other)))
    if smaller < _SAME * larger:
        return False
    common = len(one & other)
    return common >= _SAME * (len(one) + len(other) - common)

"""Hits with what stands around them in their document, and parts of documents found by where they are.

A widened hit keeps its rank and scores; its span, lines and headings are those of the whole, and its text is exactly
that span of the document's text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from ragindex.errors import UsageError
from ragindex.search.engine import hit_of
from ragindex.store.catalog import Catalog
from ragindex.store.rows import ChunkRow
from ragindex.types import Hit, Scores

__all__ = ["Surroundings"]

_SPANNED = 2  # further chunks that a hit may span, besides the one whose id it has (see `ragindex.search.merging`)
_FIRST_LOOK = 8  # chunks on either side when a section's ends are looked for; doubled until they are found
_LINES = re.compile(r"(?P<path>.+):(?P<first>[1-9]\d{0,8})(?:-(?P<last>[1-9]\d{0,8}))?", re.DOTALL)
_SPAN = re.compile(r"(?P<path>.+)#char=(?P<start>\d{1,12}),(?P<end>\d{1,12})", re.DOTALL)
_PAGE = re.compile(r"(?P<path>.+), page (?P<page>[1-9]\d{0,8})", re.DOTALL)


class Surroundings:
    """What stands around passages of one collection. The texts of documents are kept for as long as it lives."""

    def __init__(self, catalog: Catalog, collection: int) -> None:
        self._catalog = catalog
        self._collection = collection
        self._texts: dict[str, str | None] = {}

    def neighbours(self, hit: Hit, count: int) -> Hit:
        """The hit with up to `count` chunks before and after it; itself where its document has changed since."""
        look = count + _SPANNED
        while True:
            rows = self._rows(hit, look)
            before = [row for row in rows if row.start < hit.char_start]
            after = [row for row in rows if row.end > hit.char_end]
            if len(after) >= count or not rows or rows[-1].ordinal < _ordinal(rows, hit) + look:
                return self._widened(hit, [*before[max(0, len(before) - count) :], *after[:count]])
            look *= 2  # the hit is a passage of many chunks

    def section(self, hit: Hit, *, most: int) -> Hit | None:
        """The hit with everything under its heading path, subsections included; one without headings with all the
        text around it that has none. None where that is more than `most` characters.
        """
        look = _FIRST_LOOK
        while True:
            rows = self._rows(hit, look)
            place = next((number for number, row in enumerate(rows) if row.chunk_id == hit.chunk_id), 0)
            before = list(takewhile(lambda row: _under(row, hit), reversed(rows[:place])))
            after = list(takewhile(lambda row: _under(row, hit), rows[place + 1 :]))
            wide = self._widened(hit, [*before, *after])
            if wide.char_end - wide.char_start > most:
                return None
            if len(before) < look and len(after) < look:
                return wide
            look *= 2

    def joined(self, one: Hit, other: Hit) -> Hit | None:
        """Two hits as a single one that keeps rank and scores of the first; None unless they are of one document and
        overlap, or have nothing but white space between them.
        """
        text = self._text(one)
        if one.path != other.path or text is None or self._text(other) is None:
            return None
        first, last = sorted((one, other), key=lambda hit: hit.char_start)
        if text[first.char_end : last.char_start].strip():
            return None
        end = max(one.char_end, other.char_end)
        return replace(
            one,
            heading=_shared([one.heading, other.heading]),
            page=first.page,
            line_start=min(one.line_start, other.line_start),
            line_end=max(one.line_end, other.line_end),
            char_start=first.char_start,
            char_end=end,
            text=text[first.char_start : end],
        )

    def chunk(self, chunk_id: int) -> Hit:
        """A chunk, as a hit of no query. Raises UsageError when the collection has none of this id."""
        rows = self._catalog.hits([chunk_id])
        # Chunk ids are the store's, and one collection must not answer for another that has a document of this path.
        if rows and rows[0] in self._catalog.chunks_of(self._collection, rows[0].path):
            return _hit_of(rows[0])
        raise UsageError(f"There is no chunk {chunk_id}, or not any more: search again.")

    def cited(self, place: str) -> Hit:
        """What a citation names, as a hit of no query: a whole document ("docs/a.md"), the chunks that hold some of
        its lines ("docs/a.md:12-30"), begin on a page ("docs/a.pdf, page 4") or lie in a span of characters
        ("docs/a.md#char=120,560", as RFC 5147 writes it). Paths are written as hits have them.

        Raises UsageError when there is no such document, line, page or character.
        """
        if self._indexed(place):
            return self._whole(place)
        for pattern in (_SPAN, _LINES, _PAGE):
            match = pattern.fullmatch(place)
            if match is not None and self._indexed(match["path"]):
                rows = _matching(self._catalog.chunks_of(self._collection, match["path"]), match)
                if rows:
                    return self._widened(_hit_of(rows[0]), rows[1:])
                raise UsageError(f"{place!r} holds no text; the document itself is indexed.")
        raise UsageError(f"{place!r} is not indexed; name a document, or lines of it, as hits cite them.")

    def _indexed(self, path: str) -> bool:
        return path in self._catalog.file_states(self._collection, path)

    def _whole(self, path: str) -> Hit:
        text = self._catalog.document_text(self._collection, path)
        rows = self._catalog.chunks_of(self._collection, path)
        if not rows:  # nothing but white space
            return Hit(0, 0.0, Scores(), path, "", (), None, 1, 1, 0, len(text), 0, text, {})
        last = max(row.line_end for row in rows)
        return replace(
            _hit_of(rows[0]), heading=(), line_start=1, line_end=last, char_start=0, char_end=len(text), text=text
        )

    def _rows(self, hit: Hit, count: int) -> list[ChunkRow]:
        """The hit's chunk with up to `count` on either side; none where its document has changed since."""
        rows = self._catalog.neighbours(hit.chunk_id, count, count) if self._text(hit) is not None else []
        return rows if any(row.chunk_id == hit.chunk_id for row in rows) else []

    def _widened(self, hit: Hit, rows: Sequence[ChunkRow]) -> Hit:
        text = self._text(hit)
        if not rows or text is None:
            return hit
        start = min(hit.char_start, *(row.start for row in rows))
        end = max(hit.char_end, *(row.end for row in rows))
        return replace(
            hit,
            heading=_shared([hit.heading, *(row.heading for row in rows)]),
            page=hit.page if start == hit.char_start else min(rows, key=lambda row: row.start).page,
            line_start=min(hit.line_start, *(row.line_start for row in rows)),
            line_end=max(hit.line_end, *(row.line_end for row in rows)),
            char_start=start,
            char_end=end,
            text=text[start:end],
        )

    def _text(self, hit: Hit) -> str | None:
        """The text of the hit's document; None where it does not hold the hit any more."""
        if hit.path not in self._texts:
            try:
                self._texts[hit.path] = self._catalog.document_text(self._collection, hit.path)
            except UsageError:  # removed meanwhile
                self._texts[hit.path] = None
        text = self._texts[hit.path]
        return text if text is not None and text[hit.char_start : hit.char_end] == hit.text else None


def _matching(rows: Sequence[ChunkRow], match: re.Match[str]) -> list[ChunkRow]:
    """The chunks of a document that a citation means."""
    groups = match.groupdict()
    if "page" in groups:
        return [row for row in rows if row.page == int(groups["page"])]
    if "start" in groups:
        start, end = int(groups["start"]), int(groups["end"])
        within = [row for row in rows if row.start >= start and row.end <= end]
        return within or [row for row in rows if row.start < end and row.end > start]  # cut elsewhere by now
    first, last = int(groups["first"]), int(groups["last"] or groups["first"])
    return [row for row in rows if row.line_start <= last and row.line_end >= first]


def _ordinal(rows: Sequence[ChunkRow], hit: Hit) -> int:
    return next(row.ordinal for row in rows if row.chunk_id == hit.chunk_id)


def _under(row: ChunkRow, hit: Hit) -> bool:
    return row.heading[: len(hit.heading)] == hit.heading if hit.heading else not row.heading


def _shared(headings: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The headings that are above all."""
    shared = headings[0]
    for heading in headings[1:]:
        same = takewhile(lambda pair: pair[0] == pair[1], zip(shared, heading, strict=False))
        shared = tuple(one for one, _ in same)
    return shared


def _hit_of(row: ChunkRow) -> Hit:
    return hit_of(row, 0, 0.0, Scores())

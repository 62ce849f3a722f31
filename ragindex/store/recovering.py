"""Gives documents back out of the catalogue: their text whole, their structure as far as the chunks remember it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from ragindex.store.database import Database
from ragindex.store.reading import unpacked
from ragindex.store.registry import headings, json_value
from ragindex.types import Block, BlockKind, Document

__all__ = ["Recovering"]

_PARAGRAPH = re.compile(r"\S(?:.*\S)?(?:\n[^\S\n]*\S.*)*")
_WORDS = re.compile(r"\w+")
_CODE = frozenset({"application/json", "application/xml", "application/yaml", "text/css"})
_TABLES = frozenset({"text/csv", "text/tab-separated-values"})

Heading = tuple[str, ...]


class Recovering:
    """Documents, each read in a transaction of its own."""

    _database: Database

    def iter_documents(self, collection: int) -> Iterator[Document]:
        """Every document of a collection, by path.

        path, text, title, metadata and sha256 are as they were written. Blocks are made from the chunks: paragraphs
        under the headings of their chunk, a definition or table as a whole, and lines that repeat a heading as blocks
        of that kind. Sections that were joined in one chunk come back under the heading that they share. page_starts
        and source_lines are empty: chunks know where they lie, but nothing between. Raises CorruptionError for a
        damaged text.
        """
        query = "SELECT id FROM documents WHERE collection_id = ? ORDER BY path"
        with self._database.snapshot() as connection:
            identifiers = [row[0] for row in connection.execute(query, (collection,))]
        for identifier in identifiers:
            document = self._document(identifier)
            if document is not None:  # it was not removed meanwhile
                yield document

    def _document(self, identifier: int) -> Document | None:
        whole = (
            "SELECT path, text, title, sha256, metadata FROM documents "
            "JOIN document_texts ON document_texts.document_id = documents.id WHERE documents.id = ?"
        )
        spans = 'SELECT start, "end", heading FROM chunks WHERE document_id = ? ORDER BY ordinal'
        with self._database.snapshot() as connection:
            row = connection.execute(whole, (identifier,)).fetchone()
            chunks = connection.execute(spans, (identifier,)).fetchall()
        if row is None:
            return None
        path, packed, title, sha256, stored = row
        text, metadata = unpacked(packed, path), json_value(stored)
        blocks = tuple(_blocks(text, chunks, _kind(metadata)))
        return Document(path, text, title=title, blocks=blocks, sha256=sha256, metadata=metadata)


def _kind(metadata: Mapping[str, Any]) -> BlockKind:
    """What the blocks of a file are, by its media type."""
    mime = str(metadata.get("mime") or "")
    if mime in _CODE or (mime.startswith("text/x-") and mime != "text/x-rst"):
        return "code"
    return "table" if mime in _TABLES else "prose"


def _blocks(text: str, chunks: list[tuple[Any, ...]], kind: BlockKind) -> Iterator[Block]:
    """Chunks under one heading are one section, however often it was cut and however much they repeat."""
    for heading, run in groupby(chunks, key=lambda chunk: headings(chunk[2])):
        spans = list(run)
        section = Block(spans[0][0], spans[-1][1], kind, heading)
        yield from [section] if kind != "prose" else _paragraphs(text, section)


def _paragraphs(text: str, section: Block) -> Iterator[Block]:
    unmet = list(enumerate(section.heading))  # the headings of the path that may still come, outermost first
    for paragraph in _PARAGRAPH.finditer(text, section.start, section.end):
        start, end = paragraph.span()
        title, line = _title(text[start:end], unmet), text.find("\n", start, end)
        if title is not None:
            unmet = [entry for entry in unmet if entry[0] > title]
            below = line if line >= 0 and _WORDS.search(text, line, end) else end  # an underline goes with its title
            yield Block(start, below, "heading", section.heading[:title])
            start = below + (below < end)
        if start < end:
            yield Block(start, end, "prose", section.heading)


def _title(paragraph: str, unmet: list[tuple[int, str]]) -> int | None:
    """Which heading the first line of a paragraph repeats, whatever marks are around it."""
    first = _plain(paragraph.partition("\n")[0])
    return next((number for number, title in unmet if first and first == _plain(title)), None)


def _plain(line: str) -> list[str]:
    return _WORDS.findall(line.casefold())

"""The values that travel between the rooms of ragindex: documents, chunks, hits, reports.

All character positions count Unicode code points in `Document.text`; spans are half-open, `text[start:end]`.
Lines and pages count from 1.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

__all__ = [
    "Block",
    "BlockKind",
    "Chunk",
    "Document",
    "Entry",
    "Explanation",
    "Failure",
    "Hit",
    "IndexReport",
    "Metadata",
    "MetadataValue",
    "Mode",
    "Record",
    "Scores",
    "Verification",
    "WhyNot",
]

MetadataValue = str | int | float | bool | None
Metadata = Mapping[str, MetadataValue]
Mode = Literal["hybrid", "dense", "lexical"]
BlockKind = Literal["prose", "code", "table", "list", "heading"]


@dataclass(frozen=True, slots=True)
class Block:
    """A span that a chunker should not cut if it can help it: a paragraph, a code fence, a definition, a row.

    `heading` is the path of headings above the block, outermost first; it is empty at the top of a document.
    Blocks of a document are in order, do not overlap and may leave gaps of white space between them.
    """

    start: int
    end: int
    kind: BlockKind = "prose"
    heading: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """One file as text, with everything that is needed to cite a span of it.

    `path` is the document's identity in its collection (POSIX, relative to the folder that holds the store, or
    absolute when outside of it). `title` is taken from the content and is empty when the content has none.
    `page_starts[i]` is the character at which page i+1 begins (empty: the format has no pages). `source_lines[i]` is
    the line of the *file* from which line i+1 of `text` comes (empty: the lines of `text` are the lines to cite).
    `sha256` is the hash of the file's bytes.
    """

    path: str
    text: str
    title: str = ""
    blocks: tuple[Block, ...] = ()
    page_starts: tuple[int, ...] = ()
    source_lines: tuple[int, ...] = ()
    sha256: str = ""
    metadata: Metadata = field(default_factory=dict)

    @cached_property
    def _line_starts(self) -> Sequence[int]:
        starts = [0]
        position = self.text.find("\n")
        while position != -1:
            starts.append(position + 1)
            position = self.text.find("\n", position + 1)
        return starts

    def line_at(self, position: int) -> int:
        """The line to cite for a character position."""
        line = bisect.bisect_right(self._line_starts, position)
        if self.source_lines:
            return self.source_lines[min(line, len(self.source_lines)) - 1]
        return line

    def page_at(self, position: int) -> int | None:
        """The page to cite for a character position; None in formats without pages."""
        if not self.page_starts:
            return None
        return max(1, bisect.bisect_right(self.page_starts, position))


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span of a document that is embedded and retrieved as one: `document.text[start:end] == text`, always.

    `ordinal` counts chunks of the document from 0; `tokens` is what the chunk costs the encoder: prompt, title,
    headings, text and special tokens together.
    """

    ordinal: int
    start: int
    end: int
    text: str
    heading: tuple[str, ...]
    line_start: int
    line_end: int
    page: int | None
    tokens: int


@dataclass(frozen=True, slots=True)
class Scores:
    """What each retriever said of a hit; higher is better, None where it does not apply.

    dense: cosine in [-1, 1]; lexical: BM25 (unbounded); fused: see `ragindex.search.fusion`.
    """

    dense: float | None = None
    lexical: float | None = None
    fused: float | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a hit came to its place.

    dense_rank and lexical_rank count from 1 in each retriever's own list (None: not in it); dense_weight is the share
    of the dense score in the fused one; terms: words of the query that the hit's text, title or path contains, as the
    lexical index sees them; merged: ids of chunks that were folded into this hit because they overlap or repeat it;
    sentence: the one of its text that is nearest to the query, where hybrid search has looked for it (None: with an
    encoder too slow for that, or far down).
    """

    dense_rank: int | None = None
    lexical_rank: int | None = None
    dense_weight: float | None = None
    terms: tuple[str, ...] = ()
    merged: tuple[int, ...] = ()
    sentence: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer: a span of a document and why it is here."""

    rank: int
    score: float
    scores: Scores
    path: str
    title: str
    heading: tuple[str, ...]
    page: int | None
    line_start: int
    line_end: int
    char_start: int
    char_end: int
    chunk_id: int
    text: str
    metadata: Metadata
    explanation: Explanation | None = None

    @property
    def citation(self) -> str:
        """`path:line-line`, or `path, page N` in formats that have pages."""
        if self.page is not None:
            return f"{self.path}, page {self.page}"
        lines = f"{self.line_start}" if self.line_end == self.line_start else f"{self.line_start}-{self.line_end}"
        return f"{self.path}:{lines}"


@dataclass(frozen=True, slots=True)
class Record:
    """A text that another program brings under an id of its own; it is stored uncut and comes back as it was.

    metadata: whatever JSON can hold, with text as keys; filters see it. beside: the same, but no filter sees it.
    vector: made by the caller, of any length but zero; None leaves it to the store's encoder. embedded: the text that
    `vector` was made from, where that is another one than `text`.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    vector: Sequence[float] | None = None
    embedded: str | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """What a store gives back: a record, or a passage of a document that was indexed from a folder.

    `id` is the record's, or `path#char=start,end` (RFC 5147) for a passage, which says where it lies: `span` is that
    place, None for a record. A passage's metadata are the document's and `path`, `title`, `heading`, `page`,
    `line_start`, `line_end`, `char_start`, `char_end`. score: None where nothing was searched for. vector: the one
    that a record brought, in half precision (after a change of encoders: the new one's); None where it brought none or
    none was asked for.
    """

    id: str
    text: str
    metadata: Mapping[str, Any]
    beside: Mapping[str, Any] = field(default_factory=dict)
    span: tuple[int, int] | None = None
    score: float | None = None
    vector: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be indexed, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What `Index.verify` found. `problems` are sentences; `ok` means there are none."""

    ok: bool
    documents: int
    chunks: int
    vectors: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WhyNot:
    """Why a passage is not among the hits of a query.

    stage: where it was lost ("missing", "ignored", "unsupported", "failed", "not indexed", "stale", "filtered",
    "outranked", "merged", "found"); reason and fix are sentences; the ranks count from 1 over the whole collection
    (None: not scored by that retriever).
    """

    path: str
    stage: str
    reason: str
    fix: str
    chunk_id: int | None = None
    dense_rank: int | None = None
    lexical_rank: int | None = None
    fused_rank: int | None = None


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What one run of `Index.add` did. Counts are documents unless the name says otherwise; times are seconds."""

    added: int = 0
    updated: int = 0
    moved: int = 0
    deleted: int = 0
    unchanged: int = 0
    failed: tuple[Failure, ...] = ()
    chunks: int = 0
    embedded_chunks: int = 0
    reused_chunks: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens embedded in this run over its wall time."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

"""What requests and replies look like: the JSON contract of `ragindex query --json`, documents, coverage.

Requests are strict: a number in quotes is no number, and an unknown key is an error and not a typing mistake that
nobody notices.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from ragindex.search.context import Context
from ragindex.search.suspicion import FlagKind, flag_kinds
from ragindex.server import limits
from ragindex.types import Hit, Mode

__all__ = [
    "WHOLE",
    "DocumentList",
    "DocumentRow",
    "ErrorReply",
    "FailureList",
    "FailureRow",
    "Health",
    "HitReply",
    "Name",
    "PassageReply",
    "SearchReply",
    "SearchRequest",
    "ServerState",
    "StatusReply",
    "Text",
    "context_reply",
    "hit_reply",
]

Query = Annotated[str, StringConstraints(min_length=1, max_length=limits.MAX_QUERY, pattern=r"\S")]
Text = Annotated[str, StringConstraints(max_length=limits.MAX_QUERY)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=limits.MAX_NAME)]


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# JSON has one kind of number, and 5.0 is an integer to JSON Schema. To be put after the bounds of the number, which
# would be missing from the description otherwise.
WHOLE = BeforeValidator(_whole)


class Strict(BaseModel):
    """A request's body."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SearchRequest(Strict):
    """A question and how to answer it; the options of `ragindex query`."""

    query: Query = Field(description="What to look for.", examples=["how do I rotate a key?"])
    mode: Mode = Field(default="hybrid", description="Which retrievers answer.")
    k: Annotated[int, Field(ge=1, le=limits.MAX_HITS), WHOLE] = Field(default=10, description="How many hits.")
    instruction: Text | None = Field(
        default=None, description="What the encoder is told about the query; null is its default, '' nothing."
    )
    task: Name | None = Field(default=None, description="An instruction that the encoder knows by name, in its place.")
    filter: Text | None = Field(
        default=None, description="Search only documents that match.", examples=["path like 'ops/%' and size < 100000"]
    )
    diversity: float = Field(
        default=0.0, ge=0.0, le=1.0, description="0 ranks by score alone; towards 1, hits differ more."
    )
    collection: Name | None = Field(default=None, description="The collection; null is the one the server began with.")
    explain: bool = Field(default=False, description="Say for each hit how it came to its place.")
    context: Annotated[int, Field(ge=16, le=limits.MAX_PROMPT_TOKENS), WHOLE] | None = Field(
        default=None,
        description="Add a numbered, cited block of the hits, at most so many tokens long, to paste into a prompt.",
    )


class ScoresReply(BaseModel):
    """What each retriever said; higher is better, null where it does not apply."""

    dense: float | None = Field(description="Cosine in [-1, 1].")
    lexical: float | None = Field(description="BM25.")
    fused: float | None = Field(description="Both lists' standardised scores, weighted by evidence.")


class ExplanationReply(BaseModel):
    """How a hit came to its place."""

    dense_rank: int | None
    lexical_rank: int | None
    dense_weight: float | None = Field(description="Share of the dense score in the fused one.")
    terms: list[str] = Field(description="Words of the query that text, title, headings or path contain.")
    merged: list[int] = Field(description="Ids of chunks folded into this hit: they overlap or repeat it.")
    sentence: str | None = Field(description="The one nearest to the query, where hybrid search looked for it.")


class HitReply(BaseModel):
    """A span of a document; characters count Unicode code points of its text, lines and pages from 1."""

    rank: int
    score: float
    scores: ScoresReply
    path: str
    title: str
    heading: list[str]
    page: int | None
    line_start: int
    line_end: int
    char_start: int
    char_end: int
    chunk_id: int
    text: str
    metadata: dict[str, Any]
    explanation: ExplanationReply | None = Field(default=None, description="Only with `explain`.")
    flags: list[FlagKind] = Field(
        default_factory=list, description="With `explain`: what in the text looks as if it was written for a model."
    )


class ContextPassage(BaseModel):
    """An entry of a context block; `numbers` are the ranks of the hits that it holds."""

    numbers: list[int]
    citation: str
    path: str
    char_start: int
    char_end: int
    cut: bool
    flags: list[FlagKind]


class ContextReply(BaseModel):
    """How long a context block is, by which tokenizer, and its entries."""

    tokens: int
    limit: int
    tokenizer: str
    estimated: bool
    passages: list[ContextPassage]


class SearchReply(BaseModel):
    """What `ragindex query --json` prints."""

    query: str
    mode: Mode
    instruction: str | None = Field(description="What the encoder was told; null where none was asked.")
    hits: list[HitReply]
    context: str | None = Field(default=None, description="The block, where it was asked for.")
    context_info: ContextReply | None = Field(default=None, description="What stands in it.")


class DocumentRow(BaseModel):
    """A document of the index; sizes in bytes, `indexed_at` in seconds since 1970."""

    path: str
    title: str
    size: int
    chunks: int
    tokens: int
    characters: int
    mime: str | None
    language: str | None
    modified: str | float | int | None
    sha256: str
    indexed_at: float


class DocumentList(BaseModel):
    """Documents by path, from `offset` on. `total` counts all that match."""

    total: int
    offset: int
    documents: list[DocumentRow]


class FailureRow(BaseModel):
    """A file that could not be indexed, and why."""

    path: str
    reason: str


class FailureList(BaseModel):
    """Files that could not be indexed, by path, from `offset` on."""

    total: int
    offset: int
    failures: list[FailureRow]


class PassageReply(BaseModel):
    """A passage of a document with the text around it: `before + passage + after` is one stretch of it."""

    path: str
    characters: int = Field(description="Length of the whole text.")
    start: int = Field(description="Where the passage begins, in characters.")
    end: int
    before_start: int = Field(description="Where `before` begins; 0 at the top of the document.")
    after_end: int = Field(description="Where `after` ends; `characters` at the end of the document.")
    before: str
    passage: str
    after: str


class ServerState(BaseModel):
    """How busy the server is."""

    inside: int = Field(description="Requests that run or wait.")
    capacity: int = Field(description="How many of them there may be.")
    refused: int = Field(description="Requests refused for want of a place since the start.")


class StatusReply(BaseModel):
    """What `ragindex status --json` prints, and the server's own state."""

    model_config = ConfigDict(extra="allow")

    collection: str
    collections: list[str]
    documents: int
    chunks: int
    failures: int
    server: ServerState


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"] = "ok"
    version: str


class ErrorBody(BaseModel):
    """What went wrong, in one sentence."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """Every failure looks like this."""

    error: ErrorBody


def hit_reply(hit: Hit, *, explain: bool) -> HitReply:
    """A hit as JSON has it; without `explain` its keys stay unset."""
    reply = HitReply(
        rank=hit.rank,
        score=hit.score,
        scores=ScoresReply(**asdict(hit.scores)),
        path=hit.path,
        title=hit.title,
        heading=list(hit.heading),
        page=hit.page,
        line_start=hit.line_start,
        line_end=hit.line_end,
        char_start=hit.char_start,
        char_end=hit.char_end,
        chunk_id=hit.chunk_id,
        text=hit.text,
        metadata=dict(hit.metadata),
    )
    if explain:
        reply.explanation = None if hit.explanation is None else ExplanationReply(**asdict(hit.explanation))
        reply.flags = list(flag_kinds(hit.text, hit.path, hit.title, *hit.heading))
    return reply


def context_reply(block: Context, *, limit: int) -> ContextReply:
    """What stands in a context block, as JSON has it."""
    passages = [
        ContextPassage(
            numbers=list(passage.numbers),
            citation=passage.hit.citation,
            path=passage.hit.path,
            char_start=passage.hit.char_start,
            char_end=passage.hit.char_end,
            cut=passage.cut,
            flags=list(passage.flags),
        )
        for passage in block.passages
    ]
    return ContextReply(
        tokens=block.tokens, limit=limit, tokenizer=block.tokenizer, estimated=block.estimated, passages=passages
    )

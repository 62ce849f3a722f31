"""The routes over documents: search, what is indexed, the text around a passage, status and health."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi import Query as Parameter

import ragindex
from ragindex.errors import UsageError
from ragindex.index import Index
from ragindex.server import limits
from ragindex.server.desk import Desk
from ragindex.server.failures import Refusal
from ragindex.server.schemas import (
    DocumentList,
    DocumentRow,
    ErrorReply,
    FailureList,
    FailureRow,
    Health,
    Name,
    PassageReply,
    SearchReply,
    SearchRequest,
    ServerState,
    StatusReply,
    context_reply,
    hit_reply,
)

__all__ = ["FAILS", "AtDesk", "routes"]

FAILS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorReply, "description": "The request is at fault; the sentence says how."},
    "5XX": {"model": ErrorReply, "description": "The server is at fault, or busy (503, with Retry-After)."},
}
_SNAP = 200  # characters; a stretch of text begins and ends with a line where one is so near

routes = APIRouter(responses=FAILS)


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


AtDesk = Annotated[Desk, Depends(_desk)]
_Collection = Annotated[Name | None, Parameter(description="The collection; the server's own where it is left out.")]
_Limit = Annotated[int, Parameter(ge=1, le=limits.MAX_LISTED, description="How many rows.")]
_Offset = Annotated[int, Parameter(ge=0, le=limits.MAX_POSITION, description="How many rows to skip.")]
_Position = Annotated[int, Parameter(ge=0, le=limits.MAX_POSITION, description="In characters of the text.")]


@routes.get("/health", tags=["server"])
async def health() -> Health:
    """Whether the server answers; needs no token."""
    return Health(version=ragindex.__version__)


@routes.get("/api/status", tags=["index"])
async def status(desk: AtDesk, collection: _Collection = None) -> StatusReply:
    """What the store holds, which encoder serves, and how busy the server is."""
    async with desk.admitted():
        found = await desk.call(lambda: desk.shelves.index(collection).status())
    admission = desk.admission
    state = ServerState(inside=admission.inside, capacity=desk.limits.admitted, refused=admission.refused)
    return StatusReply(**found, server=state)


@routes.post("/api/search", tags=["index"], response_model_exclude_unset=True)
async def search(desk: AtDesk, asked: SearchRequest) -> SearchReply:
    """The passages that answer a question, best first, as `ragindex query --json` prints them."""
    async with desk.admitted():
        if asked.mode != "lexical" and asked.task is None:
            await desk.prepare(asked.query, collection=asked.collection, instruction=asked.instruction)
        return await desk.call(lambda: _searched(desk.shelves.index(asked.collection), asked))


@routes.get("/api/documents", tags=["index"])
async def documents(
    desk: AtDesk,
    collection: _Collection = None,
    contains: Annotated[
        str, Parameter(max_length=limits.MAX_NAME, description="Part of the path or the title, in any case.")
    ] = "",
    limit: _Limit = 100,
    offset: _Offset = 0,
) -> DocumentList:
    """The indexed documents by path."""

    def listed() -> DocumentList:
        index = desk.shelves.index(collection)
        rows = index.documents(contains=contains, limit=limit, offset=offset)
        total = index.document_count(contains=contains)
        return DocumentList(total=total, offset=offset, documents=[DocumentRow(**row) for row in rows])

    async with desk.admitted():
        return await desk.call(listed)


@routes.get("/api/failures", tags=["index"])
async def failures(
    desk: AtDesk, collection: _Collection = None, limit: _Limit = 100, offset: _Offset = 0
) -> FailureList:
    """The files that could not be indexed, and why."""
    async with desk.admitted():
        found = await desk.call(lambda: desk.shelves.index(collection).failures())
    shown = [FailureRow(**asdict(row)) for row in found[offset : offset + limit]]
    return FailureList(total=len(found), offset=offset, failures=shown)


@routes.get("/api/document", tags=["index"])
async def document(
    desk: AtDesk,
    path: Annotated[Name, Parameter(description="The document's path, as hits have it.")],
    start: _Position = 0,
    end: _Position = 0,
    around: Annotated[int, Parameter(ge=0, le=limits.MAX_AROUND, description="Characters on either side.")] = 2_000,
    collection: _Collection = None,
) -> PassageReply:
    """A passage of a document with the text around it. The text is the index's, not read from the disk."""
    async with desk.admitted():
        return await desk.call(lambda: _passage(desk.shelves.index(collection), path, start, end, around))


def _searched(index: Index, asked: SearchRequest) -> SearchReply:
    hits = index.search(
        asked.query,
        k=asked.k,
        mode=asked.mode,
        instruction=asked.instruction,
        filter=asked.filter,
        diversity=asked.diversity,
        explain=asked.explain,
        task=asked.task,
    )
    instruction = asked.instruction
    if asked.mode == "lexical":
        instruction = None
    elif instruction is None:
        instruction = index.instruction(asked.task)
    reply = SearchReply(
        query=asked.query,
        mode=asked.mode,
        instruction=instruction,
        hits=[hit_reply(hit, explain=asked.explain) for hit in hits],
    )
    if asked.context is not None:
        block = index.context(hits, tokens=asked.context)
        reply.context, reply.context_info = str(block), context_reply(block, limit=asked.context)
    return reply


def _passage(index: Index, path: str, start: int, end: int, around: int) -> PassageReply:
    try:
        text = index.text(path)
    except UsageError as error:
        raise Refusal(404, str(error), param="path") from error
    start = min(start, len(text))
    end = min(max(start, end), len(text))
    first, last = (
        _line_before(text, max(0, start - around), start),
        _line_after(text, min(len(text), end + around), end),
    )
    return PassageReply(
        path=path,
        characters=len(text),
        start=start,
        end=end,
        before_start=first,
        after_end=last,
        before=text[first:start],
        passage=text[start:end],
        after=text[end:last],
    )


def _line_before(text: str, position: int, limit: int) -> int:
    """The beginning of a line shortly after `position`, or the position where there is none before `limit`."""
    if position == 0:
        return 0
    found = text.find("\n", position - 1, min(position + _SNAP, limit))
    return position if found == -1 else found + 1


def _line_after(text: str, position: int, limit: int) -> int:
    """The end of a line shortly before `position`, or the position where there is none after `limit`."""
    if position == len(text):
        return position
    found = text.rfind("\n", max(limit, position - _SNAP), position + 1)
    return position if found == -1 else found

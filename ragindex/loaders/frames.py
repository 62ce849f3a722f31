"""The wire between a LoaderPool and its workers: length-prefixed JSON, and documents as JSON."""

from __future__ import annotations

import struct
from typing import IO, Any

from ragindex.types import Block, Document

__all__ = ["document_as_json", "document_from", "read_frame", "write_frame"]

_LENGTH = struct.Struct(">Q")


def write_frame(pipe: IO[bytes], payload: bytes) -> None:
    """Write one message and flush it."""
    pipe.write(_LENGTH.pack(len(payload)))
    pipe.write(payload)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> bytes | None:
    """The next message; None when the other side is gone, even in the middle of a message."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    payload = pipe.read(length)
    return payload if len(payload) == length else None


def document_as_json(document: Document) -> dict[str, Any]:
    """A value that `json.dumps` takes and `document_from` turns back."""
    return {
        "path": document.path,
        "text": document.text,
        "title": document.title,
        "blocks": [[block.start, block.end, block.kind, list(block.heading)] for block in document.blocks],
        "page_starts": list(document.page_starts),
        "source_lines": list(document.source_lines),
        "sha256": document.sha256,
        "metadata": dict(document.metadata),
    }


def document_from(value: dict[str, Any]) -> Document:
    """The document that `document_as_json` described."""
    return Document(
        path=value["path"],
        text=value["text"],
        title=value["title"],
        blocks=tuple(Block(start, end, kind, tuple(heading)) for start, end, kind, heading in value["blocks"]),
        page_starts=tuple(value["page_starts"]),
        source_lines=tuple(value["source_lines"]),
        sha256=value["sha256"],
        metadata=value["metadata"],
    )

"""Reads one file: bytes that did not change meanwhile, the right parser, and the facts that every document carries."""

from __future__ import annotations

import hashlib
import importlib
import os
import stat
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, cast

from ragindex.config import Limits
from ragindex.errors import LoadError
from ragindex.loaders.decode import clean
from ragindex.loaders.draft import Draft, Source, check_length
from ragindex.loaders.formats import Format, format_of
from ragindex.loaders.language import detect_language
from ragindex.types import Block, Document, MetadataValue

__all__ = ["iso_seconds", "load"]

_MEBIBYTE = 1 << 20


class _Parser(Protocol):
    def parse(self, source: Source) -> Draft: ...


@dataclass(frozen=True, slots=True)
class _Content:
    data: bytes
    modified: float


def load(path: Path, *, name: str, limits: Limits) -> Document:
    """Read and parse the file at `path` in this process; `name` becomes `Document.path`.

    Raises LoadError with a short reason, whatever is wrong with the file. `LoaderPool.load` does the same and survives
    parsers that crash, hang or eat memory; it also lets threads read PDF files at once, which this function does not.
    """
    known = format_of(path)
    if known is None:
        raise LoadError(f"unsupported type {path.suffix or path.name!r}")
    content = _read(path, limits)
    source = Source(content.data, path.name, path.suffix.lower(), limits)
    draft = _parse(known, source)
    check_length(len(draft.text), limits)
    return Document(
        path=name,
        text=clean(draft.text),
        title=" ".join(clean(draft.title).split()),
        blocks=_clean_blocks(draft.blocks),
        page_starts=draft.page_starts,
        source_lines=draft.source_lines,
        sha256=hashlib.sha256(content.data).hexdigest(),
        metadata=_metadata(draft, known, content),
    )


def _clean_blocks(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    """Headings are stored too, so they obey the same rules as text; hardly any document needs the second look."""
    if all(clean(title) == title for heading in {block.heading for block in blocks} for title in heading):
        return blocks
    return tuple(replace(block, heading=tuple(clean(title) for title in block.heading)) for block in blocks)


def _parse(known: Format, source: Source) -> Draft:
    parser = cast("_Parser", importlib.import_module(f"ragindex.loaders.{known.module}"))
    try:
        return parser.parse(source)
    except (LoadError, MemoryError):
        raise
    except RecursionError as error:
        raise LoadError("nested too deeply") from error
    except Exception as error:
        # Parsers of other people raise anything at all on broken files.
        detail = " ".join(str(error).split())[:120]
        what = f"{type(error).__name__}: {detail}" if detail else type(error).__name__
        raise LoadError(f"not a readable {source.suffix.lstrip('.') or known.module} file ({what})") from error


def _metadata(draft: Draft, known: Format, content: _Content) -> dict[str, MetadataValue]:
    """What the parser found, under the facts of the file: a front matter cannot lie about size or type."""
    found = {
        clean(key): clean(value) if isinstance(value, str) else value
        for key, value in draft.metadata.items()
        if value != "" and value is not None
    }
    facts: dict[str, MetadataValue] = {
        "size": len(content.data),
        "modified": iso_seconds(content.modified),
        "mime": known.mime,
        "language": known.language or detect_language(draft.text),
    }
    return {**found, **facts}


def iso_seconds(timestamp: float) -> str:
    """A POSIX time as ISO 8601 in UTC, whole seconds; empty when no calendar has that date."""
    try:
        return datetime.fromtimestamp(int(timestamp), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return ""


def _read(path: Path, limits: Limits) -> _Content:
    """The bytes of a file that did not change while they were read; one change is forgiven."""
    for _ in range(2):
        content = _read_once(path, limits)
        if content is not None:
            return content
    raise LoadError("changed while it was read")


def _read_once(path: Path, limits: Limits) -> _Content | None:
    # O_NONBLOCK: between the walk and now the name may have become a FIFO, and opening one would wait for ever.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise LoadError("not a regular file")
            if before.st_size > limits.file_bytes:
                size = -(-before.st_size // _MEBIBYTE)
                raise LoadError(f"{size} MB; limit {limits.file_mb} MB (limits.file_mb)")
            data = file.read(limits.file_bytes + 1)
            after = os.fstat(file.fileno())
    except FileNotFoundError as error:
        raise LoadError("no longer exists") from error
    except IsADirectoryError as error:
        raise LoadError("not a regular file") from error
    except PermissionError as error:
        raise LoadError("permission denied") from error
    except OSError as error:
        raise LoadError(f"cannot be read: {error.strerror or error}") from error
    unchanged = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns) and len(
        data
    ) == after.st_size
    return _Content(data, after.st_mtime) if unchanged else None

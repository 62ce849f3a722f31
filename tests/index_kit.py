"""Small folders and indexes for the tests of ingest, search and `Index`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tiny import SENTENCES

from ragindex import Index
from ragindex.config import Settings
from ragindex.types import Hit

SMALL = Settings(chunk_tokens=64, overlap=8)


def open_index(folder: Path, encoder: Path, **options: object) -> Index:
    """An index over `folder` with the tiny encoder and small chunks; options are those of `Index.open`."""
    chosen = {"encoder": str(encoder), "settings": SMALL} | options
    return Index.open(folder / ".ragindex", **chosen)


def write(folder: Path, files: Mapping[str, str | bytes], *, age: float = 60.0) -> None:
    """Write files that look `age` seconds old, so that an index run trusts their times."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        then = time.time() - age
        os.utime(file, (then, then))


def corpus(count: int = 10) -> dict[str, str]:
    """`count` documents, one sentence each with a number of its own."""
    return {f"doc{number:03}.txt": f"{SENTENCES[number % 10]} Note number {number}.\n" for number in range(count)}


def prose(sentences: int, *, start: int = 0) -> str:
    """A long text of distinct sentences, one a line."""
    return "".join(f"{SENTENCES[(start + n) % 10]} Item {start + n}.\n" for n in range(sentences))


def answers(index: Index, queries: Sequence[str] = SENTENCES) -> list[list[tuple[object, ...]]]:
    """What an index says to some queries, without the ids that depend on the order of arrival."""
    return [[key(hit) for hit in index.search(query, k=5)] for query in queries]


def key(hit: Hit) -> tuple[object, ...]:
    """A hit as far as the same content gives the same one."""
    return (hit.path, hit.char_start, hit.char_end, hit.text, round(hit.score, 3))


def paths(hits: Sequence[Hit]) -> list[str]:
    return [hit.path for hit in hits]

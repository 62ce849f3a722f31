"""Small stores for the tests of `ragindex.store`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ragindex.store.catalog import Batch, Catalog, DocumentWrite, FileState
from ragindex.types import Chunk, Document

DIMENSIONS = 8
FINGERPRINT = "test-encoder"


def vector(text: str, dimensions: int = DIMENSIONS) -> np.ndarray:
    """A unit vector that depends on the text alone."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    values = np.random.default_rng(seed).standard_normal(dimensions)
    return (values / np.linalg.norm(values)).astype(np.float16)


def key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def state(path: str, **changes: object) -> FileState:
    values = {"path": path, "size": 10, "mtime_ns": 1, "sha256": "aa", "checked_ns": 2, "loader": "text-1"}
    return FileState(**(values | changes))


def write(
    path: str, *texts: str, encoder_id: int = 1, title: str = "", heading=(), page=None, **metadata
) -> DocumentWrite:
    """A document whose chunks are the texts, one per line."""
    chunks, position = [], 0
    for ordinal, text in enumerate(texts):
        line = ordinal + 1
        chunks.append(Chunk(ordinal, position, position + len(text), text, tuple(heading), line, line, page, 5))
        position += len(text) + 1
    document = Document(path, "\n".join(texts), title=title, metadata=metadata)
    vectors = {key(text): vector(text) for text in texts}
    return DocumentWrite(document, state(path), chunks, [key(text) for text in texts], vectors, encoder_id)


class Store:
    """A catalogue with one collection and an active encoder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.catalog = Catalog.open(folder)
        self.collection = self.catalog.collection("default", create=True)
        self.encoder = self.catalog.register_encoder(FINGERPRINT, "bundled", DIMENSIONS, {"name": "test"})
        self.catalog.activate_encoder(FINGERPRINT)

    def put(self, *writes: DocumentWrite) -> int:
        return self.commit(Batch(writes=writes))

    def commit(self, batch: Batch) -> int:
        return self.catalog.commit(self.collection, batch)

    def ids(self, path: str) -> list[int]:
        return [row.chunk_id for row in self.catalog.chunks_of(self.collection, path)]

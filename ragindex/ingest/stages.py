"""The two stages of ingest that cost time: reading and cutting files, and embedding chunks."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ragindex.chunking import ChunkOptions, chunk
from ragindex.encoder import Encoder
from ragindex.errors import LoadError
from ragindex.ingest.context import ChunkContext
from ragindex.ingest.plan import MEMORY, Candidate
from ragindex.loaders import LoaderPool
from ragindex.store.catalog import Catalog
from ragindex.store.rows import DocumentWrite, FailureWrite, FileState, Float16Array
from ragindex.types import Chunk, Document

__all__ = ["CutStage", "Cutter", "EmbedStage", "Embedded", "LoadStage", "Prepared", "PreparedDocument"]


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A document that was read and cut. `titles` and `keys` are one per chunk; `unchanged`: the bytes are the known
    ones.
    """

    document: Document
    state: FileState
    chunks: Sequence[Chunk]
    titles: Sequence[str]
    keys: Sequence[bytes]
    unchanged: bool
    replaces: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """What became of a batch of files."""

    documents: tuple[PreparedDocument, ...] = ()
    failures: tuple[FailureWrite, ...] = ()


@dataclass(frozen=True, slots=True)
class Embedded:
    """A batch ready to be committed. `fresh` chunks were embedded, `tokens` counts theirs."""

    prepared: Prepared
    writes: tuple[DocumentWrite, ...]
    fresh: int
    tokens: int
    keys: frozenset[bytes]


class Cutter:
    """Documents to chunks, with the titles and keys that embedding needs."""

    def __init__(self, context: ChunkContext, encoder: Encoder, options: ChunkOptions) -> None:
        self._context = context
        self._encoder = encoder
        self._options = options

    def cut(self, document: Document, state: FileState, *, replaces: bool) -> PreparedDocument:
        """Cut one document."""
        chunks = chunk(document, self._options, self._encoder.tokenizer, self._context.overhead)
        titles = [self._context.title(document.title, item.heading) for item in chunks]
        keys = [self._context.key(item.text, document.title, item.heading) for item in chunks]
        return PreparedDocument(document, state, chunks, titles, keys, unchanged=False, replaces=replaces)


class LoadStage:
    """Files to documents to chunks. Never raises for a file: a bad one becomes a failure with its reason."""

    def __init__(self, pool: LoaderPool, cutter: Cutter, loader: str) -> None:
        self._pool = pool
        self._cutter = cutter
        self._loader = loader

    def __call__(self, batch: Sequence[Candidate]) -> Prepared:
        """Read and cut a batch."""
        documents: list[PreparedDocument] = []
        failures: list[FailureWrite] = []
        for candidate in batch:
            try:
                documents.append(self._prepare(candidate))
            except LoadError as error:
                failures.append(_failure(candidate, error.reason))
            except MemoryError:
                failures.append(_failure(candidate, "not enough memory to read it"))
        return Prepared(tuple(documents), tuple(failures))

    def _prepare(self, candidate: Candidate) -> PreparedDocument:
        checked = time.time_ns()
        document = self._pool.load(candidate.path, name=candidate.name)
        state = FileState(candidate.name, candidate.size, candidate.mtime_ns, document.sha256, checked, self._loader)
        known = candidate.known
        if known is not None and (known.sha256, known.loader) == (document.sha256, self._loader):
            return PreparedDocument(document, state, (), (), (), unchanged=True, replaces=True)
        return self._cutter.cut(document, state, replaces=known is not None)


class CutStage:
    """Documents that are no files to chunks."""

    def __init__(self, cutter: Cutter, known: Mapping[str, FileState]) -> None:
        self._cutter = cutter
        self._known = known

    def __call__(self, batch: Sequence[Document]) -> Prepared:
        """Cut a batch; a document whose text, title and metadata are the known ones is left alone."""
        return Prepared(tuple(self._prepare(document) for document in batch))

    def _prepare(self, document: Document) -> PreparedDocument:
        content = json.dumps([document.text, document.title, dict(document.metadata)], sort_keys=True)
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
        state = FileState(document.path, len(document.text), 0, digest, time.time_ns(), MEMORY)
        known = self._known.get(document.path)
        if known is not None and (known.sha256, known.loader) == (digest, MEMORY):
            return PreparedDocument(document, state, (), (), (), unchanged=True, replaces=True)
        return self._cutter.cut(document, state, replaces=known is not None)


def _failure(candidate: Candidate, reason: str) -> FailureWrite:
    # Size and time stand for the content: the file is tried again when either changes.
    return FailureWrite(candidate.name, reason, candidate.size, candidate.mtime_ns, _CONTENT)


# Marks a failure of a file's content, which is not worth another try while the file stays as it is.
_CONTENT = "content"


class EmbedStage:
    """Chunks to vectors. A text that has a vector, in the catalogue or in a batch on its way there, is not embedded
    again.
    """

    def __init__(self, encoder: Encoder, catalog: Catalog, encoder_id: int) -> None:
        self._encoder = encoder
        self._catalog = catalog
        self._encoder_id = encoder_id
        self._lock = threading.Lock()
        self._under_way: set[bytes] = set()

    def __call__(self, prepared: Prepared) -> Embedded:
        """Embed a batch."""
        wanted: dict[bytes, tuple[str, str, int]] = {}
        for item in prepared.documents:
            for piece, title, key in zip(item.chunks, item.titles, item.keys, strict=True):
                wanted[key] = (piece.text, title, piece.tokens)
        with (
            self._lock
        ):  # before the catalogue is asked: a key that leaves the set in between is in the catalogue by then
            under_way = self._under_way & wanted.keys()
        missing = self._catalog.missing_keys(self._encoder_id, wanted.keys()) - under_way
        order = [key for key in wanted if key in missing]
        vectors = self._encode([wanted[key] for key in order])
        fresh = dict(zip(order, vectors, strict=True))
        with self._lock:
            self._under_way |= missing
        writes = tuple(self._write(item, fresh) for item in prepared.documents if not item.unchanged)
        tokens = sum(wanted[key][2] for key in order)
        return Embedded(prepared, writes, len(order), tokens, frozenset(missing))

    def committed(self, batch: Embedded) -> None:
        """The batch's vectors are in the catalogue now."""
        with self._lock:
            self._under_way -= batch.keys

    def _encode(self, items: Sequence[tuple[str, str, int]]) -> Float16Array:
        if not items:
            return np.empty((0, self._encoder.dimensions), dtype=np.float16)
        texts, titles = [item[0] for item in items], [item[1] for item in items]
        return self._encoder.encode_documents(texts, titles=titles).astype(np.float16)

    def _write(self, item: PreparedDocument, fresh: Mapping[bytes, Float16Array]) -> DocumentWrite:
        vectors = {key: fresh[key] for key in item.keys if key in fresh}
        return DocumentWrite(item.document, item.state, item.chunks, item.keys, vectors, self._encoder_id)

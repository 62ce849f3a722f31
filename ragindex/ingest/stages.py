"""The two stages of ingest that cost time: reading and cutting files, and embedding chunks."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass

import numpy as np

from ragindex.chunking import ChunkOptions, chunk
from ragindex.encoder import Encoder, SpanPlan
from ragindex.errors import LoadError
from ragindex.ingest.context import ChunkContext
from ragindex.ingest.late import encode_planned
from ragindex.ingest.plan import MEMORY, Candidate
from ragindex.loaders import LoaderPool
from ragindex.store.catalog import Catalog
from ragindex.store.rows import DocumentWrite, FailureWrite, FileState, Float16Array
from ragindex.types import Chunk, Document

__all__ = ["CutStage", "Cutter", "EmbedStage", "Embedded", "LoadStage", "Prepared", "PreparedDocument"]


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A document that was read and cut. `titles` and `keys` are one per chunk; `unchanged`: the bytes are the known
    ones. `plan`: how its chunks, numbered by their ordinals, are embedded in its context; None where each is by itself.
    """

    document: Document
    state: FileState
    chunks: Sequence[Chunk]
    titles: Sequence[str]
    keys: Sequence[bytes]
    unchanged: bool
    replaces: bool
    plan: SpanPlan | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """What became of a batch of files. `ahead` are parts of a long document that are embedded before it is written."""

    documents: tuple[PreparedDocument, ...] = ()
    failures: tuple[FailureWrite, ...] = ()
    ahead: tuple[PreparedDocument, ...] = ()


@dataclass(frozen=True, slots=True)
class Embedded:
    """A batch ready to be committed. `fresh` chunks were embedded, `tokens` counts theirs; `ahead` are the vectors of
    documents that are not complete yet.
    """

    prepared: Prepared
    writes: tuple[DocumentWrite, ...]
    ahead: Mapping[bytes, Float16Array]
    fresh: int
    tokens: int
    keys: frozenset[bytes]


class Cutter:
    """Documents to chunks, with the titles and keys that embedding needs."""

    def __init__(self, context: ChunkContext, encoder: Encoder, options: ChunkOptions) -> None:
        self._context = context
        self._encoder = encoder
        self._counter = _Counter(encoder)
        self._options = options

    def cut(self, document: Document, state: FileState, *, replaces: bool) -> PreparedDocument:
        """Cut one document. After `cancel` it raises an error that nobody waits for."""
        chunks = chunk(document, self._options, self._counter, self._context.overhead)
        titles = [self._context.title(document.title, item.heading) for item in chunks]
        keys = self._context.keys(document, chunks)
        plan = self._plan(document, chunks) if self._context.late else None
        return PreparedDocument(document, state, chunks, titles, keys, unchanged=False, replaces=replaces, plan=plan)

    def cancel(self) -> None:
        """Give up what is being cut, in whatever thread: a hundred megabytes of text take minutes."""
        self._counter.stopped.set()

    def _plan(self, document: Document, chunks: Sequence[Chunk]) -> SpanPlan:
        spans = [(item.start, item.end) for item in chunks]
        title = self._context.title(document.title, ())
        return self._encoder.spans.plan(document.text, spans, title=title, tokens=self._counter)


class _Counter:
    """The encoder's tokenizer, until it is stopped; cutting asks it every few milliseconds."""

    def __init__(self, encoder: Encoder) -> None:
        self._offsets = encoder.tokenizer.offsets
        self.stopped = threading.Event()

    def offsets(self, text: str) -> np.ndarray:
        if self.stopped.is_set():
            raise CancelledError
        return self._offsets(text)


class LoadStage:
    """Files to documents to chunks. Never raises for a file: a bad one becomes a failure with its reason."""

    def __init__(self, pool: LoaderPool, cutter: Cutter, *, loader: str, attempt: str) -> None:
        self._pool = pool
        self._cutter = cutter
        self._loader = loader
        self._attempt = attempt

    def __call__(self, batch: Sequence[Candidate]) -> Prepared:
        """Read and cut a batch."""
        documents: list[PreparedDocument] = []
        failures: list[FailureWrite] = []
        for candidate in batch:
            try:
                documents.append(self._prepare(candidate))
            except LoadError as error:
                failures.append(self._failure(candidate, error.reason))
            except MemoryError:
                failures.append(self._failure(candidate, "not enough memory to read it"))
        return Prepared(tuple(documents), tuple(failures))

    def cancel(self) -> None:
        """Give up what is being read and cut."""
        self._cutter.cancel()
        self._pool.abort()

    def _prepare(self, candidate: Candidate) -> PreparedDocument:
        checked = time.time_ns()
        document = self._pool.load(candidate.path, name=candidate.name)
        state = FileState(candidate.name, candidate.size, candidate.mtime_ns, document.sha256, checked, self._loader)
        known = candidate.known
        if known is not None and (known.sha256, known.loader) == (document.sha256, self._loader):
            return PreparedDocument(document, state, (), (), (), unchanged=True, replaces=True)
        return self._cutter.cut(document, state, replaces=known is not None)

    def _failure(self, candidate: Candidate, reason: str) -> FailureWrite:
        """A failure of the content is not worth another try until the file, the loaders or the limits change."""
        attempt = self._attempt if _readable(candidate) else ""
        return FailureWrite(candidate.name, reason, candidate.size, candidate.mtime_ns, attempt)


class CutStage:
    """Documents that are no files to chunks."""

    def __init__(self, cutter: Cutter, known: Mapping[str, FileState]) -> None:
        self._cutter = cutter
        self._known = known

    def __call__(self, batch: Sequence[Document]) -> Prepared:
        """Cut a batch; a document whose text, title and metadata are the known ones is left alone."""
        return Prepared(tuple(self._prepare(document) for document in batch))

    def cancel(self) -> None:
        """Give up what is being cut."""
        self._cutter.cancel()

    def _prepare(self, document: Document) -> PreparedDocument:
        content = json.dumps([document.text, document.title, dict(document.metadata)], sort_keys=True)
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
        state = FileState(document.path, len(document.text), 0, digest, time.time_ns(), MEMORY)
        known = self._known.get(document.path)
        if known is not None and (known.sha256, known.loader) == (digest, MEMORY):
            return PreparedDocument(document, state, (), (), (), unchanged=True, replaces=True)
        return self._cutter.cut(document, state, replaces=known is not None)


def _readable(candidate: Candidate) -> bool:
    """Whether the file can be opened and is still the one that was planned for."""
    try:
        # Not blocking: the name may belong to a pipe by now.
        descriptor = os.open(candidate.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            info = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return (info.st_size, info.st_mtime_ns) == (candidate.size, candidate.mtime_ns)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A chunk to embed: by itself with its title, or by its document's plan."""

    chunk: Chunk
    title: str
    plan: SpanPlan | None


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
        wanted: dict[bytes, _Wanted] = {}
        for item in (*prepared.documents, *prepared.ahead):
            for piece, title, key in zip(item.chunks, item.titles, item.keys, strict=True):
                wanted[key] = _Wanted(piece, title, item.plan)
        # Before the catalogue is asked: a key that leaves the set in between is in the catalogue by then.
        with self._lock:
            under_way = self._under_way & wanted.keys()
        missing = self._catalog.missing_keys(self._encoder_id, wanted.keys()) - under_way
        fresh = self._encode({key: wanted[key] for key in wanted if key in missing})
        with self._lock:
            self._under_way |= missing
        writes = tuple(self._write(item, fresh) for item in prepared.documents if not item.unchanged)
        tokens = sum(wanted[key].chunk.tokens for key in fresh)
        ahead = {key: fresh[key] for item in prepared.ahead for key in item.keys if key in fresh}
        return Embedded(prepared, writes, ahead, len(fresh), tokens, frozenset(missing))

    def committed(self, batch: Embedded) -> None:
        """The batch's vectors are in the catalogue now."""
        with self._lock:
            self._under_way -= batch.keys

    def _encode(self, wanted: Mapping[bytes, _Wanted]) -> dict[bytes, Float16Array]:
        alone = {key: item for key, item in wanted.items() if item.plan is None}
        fresh: dict[bytes, Float16Array] = {}
        if alone:
            texts, titles = [item.chunk.text for item in alone.values()], [item.title for item in alone.values()]
            vectors = self._encoder.encode_documents(texts, titles=titles).astype(np.float16)
            fresh.update(zip(alone, vectors, strict=True))
        planned = {key: (item.plan, item.chunk.ordinal) for key, item in wanted.items() if item.plan is not None}
        fresh.update(encode_planned(self._encoder, planned))
        return fresh

    def _write(self, item: PreparedDocument, fresh: Mapping[bytes, Float16Array]) -> DocumentWrite:
        vectors = {key: fresh[key] for key in item.keys if key in fresh}
        return DocumentWrite(item.document, item.state, item.chunks, item.keys, vectors, self._encoder_id)

"""The frozen values that go into and come out of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ragindex.types import Chunk, Document, Metadata

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "BESIDE",
    "RECORD",
    "Activation",
    "Batch",
    "Changes",
    "ChunkRow",
    "Counts",
    "DocumentRow",
    "DocumentSpans",
    "DocumentWrite",
    "EncoderRow",
    "FailureRow",
    "FailureState",
    "FailureWrite",
    "FileState",
    "Float16Array",
    "Float32Array",
    "IdArray",
    "Mark",
    "Move",
    "TextEntry",
    "VectorBatch",
]

RECORD = "record"  # stands for the loader of a document that is a record of another program
BESIDE = "_ragindex"  # the key in a record's metadata under which lies what is nobody's metadata

if TYPE_CHECKING:
    IdArray = npt.NDArray[np.int64]
    Float32Array = npt.NDArray[np.float32]
    Float16Array = npt.NDArray[np.float16]
else:  # names for annotations: an index run that finds nothing new goes without numpy
    IdArray = Float32Array = Float16Array = Any


@dataclass(frozen=True, slots=True)
class EncoderRow:
    """An encoder that vectors of this store were made with.

    `locator` is how to find it again: a name, an absolute directory, a hub id, or `./…`, a directory in the store.
    """

    id: int
    fingerprint: str
    locator: str
    dimensions: int
    card: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Activation:
    """An encoder that began to serve: which one, when (seconds since 1970), why."""

    fingerprint: str
    locator: str
    activated_at: float
    note: str


class FileState(NamedTuple):
    """What is remembered of an indexed file so that an unchanged one is not read again.

    `sha256` is the hash of the file's bytes; `checked_ns` the time at which size and mtime were last seen (an mtime
    that is not older than that proves nothing); `loader` names the loader and its version.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str
    checked_ns: int
    loader: str


@dataclass(frozen=True, slots=True)
class FailureState:
    """What is remembered of a file that could not be read, so that it is tried again only after it changed."""

    path: str
    size: int
    mtime_ns: int
    sha256: str
    reason: str
    failed_at: float


@dataclass(frozen=True, slots=True)
class FailureRow:
    """A listed failure; `failed_at` is seconds since 1970."""

    path: str
    reason: str
    failed_at: float


@dataclass(frozen=True, slots=True)
class FailureWrite:
    """A failure to record. It also removes the document of that path: stale text must not keep answering."""

    path: str
    reason: str
    size: int = 0
    mtime_ns: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class DocumentWrite:
    """A document to add or to replace, with its chunks.

    `keys` holds one 16-byte vector key per chunk; `vectors` the fp16 vectors (d,) of the keys that
    `Catalog.missing_keys` reported.
    """

    document: Document
    state: FileState
    chunks: Sequence[Chunk]
    keys: Sequence[bytes]
    vectors: Mapping[bytes, Float16Array]
    encoder_id: int


@dataclass(frozen=True, slots=True)
class Move:
    """A document whose file has another path now and the same bytes; `state.path` equals `new`. `metadata` holds the
    values that came with the move; the others stay.
    """

    old: str
    new: str
    state: FileState
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything one transaction changes, applied in the order of the fields.

    `metadata` replaces the metadata of documents whose text stays (after moves and touches); its keys are the new
    paths.
    """

    removes: Sequence[str] = ()
    moves: Sequence[Move] = ()
    writes: Sequence[DocumentWrite] = ()
    touches: Sequence[FileState] = ()
    metadata: Mapping[str, Metadata] = field(default_factory=dict)
    failures: Sequence[FailureWrite] = ()
    cleared_failures: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A point in a collection's history: the last change's number and the random token of the commit that made it.

    Numbers alone would let a snapshot pass for current after the catalogue was restored from a backup and written to
    again.
    """

    generation: int = 0
    token: int = 0


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened to chunks between two marks, netted: each id is in one array. `added` includes moved chunks (to
    be put again).
    """

    added: IdArray
    removed: IdArray
    mark: Mark


@dataclass(frozen=True, slots=True)
class VectorBatch:
    """Vectors (n, d) float32 with their chunk ids (n,)."""

    ids: IdArray
    vectors: Float32Array


@dataclass(frozen=True, slots=True)
class TextEntry:
    """What the lexical index is told of a chunk, and the key of its vectors."""

    chunk_id: int
    text: str
    title: str
    heading: tuple[str, ...]
    path: str
    vector_key: bytes = b""


@dataclass(frozen=True, slots=True)
class DocumentSpans:
    """A document's text and where in it each of its chunks lies: (start, end) by the chunk's id, in order."""

    title: str
    text: str
    spans: Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """A chunk with what is needed to show and cite it; `metadata` and `loader` are the document's."""

    chunk_id: int
    document_id: int
    path: str
    title: str
    heading: tuple[str, ...]
    page: int | None
    line_start: int
    line_end: int
    start: int
    end: int
    text: str
    metadata: Mapping[str, Any]
    ordinal: int
    tokens: int
    loader: str = ""


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A document as `list` shows it; `length` is characters, `indexed_at` seconds since 1970."""

    document_id: int
    path: str
    title: str
    sha256: str
    size: int
    chunks: int
    tokens: int
    length: int
    metadata: Mapping[str, Any]
    indexed_at: float


@dataclass(frozen=True, slots=True)
class Counts:
    """The size of a collection. `vectors`: distinct vectors of the active encoder that its chunks use."""

    documents: int = 0
    chunks: int = 0
    vectors: int = 0
    failures: int = 0
    tokens: int = 0

"""Records: texts that other programs bring under ids of their own, stored uncut, as documents of one chunk each.

What a record says of itself is the document's metadata. The little that must come back with it but is nobody's
metadata (the length of its vector, what a framework keeps beside) lies there under one reserved key.

A text that is longer than its encoder reads is stored whole all the same; its vector is the mean of the vectors of its
windows, weighed by their tokens. With vectors that the caller brings there is no limit.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ragindex.errors import UsageError
from ragindex.store.rows import BESIDE, RECORD, ChunkRow, DocumentWrite, FileState, Float16Array
from ragindex.types import Chunk, Document, Record

if TYPE_CHECKING:
    from ragindex.encoder import Encoder
    from ragindex.encoder.brought import BroughtEncoder

__all__ = ["Described", "Drafted", "Own", "described", "drafted", "embed_whole", "is_record_key", "own"]

_HALF = 8  # bytes
_PERSON = b"record-1"
_INT64 = 1 << 63


class Own(NamedTuple):
    """A stored document's metadata, taken apart: what the record says, what lies beside, and the length of the vector
    that it brought (None: it brought none).
    """

    metadata: dict[str, Any]
    beside: Mapping[str, Any]
    norm: float | None


class Drafted(NamedTuple):
    """A record on its way into the store. `vector`: the one it brought, as a unit vector in half precision, or None
    where the encoder makes it; `key`: under which it is stored; `digest` changes with anything that would be stored.
    """

    record: Record
    metadata: dict[str, Any]
    vector: Float16Array | None
    key: bytes
    digest: str

    def write(self, vectors: Mapping[bytes, Float16Array], encoder_id: int, tokens: int) -> DocumentWrite:
        """What the catalogue is told. vectors: those that were made for this batch, by key."""
        text = self.record.text
        state = FileState(self.record.id, len(text), 0, self.digest, time.time_ns(), RECORD)
        document = Document(self.record.id, text, metadata=self.metadata)
        chunk = Chunk(0, 0, len(text), text, (), 1, text.count("\n") + 1, None, tokens)
        made = {self.key: vectors[self.key]} if self.key in vectors else {}
        return DocumentWrite(document, state, [chunk], [self.key], made, encoder_id)


def drafted(record: Record, *, ready: bool) -> Drafted:
    """Check a record. ready: vectors of this store come ready-made, so a record without one gets none.

    Raises UsageError for an id or metadata that cannot be stored and a vector that is none.
    """
    if not record.id.strip() or "\0" in record.id:
        raise UsageError(f"A record has the id {record.id!r}; give it one that is not empty.")
    metadata = _checked(record.metadata, record.id)
    vector, beside = None, _json(dict(record.beside), f"beside record {record.id!r}")
    hidden: dict[str, Any] = {"beside": beside} if beside else {}
    if record.vector is not None:
        vector, norm = _unit(record)
        hidden["norm"] = norm
    elif ready or not record.text.strip():
        hidden["vector"] = False
    metadata |= {BESIDE: hidden} if hidden else {}
    key = _key(record.text, b"" if vector is None else vector.tobytes(), made="vector" not in hidden)
    return Drafted(record, metadata, vector, key, _content(record.text, metadata, key.hex()))


def own(stored: Mapping[str, Any]) -> Own:
    """The inverse of what `drafted` does to metadata."""
    metadata = dict(stored)
    hidden = metadata.pop(BESIDE, {})
    return Own(metadata, hidden.get("beside", {}), hidden.get("norm"))


class Described(NamedTuple):
    """A stored record with other metadata."""

    metadata: dict[str, Any]
    state: FileState


def described(row: ChunkRow, state: FileState, changes: Mapping[str, Any]) -> Described:
    """A stored record with some keys of its metadata replaced. Raises UsageError for what cannot be stored."""
    metadata = {**row.metadata, **_checked(changes, row.path)}
    return Described(metadata, state._replace(sha256=_content(row.text, metadata, state.sha256.partition(":")[2])))


def embed_whole(encoder: Encoder | BroughtEncoder, texts: Sequence[str]) -> np.ndarray:
    """Unit vectors of whole texts, float32 (len(texts), dimensions); zeros for one that says nothing.

    A text longer than the encoder reads is cut into windows; the mean of their vectors, weighed by tokens, stands for
    it.
    """
    parts = [_windows(encoder, text) for text in texts]
    flat = [window for windows in parts for window in windows]
    vectors = encoder.encode_documents([window.text for window in flat])
    result = np.zeros((len(texts), encoder.dimensions), np.float32)
    start = 0
    for place, windows in enumerate(parts):
        if windows:
            weights = np.array([window.tokens for window in windows], np.float32)
            mean = weights @ vectors[start : start + len(windows)]
            result[place] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        start += len(windows)
    return result


def is_record_key(key: bytes, text: str) -> bool:
    """Whether a vector's key says that it is of a whole record with this text."""
    return key[:_HALF] == _digest(text)


class _Window(NamedTuple):
    text: str
    tokens: int


def _windows(encoder: Encoder | BroughtEncoder, text: str) -> list[_Window]:
    if not text.strip():
        return []
    if encoder.tokenizer is None:
        return [_Window(text, 1)]
    room = encoder.max_tokens - encoder.document_overhead("")
    offsets = encoder.tokenizer.offsets(text)
    if len(offsets) <= room:
        return [_Window(text, 1)]
    room -= 2  # a window may be cut otherwise at its ends than within the text
    cuts = [offsets[start : start + room] for start in range(0, len(offsets), room)]
    return [_Window(text[int(cut[0][0]) : int(cut[-1][1])], len(cut)) for cut in cuts]


def _unit(record: Record) -> tuple[Float16Array, float]:
    try:
        vector = np.asarray(record.vector, np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"The vector of record {record.id!r} is no list of numbers.") from error
    if vector.ndim != 1 or not len(vector) or not np.isfinite(vector).all():
        raise UsageError(f"The vector of record {record.id!r} is no list of finite numbers.")
    norm = float(np.linalg.norm(vector))
    return (vector / (norm or 1.0)).astype(np.float16), norm


def _key(text: str, vector: bytes, *, made: bool) -> bytes:
    """16 bytes; those of equal texts whose vector the encoder makes are equal, so that it is made once."""
    rest = hashlib.blake2b(vector, digest_size=_HALF, person=_PERSON + (b"" if made else b"-none")).digest()
    return _digest(text) + rest


def _content(text: str, metadata: Mapping[str, Any], key: str) -> str:
    """Changes with anything that is stored of a record; ends in the key of its vector."""
    content = json.dumps([text, metadata], sort_keys=True)
    return f"{hashlib.sha256(content.encode()).hexdigest()}:{key}"


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_HALF, person=_PERSON).digest()


def _checked(metadata: Mapping[str, Any], identifier: str) -> dict[str, Any]:
    """The metadata of a record as JSON gives it back. Raises UsageError for what it cannot hold."""
    for key in metadata:
        if not isinstance(key, str):
            raise UsageError(f"The metadata of record {identifier!r} has the key {key!r}; keys are texts.")
    if BESIDE in metadata:
        raise UsageError(f"{BESIDE!r} in the metadata of record {identifier!r} is reserved; give it another name.")
    return {key: _json(value, f"{key!r} of record {identifier!r}") for key, value in metadata.items()}


def _json(value: Any, where: str) -> Any:
    """The value as JSON gives it back: lists for tuples, null for numbers that are not finite, as ever in a store."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int) and -_INT64 <= value < _INT64:
        return int(value)
    if isinstance(value, list | tuple):
        return [_json(item, where) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _json(item, where) for key, item in value.items()}
    raise UsageError(
        f"The metadata {where} is of the type {type(value).__name__}, which cannot be stored; give text, numbers, "
        "true, false, null, or lists and objects of these."
    )

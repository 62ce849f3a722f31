"""Late chunking of documents: one plan for all chunks of a document, and keys that know which document they are of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b

import numpy as np

from ragindex.encoder import Encoder, SpanPlan
from ragindex.store.rows import Float16Array
from ragindex.types import Chunk

__all__ = ["encode_planned", "is_late_key", "late_keys"]

_HALF = 8  # bytes
_PERSON = b"late-chunking-1"


def late_keys(text: str, context: Sequence[str], chunks: Sequence[Chunk]) -> list[bytes]:
    """The 16 bytes under which the vector of each chunk of a document is stored, once per encoder.

    A vector depends on the whole text, on where all of its chunks lie (windows are made for them) and on `context`,
    what else is told of the document: on who embeds it, as always, only through the encoder that it is stored for. So
    no chunk is taken for one of another document that says the same, and a copy under another path is not embedded
    again.
    """
    document = _text_digest(text)
    whole = blake2b(digest_size=32, person=_PERSON)
    for part in (text, *context):
        encoded = part.encode("utf-8", "surrogatepass")
        whole.update(len(encoded).to_bytes(8, "little") + encoded)
    for chunk in chunks:
        whole.update(_span(chunk))
    keys = []
    for chunk in chunks:
        own = whole.copy()
        own.update(_span(chunk))
        keys.append(document + own.digest()[:_HALF])
    return keys


def encode_planned(
    encoder: Encoder, wanted: Mapping[bytes, tuple[SpanPlan, int]]
) -> Iterator[tuple[bytes, Float16Array]]:
    """The vector of each key's span, given as its plan and its place there; float16 (d,). Each plan is read once."""
    plans: dict[int, SpanPlan] = {}
    places: dict[int, dict[bytes, int]] = {}
    for key, (plan, place) in wanted.items():
        plans[id(plan)] = plan
        places.setdefault(id(plan), {})[key] = place
    parts = [plan.only(list(places[number].values())) for number, plan in plans.items()]
    for keys, vectors in zip(places.values(), encoder.spans.encode(parts) if parts else (), strict=True):
        yield from zip(keys, vectors.astype(np.float16), strict=True)


def is_late_key(key: bytes, text: str) -> bool:
    """Whether a chunk of the document with this text was embedded in its context: its key begins with the text's
    digest.
    """
    return key[:_HALF] == _text_digest(text)


def _text_digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_HALF, person=_PERSON).digest()


def _span(chunk: Chunk) -> bytes:
    return chunk.start.to_bytes(8, "little") + chunk.end.to_bytes(8, "little")

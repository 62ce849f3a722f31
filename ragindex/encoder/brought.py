"""An embedding object that the caller brings, or vectors that come without one, as the encoder of a store.

Nobody outside can see weights, so such an encoder is known by what it does: the vectors of two probes, a document and
a query, are kept with the store and compared whenever an object is brought. Where the vectors come ready-made there
is nothing to ask, and the name that the caller gives them has to do.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np

from ragindex.encoder.checkpoint import EncoderConfig
from ragindex.errors import EncoderError, UsageError

__all__ = ["BROUGHT", "BroughtEncoder", "Embedding", "alike"]

BROUGHT = "brought:"  # begins the locator of an encoder that only its owner can find
_DOCUMENT = "The ferry to the islands leaves at seven in summer and does not run in storms."
_QUERY = "When does the ferry to the islands leave?"
_KEPT = 128  # values of a probe's vector; two models that agree on so many are one
_ALIKE = 0.98  # cosine: half precision and other batch sizes stay far above it, other models and prompts below


class Embedding(Protocol):
    """What a caller brings; LangChain's `Embeddings` is one as it stands."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text, all of one length."""

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query, of the same length."""


class BroughtEncoder:
    """Makes vectors through the caller's object and refuses a store that was built with another one.

    name: tells people which one it is, and identifies vectors that come without an object. embedding: None for those;
    dimensions: their length, where records without a vector may come before the first one that has one. An object is
    asked when its fingerprint is first needed, no earlier. Thread-safe where the object is.
    """

    reader = None  # as far as anybody knows
    tokenizer = None  # texts go to the object whole: how it counts is its own matter

    def __init__(self, name: str, embedding: Embedding | None = None, *, dimensions: int | None = None) -> None:
        if not name.strip():
            raise UsageError("An embedding needs a name, for example that of its model.")
        self._label = name
        self._embedding = embedding
        self._dimensions = dimensions
        self._fingerprint = ""
        self._probe: Mapping[str, str] = {}

    @property
    def name(self) -> str:
        """The locator under which the store keeps it."""
        return BROUGHT + self._label

    @property
    def embeds(self) -> bool:
        """Whether there is an object to make vectors with."""
        return self._embedding is not None

    @property
    def dimensions(self) -> int:
        """Length of the vectors. Raises UsageError as long as none was seen."""
        if self._dimensions is None:
            raise UsageError(
                f"No vector of {self._label!r} came yet, so nobody knows its length; give the number of its dimensions."
            )
        return self._dimensions

    @property
    def fingerprint(self) -> str:
        """Of the probes' vectors, or of the name and the length."""
        if not self._fingerprint:
            parts = (
                f"named\0{self._label}\0{self.dimensions}" if not self.embeds else "\0".join(self._probed().values())
            )
            self._fingerprint = blake2b(parts.encode(), digest_size=16).hexdigest()
        return self._fingerprint

    @property
    def config(self) -> EncoderConfig:
        """What a store asks of an encoder's settings; the card holds the probes."""
        card: dict[str, Any] = {"embedding": self._label}
        if self.embeds:
            card |= {"dimensions": self.dimensions, "probe": dict(self._probed())}
        return EncoderConfig(dimensions=self.dimensions, card=card)

    def recognise(self, known: Mapping[str, Mapping[str, Any]], active: int | None) -> None:
        """Take the fingerprint of that one of the store's encoders (cards by fingerprint) that gives the same vectors
        for the probes. active: the length of the vectors of the store, None when it has none.
        """
        if not self.embeds:
            self.fit(active)
            return
        for fingerprint, card in known.items():
            kept = card.get("probe")
            if not isinstance(kept, dict) or not all(
                _same(kept.get(side), made) for side, made in self._probed().items()
            ):
                continue
            if card.get("dimensions") == self.dimensions:
                self._fingerprint = fingerprint

    def fit(self, dimensions: int | None) -> None:
        """Learn the length of vectors that come without an object. Raises UsageError for a second one."""
        if dimensions is not None and self._dimensions not in (None, dimensions):
            raise UsageError(f"The vectors of {self._label!r} have {self._dimensions} values each, not {dimensions}.")
        self._dimensions = self._dimensions or dimensions

    def encode_queries(
        self, texts: Sequence[str], *, instruction: str | None = None, task: str | None = None
    ) -> np.ndarray:
        """Unit vectors, float32 (n, dimensions). Raises UsageError without an object, for an instruction or a task."""
        if instruction or task:
            raise UsageError("An embedding object writes its own prompts, so a query takes no instruction here.")
        embed = self._object().embed_query
        return self._unit(lambda: [embed(text) for text in texts], len(texts))

    def encode_documents(self, texts: Sequence[str], *, titles: Sequence[str] | None = None) -> np.ndarray:  # noqa: ARG002
        """Unit vectors, float32 (len(texts), dimensions). Raises UsageError without an object."""
        embed = self._object().embed_documents
        return self._unit(lambda: embed(list(texts)), len(texts))

    def _object(self) -> Embedding:
        if self._embedding is None:
            raise UsageError(
                f"The vectors of {self._label!r} come ready-made: give the query's vector too, or search with the "
                "mode 'lexical'."
            )
        return self._embedding

    def _unit(self, make: Callable[[], list[list[float]]], count: int) -> np.ndarray:
        if not count:
            return np.empty((0, self.dimensions), np.float32)
        try:
            vectors = np.asarray(make(), np.float32)
        except ValueError as error:
            raise EncoderError(f"The embedding {self._label!r} gives vectors of different lengths.") from error
        if vectors.ndim != 2 or len(vectors) != count:
            raise EncoderError(f"The embedding {self._label!r} gives {len(vectors)} vectors for {count} texts.")
        if not np.isfinite(vectors).all():
            raise EncoderError(f"The embedding {self._label!r} gives vectors that are not finite.")
        self.fit(vectors.shape[1])
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)

    def _probed(self) -> Mapping[str, str]:
        if not self._probe:
            vectors = {"document": self.encode_documents([_DOCUMENT])[0], "query": self.encode_queries([_QUERY])[0]}
            self._probe = {
                side: base64.b64encode(vector[:_KEPT].astype("<f2").tobytes()).decode()
                for side, vector in vectors.items()
            }
        return self._probe


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two vectors of one text may come from the same embedding."""
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return len(one) == len(other) and float(one @ other) >= _ALIKE * scale


def _same(kept: object, made: str) -> bool:
    return isinstance(kept, str) and alike(_unpacked(kept), _unpacked(made))


def _unpacked(packed: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed), "<f2").astype(np.float32)

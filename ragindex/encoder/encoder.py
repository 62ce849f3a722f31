"""The encoder: texts in, unit vectors out. `encode_queries` and `encode_documents` are the only ways in."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from ragindex.encoder import numpy_forward
from ragindex.encoder.checkpoint import Attention, Checkpoint, EncoderConfig, Pooling
from ragindex.encoder.fingerprint import fingerprint
from ragindex.encoder.prompts import Prompted, Prompts
from ragindex.encoder.resolve import find_checkpoint
from ragindex.encoder.rope import RopeScaling
from ragindex.encoder.saving import save_encoder
from ragindex.encoder.tokenizer import EncoderTokenizer, Tokenized
from ragindex.errors import EncoderError, UsageError

__all__ = ["Encoder", "TextEncoder"]

_WINDOW = 16_384  # texts tokenised at a time, so that memory stays bounded however many there are
_FEW_TOKENS = 256  # up to here numpy answers before torch would be imported


@runtime_checkable
class TextEncoder(Protocol):
    """What the rest of ragindex asks of an encoder."""

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""

    @property
    def max_tokens(self) -> int:
        """Longest input in tokens, prompt and special tokens included."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever a vector could."""

    def encode_queries(self, texts: Sequence[str], *, instruction: str | None = None) -> np.ndarray:
        """Unit vectors, float32 (len(texts), dimensions)."""

    def encode_documents(self, texts: Sequence[str], *, titles: Sequence[str] | None = None) -> np.ndarray:
        """Unit vectors, float32 (len(texts), dimensions)."""


class Forward(Protocol):
    """Tokenised texts in, unit vectors out, float32 (len(batch), d)."""

    @property
    def is_static(self) -> bool:
        """Whether no token reads any other."""

    def __call__(self, batch: Sequence[Tokenized]) -> np.ndarray:
        """The vectors, in the order of `batch`."""


class Encoder:
    """An LLM2Vec-style encoder: a decoder made bidirectional, pooled and normalised.

    Opening reads the configuration and the tokenizer; weights are read at the first text. Short queries run in numpy
    where the architecture allows it, everything else in torch (GPU when there is one). Thread-safe.

    A vector depends on its own text alone, up to rounding: whether it is encoded by itself or among others, padded or
    not, in numpy or in torch, 1 - cosine stays below 1e-5 in float32 and 2e-3 in bfloat16, the limits that
    `ragindex encoder probe` holds an encoder to.
    """

    def __init__(self, checkpoint: Checkpoint, *, dimensions: int | None = None, device: str | None = None) -> None:
        full = checkpoint.config.dimensions
        if dimensions is not None and not 1 <= dimensions <= full:
            raise UsageError(f"This encoder has {full} dimensions; {dimensions} cannot be had from it.")
        self._checkpoint = checkpoint
        self._device = device
        self._lock = threading.Lock()
        self._forwards: dict[str, Forward] = {}
        self.dimensions = dimensions or full
        self.tokenizer = EncoderTokenizer(checkpoint)

    @classmethod
    def load(
        cls,
        name: str | Path = "bundled",
        *,
        adapters: Sequence[str | Path] = (),
        attention: Attention | None = None,
        pooling: Pooling | None = None,
        prompts: Prompts | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        rope_scaling: RopeScaling | None = None,
        dimensions: int | None = None,
        device: str | None = None,
    ) -> Encoder:
        """The encoder called `name`: "bundled", a directory, or a hub id such as "organisation/model".

        A directory may be an encoder's own, a sentence-transformers model of a decoder, an LLM2Vec adapter (with what
        it was trained on), or a plain decoder, which becomes bidirectional and mean-pooled. adapters: LoRA directories
        to merge on top, first one first.

        attention, pooling, prompts, max_tokens, temperature: in place of what is stored, or of the default for a plain
        decoder. rope_scaling: for longer texts; the limit grows with it unless `max_tokens` is given. All are saved,
        and all but the limit are part of the fingerprint. dimensions: cut the vectors to their first values and
        normalise them again (Matryoshka, arXiv 2205.13147). device: "cpu", "cuda", …

        Raises EncoderError when there is no such encoder or it is incomplete.
        """
        found = find_checkpoint(str(name), adapters=tuple(map(str, adapters)))
        if rope_scaling is not None and max_tokens is None:
            max_tokens = int(found.config.max_tokens * rope_scaling.factor)
        given = {
            "attention": attention,
            "pooling": pooling,
            "prompts": prompts,
            "max_tokens": max_tokens,
            "temperature": temperature,
        }
        changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        return cls(
            replace(found, config=replace(found.config, **changes), rope_scaling=rope_scaling),
            dimensions=dimensions,
            device=device,
        )

    @property
    def name(self) -> str:
        """What `load` was called with."""
        return self._checkpoint.name

    @property
    def config(self) -> EncoderConfig:
        """Attention, pooling, prompts, limits and card."""
        return self._checkpoint.config

    @property
    def max_tokens(self) -> int:
        """Longest input in tokens, prompt and special tokens included."""
        return self.config.max_tokens

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest over weights, tokenizer, pooling, prompts and dimensions."""
        return fingerprint(self._checkpoint, self.tokenizer.serialised(), self.dimensions)

    def encode_queries(self, texts: Sequence[str], *, instruction: str | None = None) -> np.ndarray:
        """Unit vectors of queries, float32 (len(texts), dimensions).

        instruction: None takes the encoder's default, an empty string none. A query longer than `max_tokens` is an
        EncoderError.
        """
        return self._encode([self.config.prompts.for_query(text, instruction) for text in _several(texts)])

    def encode_documents(self, texts: Sequence[str], *, titles: Sequence[str] | None = None) -> np.ndarray:
        """Unit vectors of documents or chunks, float32 (len(texts), dimensions); `titles` is empty or as long as
        `texts`.
        """
        texts = _several(texts)
        if titles is not None and len(titles) != len(texts):
            raise UsageError(f"There are {len(texts)} texts but {len(titles)} titles.")
        pairs = zip(texts, titles or [""] * len(texts), strict=True)
        return self._encode([self.config.prompts.for_document(text, title) for text, title in pairs])

    def document_overhead(self, title: str) -> int:
        """Tokens that prompt, title and special tokens cost a document with this title.

        One token of slack is counted: the last token of the prompt and the first of the text may meet differently
        than alone.
        """
        prefix = self.config.prompts.document_prefix(title)
        return self.tokenizer.count(prefix) + self.tokenizer.specials + (1 if prefix else 0)

    def save(self, directory: str | Path) -> None:
        """Write the encoder, with the settings and dimensions it was loaded with, into `directory` (created; must be
        empty or absent), in the layout of sentence-transformers; see `ragindex.encoder.layout`.

        The copy has the same fingerprint, unless adapters are merged, which writes new weights (in float32).
        """
        save_encoder(self._checkpoint, self.tokenizer.serialised(), Path(directory), dimensions=self.dimensions)

    def _encode(self, inputs: list[Prompted]) -> np.ndarray:
        result = np.empty((len(inputs), self.dimensions), dtype=np.float32)
        start = 0
        for tokenized in self._windows(inputs):
            vectors = self._forward_for(tokenized)(tokenized)
            result[start : start + len(tokenized)] = self._cut(vectors)
            start += len(tokenized)
        return result

    def _windows(self, inputs: list[Prompted]) -> Iterator[list[Tokenized]]:
        """The inputs tokenised, a window at a time; while one is used, the next one is made in a thread."""
        if len(inputs) <= _WINDOW:
            if inputs:
                yield self.tokenizer.tokenize(inputs)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="ragindex-tokenizer") as pool:
            coming = pool.submit(self.tokenizer.tokenize, inputs[:_WINDOW])
            for start in range(_WINDOW, len(inputs) + _WINDOW, _WINDOW):
                window = coming.result()
                coming = pool.submit(self.tokenizer.tokenize, inputs[start : start + _WINDOW])
                yield window

    def _cut(self, vectors: np.ndarray) -> np.ndarray:
        if vectors.shape[1] < self.config.dimensions:
            raise EncoderError(
                f"The weights give {vectors.shape[1]} dimensions, the configuration says {self.config.dimensions}."
            )
        if not np.isfinite(vectors).all():
            raise EncoderError(f"The encoder {self.name!r} gives vectors that are not finite; its weights are damaged.")
        if self.dimensions == vectors.shape[1]:
            return vectors
        vectors = vectors[:, : self.dimensions]
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))

    def _forward_for(self, batch: Sequence[Tokenized]) -> Forward:
        if self._numpy_supported:
            small = self._loaded("numpy")
            if small.is_static or sum(len(item.ids) for item in batch) <= _FEW_TOKENS:
                return small
        return self._loaded("torch")

    @cached_property
    def _numpy_supported(self) -> bool:
        return numpy_forward.supports(self._checkpoint)

    def _loaded(self, kind: Literal["numpy", "torch"]) -> Forward:
        with self._lock:  # whoever comes first reads the weights, the others wait for them
            if kind not in self._forwards:
                self._forwards[kind] = self._load(kind)
            return self._forwards[kind]

    def _load(self, kind: Literal["numpy", "torch"]) -> Forward:
        if kind == "numpy":
            return numpy_forward.NumpyForward(self._checkpoint)
        from ragindex.encoder.torch_forward import TorchForward

        return TorchForward(self._checkpoint, device=self._device)


def _several(texts: Sequence[str]) -> Sequence[str]:
    """`texts`, unless it is one string, which would pass for a list of its characters."""
    if isinstance(texts, str):
        raise UsageError("Give a list of texts, not a single text.")
    return texts

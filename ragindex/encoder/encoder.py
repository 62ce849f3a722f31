"""The encoder: texts in, unit vectors out. `encode_queries` and `encode_documents` are the only ways in."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, runtime_checkable

import numpy as np

from ragindex.encoder import numpy_forward
from ragindex.encoder.architectures import positions
from ragindex.encoder.checkpoint import Attention, Checkpoint, EncoderConfig, Pooling
from ragindex.encoder.fingerprint import fingerprint
from ragindex.encoder.foreign import is_static
from ragindex.encoder.head import Head
from ragindex.encoder.prompts import Example, Prompted, Prompts
from ragindex.encoder.quantise import Output, Quantiser
from ragindex.encoder.reading import TextReader, TokenForward
from ragindex.encoder.resolve import find_checkpoint
from ragindex.encoder.rope import RopeScaling
from ragindex.encoder.saving import save_encoder
from ragindex.encoder.spans import SpanReader
from ragindex.encoder.static_forward import StaticForward
from ragindex.encoder.tokenizer import EncoderTokenizer, Tokenized
from ragindex.encoder.windows import Span
from ragindex.errors import EncoderError, UsageError

if TYPE_CHECKING:
    from ragindex.encoder.torch_forward import Execution

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

    @property
    def reader(self) -> TextReader | None:
        """What reads texts while a user waits; None where tokens read each other."""

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


class DecoderForward(Forward, Protocol):
    """A forward pass of a decoder, which can be left before its states are pooled."""

    def states(self, batch: Sequence[Tokenized]) -> Iterable[np.ndarray]:
        """Last hidden states, float32 (length, hidden) of each text, in the order of `batch`."""


class Encoder:
    """An LLM2Vec-style encoder: a decoder made bidirectional, pooled and normalised.

    Opening reads the configuration and the tokenizer; weights are read at the first text. Short queries run in numpy
    where the architecture allows it, everything else in torch (GPU when there is one). Thread-safe.

    A vector depends on its own text alone, up to rounding: whether it is encoded by itself or among others, padded or
    not, in numpy or in torch, 1 - cosine stays below 1e-5 in float32 and 2e-3 in bfloat16, the limits that
    `ragindex encoder probe` holds an encoder to.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        dimensions: int | None = None,
        device: str | None = None,
        execution: Execution = "free",
    ) -> None:
        full = checkpoint.config.dimensions
        if dimensions is not None and not 1 <= dimensions <= full:
            raise UsageError(f"This encoder has {full} dimensions; {dimensions} cannot be had from it.")
        reach = positions(checkpoint.model_config())
        if reach is not None and checkpoint.config.max_tokens > reach:
            raise UsageError(
                f"This encoder has positions for {reach} tokens, so it cannot read {checkpoint.config.max_tokens}."
            )
        self._checkpoint = checkpoint
        self._device, self._execution = device, execution
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
        saturation: float | None = None,
        lead: float | None = None,
        rope_scaling: RopeScaling | None = None,
        dimensions: int | None = None,
        device: str | None = None,
        execution: Execution = "free",
    ) -> Encoder:
        """The encoder called `name`: "bundled", a directory, or a hub id such as "organisation/model".

        A directory may be an encoder's own, a sentence-transformers model, an LLM2Vec adapter (with what it was
        trained on), or a plain decoder, which becomes bidirectional and mean-pooled. adapters: LoRA directories to
        merge on top, first one first. A sentence-transformers model that is no decoder (BGE, E5, MiniLM) is run as
        its own modules say (`ragindex.encoder.foreign`); only its prompts, limit and dimensions can be changed.

        attention, pooling, prompts, max_tokens, temperature, saturation, lead: in place of what is stored, or of the
        default for a plain decoder (see `EncoderConfig`). rope_scaling: for longer texts; the limit grows with it
        unless `max_tokens` is given. All are saved, and all but the limit are part of the fingerprint. dimensions: cut
        the vectors to their first values and normalise them again (Matryoshka, arXiv 2205.13147).

        device: "cpu", "cuda", or several, "cuda:0,cuda:1", with a process each; a program that starts such needs the
        usual `if __name__ == "__main__":`. execution: "compiled" compiles the layers first, for long runs; "stable"
        gives a text the same bits in any company; see `ragindex.encoder.torch_forward`.

        Raises EncoderError when there is no such encoder or it is incomplete.
        """
        found = find_checkpoint(str(name), adapters=tuple(map(str, adapters)))
        fixed = {
            "attention": attention,
            "pooling": pooling,
            "temperature": temperature,
            "saturation": saturation,
            "lead": lead,
            "rope_scaling": rope_scaling,
        }
        _check_changes(found, [key for key, value in fixed.items() if value is not None], pooling)
        if rope_scaling is not None and max_tokens is None:
            max_tokens = int(found.config.max_tokens * rope_scaling.factor)
        given = {
            "attention": attention,
            "pooling": pooling,
            "prompts": prompts,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "saturation": saturation,
            "lead": lead,
        }
        changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        if found.is_foreign and prompts is not None:  # what of them is pooled is its pooling module's matter
            changes["prompts"] = replace(prompts, pooled=found.config.prompts.pooled)
        return cls(
            replace(found, config=replace(found.config, **changes), rope_scaling=rope_scaling),
            dimensions=dimensions,
            device=device,
            execution=execution,
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

    def encode_queries(
        self,
        texts: Sequence[str],
        *,
        instruction: str | None = None,
        task: str | None = None,
        examples: Sequence[Example] | None = None,
        output: Output | Quantiser = "float32",
    ) -> np.ndarray:
        """Unit vectors of queries, float32 (len(texts), dimensions).

        instruction: None takes the encoder's default, an empty string none; task: the name of instruction, examples
        and template that are stored with the encoder, in its place; examples: shown before every query, in place of
        the stored ones. They count: a query that is longer than `max_tokens` with its prompt is an EncoderError.
        output: smaller forms of the vectors, whose type and shape `ragindex.encoder.quantise` gives.
        """
        prompts = self.config.prompts
        prompted = [prompts.for_query(text, instruction, task=task, examples=examples) for text in _several(texts)]
        return self._encode(prompted, self.quantiser(output))

    def encode_documents(
        self,
        texts: Sequence[str],
        *,
        titles: Sequence[str] | None = None,
        task: str | None = None,
        output: Output | Quantiser = "float32",
    ) -> np.ndarray:
        """Unit vectors of documents or chunks, float32 (len(texts), dimensions); `titles` is empty or as long as
        `texts`.

        task: a symmetric one (similarity, duplicates, clustering) gives documents the query's prompt; others change
        nothing here. output: as for queries.
        """
        texts = _several(texts)
        if titles is not None and len(titles) != len(texts):
            raise UsageError(f"There are {len(texts)} texts but {len(titles)} titles.")
        pairs = zip(texts, titles or [""] * len(texts), strict=True)
        prompted = [self.config.prompts.for_document(text, title, task=task) for text, title in pairs]
        return self._encode(prompted, self.quantiser(output))

    def encode_spans(self, text: str, spans: Sequence[Span], *, title: str = "") -> np.ndarray:
        """Unit vectors of parts of one text, pooled after all of it was read (late chunking): float32
        (len(spans), dimensions). See `ragindex.encoder.spans`.

        spans: characters (start, end), in any order. Raises UsageError for one that is not in the text and for an
        encoder that does not pool by mean or weighted mean, EncoderError for one that is longer than `max_tokens`.
        """
        (vectors,) = self.spans.encode([self.spans.plan(text, spans, title=title)])
        return vectors

    @cached_property
    def spans(self) -> SpanReader:
        """Late chunking of many texts at once. Raises UsageError when the encoder's pooling does not allow it."""
        head = Head.read(self._checkpoint.directory)
        return SpanReader(self.config, self.tokenizer, head, states=self._states, cut=self._cut)

    @cached_property
    def reader(self) -> TextReader | None:
        """What reads texts while a user waits (`ragindex.encoder.reading`); None where tokens read each other."""
        if not self._numpy_supported or not (forward := self._loaded("numpy")).is_static:
            return None
        return TextReader(self.config.prompts, self.tokenizer, cast("TokenForward", forward), cut=self._cut)

    def quantiser(self, output: Output | Quantiser) -> Quantiser:
        """What decodes and compares vectors of this encoder in a smaller form. Raises UsageError for an unknown form,
        and for a quantiser of other dimensions.
        """
        made = output if isinstance(output, Quantiser) else Quantiser(output, self.dimensions)
        if made.dimensions != self.dimensions:
            raise UsageError(f"The quantiser is for {made.dimensions} dimensions; this encoder has {self.dimensions}.")
        return made

    def document_overhead(self, title: str) -> int:
        """Tokens that prompt, title and special tokens cost a document with this title.

        One token of slack is counted where prompt and text meet: there they may be cut differently than alone.
        """
        around = (self.config.prompts.document_prefix(title), self.config.prompts.document_suffix)
        return self.tokenizer.specials + sum(self.tokenizer.count(part) + 1 for part in around if part)

    def save(self, directory: str | Path) -> None:
        """Write the encoder, with the settings and dimensions it was loaded with, into `directory` (created; must be
        empty or absent), in the layout of sentence-transformers; see `ragindex.encoder.layout`.

        The copy has the same fingerprint, unless adapters are merged, which writes new weights (in float32).
        """
        save_encoder(self._checkpoint, self.tokenizer.serialised(), Path(directory), dimensions=self.dimensions)

    def _encode(self, inputs: list[Prompted], quantiser: Quantiser) -> np.ndarray:
        result = quantiser.empty(len(inputs))
        start = 0
        for tokenized in self._windows(inputs):
            vectors = self._forward_for(tokenized)(tokenized)
            result[start : start + len(tokenized)] = quantiser.encode(self._cut(vectors))
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

    def _states(self, batch: Sequence[Tokenized]) -> Iterable[np.ndarray]:
        return cast("DecoderForward", self._forward_for(batch)).states(batch)

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
            few = sum(len(item.ids) for item in batch) <= _FEW_TOKENS
            if small.is_static or (few and self._execution != "stable"):  # the two differ in their last bits
                return small
        return self._loaded("torch")

    @cached_property
    def _numpy_supported(self) -> bool:
        found = self._checkpoint
        return is_static(found.directory) if found.is_foreign else numpy_forward.supports(found)

    def _loaded(self, kind: Literal["numpy", "torch"]) -> Forward:
        with self._lock:  # whoever comes first reads the weights, the others wait for them
            if kind not in self._forwards:
                self._forwards[kind] = self._load(kind)
            return self._forwards[kind]

    def _load(self, kind: Literal["numpy", "torch"]) -> Forward:
        found = self._checkpoint
        if kind == "numpy":
            return StaticForward(found) if found.is_foreign else numpy_forward.NumpyForward(found)
        if found.is_foreign:
            from ragindex.encoder.foreign_forward import ForeignForward

            return ForeignForward(found, device=self._device)
        from ragindex.encoder.workers import load_forward

        return load_forward(found, device=self._device, execution=self._execution)


def _several(texts: Sequence[str]) -> Sequence[str]:
    """`texts`, unless it is one string, which would pass for a list of its characters."""
    if isinstance(texts, str):
        raise UsageError("Give a list of texts, not a single text.")
    return texts


def _check_changes(found: Checkpoint, changes: Sequence[str], pooling: Pooling | None) -> None:
    if found.is_foreign and changes:
        raise UsageError(
            f"{found.name!r} is a sentence-transformers model with modules of its own; its "
            f"{changes[0].replace('_', ' ')} cannot be changed."
        )
    if pooling == "modules" and not found.is_foreign:
        raise UsageError(f"{found.name!r} is a decoder; pooling by modules is for other kinds of encoders.")

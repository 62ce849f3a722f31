"""Text to token ids and back to character positions, with the encoder's own tokenizer.

Loads neither torch nor transformers for a `tokenizer.json`, which is what an encoder's own directory holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer, normalizers

from ragindex.encoder.checkpoint import TOKENIZER_FILE, Checkpoint
from ragindex.encoder.foreign import lowers_case
from ragindex.encoder.prompts import Prompted
from ragindex.errors import EncoderError

__all__ = ["EncoderTokenizer", "Located", "Tokenized"]


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Token ids of one input and which of them are pooled (at least one is)."""

    ids: np.ndarray  # int64 (length,)
    pooled: np.ndarray  # bool (length,)


@dataclass(frozen=True, slots=True)
class Located:
    """An input's tokens and, int64 (length, 2), the characters each is made of; (-1, -1) for a special token."""

    tokenized: Tokenized
    spans: np.ndarray

    def within(self, span: tuple[int, int]) -> np.ndarray:
        """Which tokens have a character in the span, bool (length,). A token that stands for none, as a space before
        the first word may, goes with the next one.
        """
        ends = np.maximum(self.spans[:, 1], self.spans[:, 0] + 1)
        inside: np.ndarray = (self.spans[:, 0] >= 0) & (self.spans[:, 0] < span[1]) & (ends > span[0])
        return inside


class EncoderTokenizer:
    """Wraps the tokenizer of a checkpoint. Thread-safe."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._config = checkpoint.config
        self._vocabulary = checkpoint.vocabulary()
        self._file = checkpoint.tokenizer
        self._tokenizer = _read(self._file) if self._file.is_file() else _convert(self._file)
        if checkpoint.is_foreign and lowers_case(checkpoint.backbone):
            rest = [self._tokenizer.normalizer] if self._tokenizer.normalizer is not None else []
            self._tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *rest])
        self.specials = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        first = "".join(self._tokenizer.encode("a", add_special_tokens=False).tokens[:1])
        self._prepends = first.startswith("▁")  # each word's space comes before it, so a text's first word has one too

    def serialised(self) -> bytes:
        """The whole tokenizer as a `tokenizer.json`; that file itself where there is one."""
        return self._file.read_bytes() if self._file.is_file() else self._tokenizer.to_str().encode()

    def tokenize(self, inputs: Sequence[Prompted]) -> list[Tokenized]:
        """Token ids with special tokens, in the order of `inputs`.

        Raises EncoderError for an input that is longer than the encoder's limit, as nothing is cut silently, and for
        a token that the decoder does not know.
        """
        texts = [_encodable(item.text) for item in inputs]
        with_offsets = any(item.pooled_from or item.pooled_to is not None for item in inputs)
        encode = self._tokenizer.encode_batch if with_offsets else self._tokenizer.encode_batch_fast
        return [self._tokenized(item, encoding) for item, encoding in zip(inputs, encode(texts), strict=True)]

    def locate(self, item: Prompted) -> Located:
        """An input's token ids and where in it each token stands. Raises EncoderError as `tokenize` does."""
        encoding = self._tokenizer.encode(_encodable(item.text))
        tokenized = self._tokenized(item, encoding)
        spans = np.full((len(tokenized.ids), 2), -1, dtype=np.int64)
        if encoding.ids:
            real = ~np.asarray(encoding.special_tokens_mask, dtype=bool)
            spans[real] = np.asarray(encoding.offsets, dtype=np.int64)[real]
        return Located(tokenized, spans)

    def _tokenized(self, item: Prompted, encoding: Encoding) -> Tokenized:
        ids = np.asarray(encoding.ids, dtype=np.int64)
        if len(ids) > self._config.max_tokens:
            raise EncoderError(self._too_long(item, len(ids)))
        if self._vocabulary is not None and len(ids) and ids.max() >= self._vocabulary:
            raise EncoderError(
                f"The tokenizer gives token {ids.max()} but the model knows {self._vocabulary}: "
                "they are not of the same encoder."
            )
        special = np.asarray(encoding.special_tokens_mask, dtype=bool)
        pooled = self._pooled(item, encoding, special)
        if not pooled.any():  # an empty text: fall back to whatever there is
            pooled = ~special if (~special).any() else np.ones(len(ids), dtype=bool)
        if len(ids) == 0:
            ids, pooled = np.zeros(1, dtype=np.int64), np.ones(1, dtype=bool)
        return Tokenized(ids, pooled)

    def _pooled(self, item: Prompted, encoding: Encoding, special: np.ndarray) -> np.ndarray:
        """Which tokens are pooled, bool (length,), by offsets and not by re-tokenising the tail: a token that straddles
        a boundary belongs to the text.

        A special token before what is left out is left out with it, as sentence-transformers and LLM2Vec do.
        """
        pooled = np.ones(len(special), dtype=bool) if self._config.pool_special else ~special
        if not item.pooled_from and item.pooled_to is None:
            return pooled
        offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        if item.pooled_from:
            before = ~special & (offsets[:, 1] <= self._boundary(item))
            positions = np.arange(len(special))
            pooled &= ~before & ~(special & (positions < positions[before].max(initial=-1)))
        if item.pooled_to is not None:
            pooled &= special | (offsets[:, 0] < item.pooled_to)
        return pooled

    def _too_long(self, item: Prompted, length: int) -> str:
        limit = self._config.max_tokens
        prompt = self.count(item.text[: item.pooled_from])
        if prompt * 2 > limit:
            return (
                f"A text of {length} tokens, {prompt} of them its prompt, is longer than this encoder's limit "
                f"of {limit}; give fewer examples or a shorter instruction."
            )
        return f"A text of {length} tokens is longer than this encoder's limit of {limit}; cut it into chunks first."

    def _boundary(self, item: Prompted) -> int:
        """Tokens that end after this character are the text's: those that it would have alone, as LLM2Vec has it."""
        joint = slice(item.pooled_from - 1, item.pooled_from)
        own = self._prepends and item.text[joint] == " " and len(item.text) > item.pooled_from
        return item.pooled_from - 1 if own else item.pooled_from

    def count(self, text: str) -> int:
        """Number of tokens of `text`, special tokens not counted."""
        return len(self._tokenizer.encode(_encodable(text), add_special_tokens=False).ids)

    def offsets(self, text: str) -> np.ndarray:
        """Character span of each token of `text` without special tokens: int64 (n, 2)."""
        offsets = self._tokenizer.encode(_encodable(text), add_special_tokens=False).offsets
        return np.asarray(offsets, dtype=np.int64).reshape(-1, 2)


def _encodable(text: str) -> str:
    """`text` with a question mark for each lone surrogate: bytes of a command line that are no UTF-8 arrive as such."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _read(file: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:
        raise EncoderError(f"{file} is not a readable tokenizer: {error}.") from error
    return _unbounded(tokenizer)


def _convert(directory: Path) -> Tokenizer:
    """The tokenizer of a model's directory as transformers makes it from all the files there."""
    from transformers import AutoTokenizer

    try:
        wrapper = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        tokenizer = getattr(wrapper, "backend_tokenizer", None)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise EncoderError(f"The tokenizer in {directory} cannot be loaded: {reason}.") from error
    if not isinstance(tokenizer, Tokenizer):
        raise EncoderError(f"The tokenizer in {directory} has no fast form (tokenizer.json), which is needed here.")
    if tokenizer.normalizer is None and (directory / TOKENIZER_FILE).is_file():
        # transformers 5 makes Llama's anew, with a rule of its own for white space at the beginning of a text.
        stored = _read(directory / TOKENIZER_FILE)
        if stored.normalizer is not None:
            tokenizer.normalizer, tokenizer.pre_tokenizer = stored.normalizer, stored.pre_tokenizer
    return _unbounded(tokenizer)


def _unbounded(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer

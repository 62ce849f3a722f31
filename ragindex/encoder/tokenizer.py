"""Text to token ids and back to character positions, with the encoder's own tokenizer.

Loads neither torch nor transformers for a `tokenizer.json`, which is what an encoder's own directory holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ragindex.encoder.checkpoint import Checkpoint
from ragindex.encoder.prompts import Prompted
from ragindex.errors import EncoderError

__all__ = ["EncoderTokenizer", "Tokenized"]


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Token ids of one input and which of them are pooled (at least one is)."""

    ids: np.ndarray  # int64 (length,)
    pooled: np.ndarray  # bool (length,)


class EncoderTokenizer:
    """Wraps the tokenizer of a checkpoint. Thread-safe."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._config = checkpoint.config
        self._vocabulary = checkpoint.vocabulary()
        self._file = checkpoint.tokenizer
        self._tokenizer = _read(self._file) if self._file.is_file() else _convert(self._file)
        self.specials = self._tokenizer.num_special_tokens_to_add(is_pair=False)

    def serialised(self) -> bytes:
        """The whole tokenizer as a `tokenizer.json`; that file itself where there is one."""
        return self._file.read_bytes() if self._file.is_file() else self._tokenizer.to_str().encode()

    def tokenize(self, inputs: Sequence[Prompted]) -> list[Tokenized]:
        """Token ids with special tokens, in the order of `inputs`.

        Raises EncoderError for an input that is longer than the encoder's limit, as nothing is cut silently, and for
        a token that the decoder does not know.
        """
        texts = [_encodable(item.text) for item in inputs]
        with_offsets = any(item.pooled_from for item in inputs)
        encode = self._tokenizer.encode_batch if with_offsets else self._tokenizer.encode_batch_fast
        encodings = encode(texts)
        result = []
        for item, encoding in zip(inputs, encodings, strict=True):
            ids = np.asarray(encoding.ids, dtype=np.int64)
            if len(ids) > self._config.max_tokens:
                raise EncoderError(
                    f"A text of {len(ids)} tokens is longer than this encoder's limit of {self._config.max_tokens}; "
                    "cut it into chunks first."
                )
            if self._vocabulary is not None and len(ids) and ids.max() >= self._vocabulary:
                raise EncoderError(
                    f"The tokenizer gives token {ids.max()} but the model knows {self._vocabulary}: "
                    "they are not of the same encoder."
                )
            special = np.asarray(encoding.special_tokens_mask, dtype=bool)
            pooled = np.ones(len(ids), dtype=bool) if self._config.pool_special else ~special
            if item.pooled_from:
                # By offsets, not by re-tokenising the tail: a token that straddles the boundary belongs to the text.
                ends = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)[:, 1]
                pooled &= special | (ends > item.pooled_from)
            if not pooled.any():  # an empty text: fall back to whatever there is
                pooled = ~special if (~special).any() else np.ones(len(ids), dtype=bool)
            if len(ids) == 0:
                ids, pooled = np.zeros(1, dtype=np.int64), np.ones(1, dtype=bool)
            result.append(Tokenized(ids, pooled))
        return result

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
    return _unbounded(tokenizer)


def _unbounded(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer

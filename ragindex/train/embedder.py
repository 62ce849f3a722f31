"""Embeds training text with a finished encoder: texts that are too long are cut, candidates are embedded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ragindex.encoder import Encoder
from ragindex.store.rows import Float32Array
from ragindex.train.data.examples import Example
from ragindex.train.data.keys import text_key

__all__ = ["Candidate", "Embedder", "candidate"]

_MEMORY = 1 << 29  # bytes of remembered vectors
_BLOCK = 4096  # texts between two calls of `advance`


class Candidate(NamedTuple):
    """A passage that may be a negative. document: what it is part of, "" where that is not known; key: `text_key`."""

    text: str
    title: str
    document: str
    key: bytes


def candidate(text: str, *, title: str = "", document: str = "") -> Candidate:
    """A candidate with its key."""
    return Candidate(text, title, document, text_key(text))


class Embedder:
    """An encoder that refuses no length, as training does not: what it cannot read of a text is left out."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[tuple[bytes, str], np.ndarray] = {}
        self._room = max(1, _MEMORY // (2 * encoder.dimensions))

    def queries(self, examples: Sequence[Example]) -> Float32Array:
        """Unit vectors (n, d) of the examples' queries, each under its own instruction."""
        vectors = np.empty((len(examples), self._encoder.dimensions), np.float32)
        for instruction in dict.fromkeys(example.instruction for example in examples):
            rows = [row for row, example in enumerate(examples) if example.instruction == instruction]
            prompt = self._encoder.config.prompts.for_query("", instruction).text
            cost = self._encoder.tokenizer.count(prompt) + self._encoder.tokenizer.specials + bool(prompt)
            texts = [self._fitted(examples[row].query, self._encoder.max_tokens - cost) for row in rows]
            vectors[rows] = self._encoder.encode_queries(texts, instruction=instruction)
        return vectors

    def candidates(
        self, candidates: Sequence[Candidate], *, advance: Callable[[int], None] | None = None
    ) -> Float32Array:
        """Unit vectors (n, d) of candidates under their titles. advance: told how many more are done."""
        parts = [np.empty((0, self._encoder.dimensions), np.float32)]
        for start in range(0, len(candidates), _BLOCK):
            block = candidates[start : start + _BLOCK]
            titles = [self._fitted(item.title, self._encoder.max_tokens // 4) for item in block]
            rooms = [self._encoder.max_tokens - self._encoder.document_overhead(title) for title in titles]
            texts = [self._fitted(item.text, room) for item, room in zip(block, rooms, strict=True)]
            parts.append(self._encoder.encode_documents(texts, titles=titles))
            if advance is not None:
                advance(len(block))
        return np.concatenate(parts)

    def remember(self, candidates: Sequence[Candidate]) -> None:
        """Embed those that are not known yet, in full batches, so that `remembered` need not do it one by one."""
        fresh = {(item.key, item.title): item for item in candidates if (item.key, item.title) not in self._known}
        if fresh and len(self._known) + len(fresh) > self._room:
            self._known.clear()
            fresh = {(item.key, item.title): item for item in candidates}
        for key, vector in zip(fresh, self.candidates(list(fresh.values())), strict=True):
            self._known[key] = vector.astype(np.float16)  # a copy: a view would keep its whole block alive

    def remembered(self, candidates: Sequence[Candidate]) -> Float32Array:
        """As `candidates`, but what is known is not embedded again; to the precision of half floats."""
        self.remember(candidates)
        vectors = np.empty((len(candidates), self._encoder.dimensions), np.float32)
        for row, item in enumerate(candidates):
            vectors[row] = self._known[item.key, item.title]
        return vectors

    def _fitted(self, text: str, room: int) -> str:
        """What `room` tokens hold of a text from its beginning on, one at least."""
        if len(text.encode("utf-8", "replace")) <= room:  # no token is shorter than a byte
            return text
        tokenizer = self._encoder.tokenizer
        offsets = tokenizer.offsets(text)
        if len(offsets) <= room:
            return text
        for kept in range(max(room, 1), 0, -1):
            fitted = text[: int(offsets[kept - 1][1])]
            # A character may be several tokens, and a word that is cut may fall into others.
            if tokenizer.count(fitted) <= room:
                return fitted
        return text[: int(offsets[0][1])]

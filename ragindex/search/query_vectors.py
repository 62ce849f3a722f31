"""Queries to unit vectors: windows of long ones, batches of several, and the latest ones remembered."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np

from ragindex.errors import UsageError
from ragindex.store.rows import Float32Array

if TYPE_CHECKING:
    from ragindex.encoder import Encoder
    from ragindex.encoder.brought import BroughtEncoder

__all__ = ["QueryVectors"]

_REMEMBERED = 512
_LEAST = 8  # tokens that an instruction must leave for the query


class QueryVectors:
    """Unit vectors (d,) of queries under one encoder. Thread-safe.

    `encoder` is called when a vector is first needed, so that a lexical query loads no encoder.
    """

    def __init__(self, encoder: Callable[[], Encoder | BroughtEncoder]) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str | None], Float32Array] = OrderedDict()

    def __call__(self, query: str, instruction: str | None, *, task: str | None = None) -> Float32Array:
        """The vector of a query. Raises UsageError for an instruction that leaves no room for it, for a task that the
        encoder does not know, and for one that asks the same of documents, which the store's were not.
        """
        if task is not None:
            (vector,) = self._encoded([query], instruction, task=task)
            return vector
        key = (query, instruction)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        (vector,) = self._encoded([query], instruction)
        self._remember(key, vector)
        return vector

    def prepare(self, queries: Sequence[str], instruction: str | None) -> None:
        """Encode queries as one batch, so that each is known when it is asked for. Raises UsageError likewise."""
        with self._lock:
            waiting = [query for query in dict.fromkeys(queries) if (query, instruction) not in self._known]
        for query, vector in zip(waiting, self._encoded(waiting, instruction), strict=True):
            self._remember((query, instruction), vector)

    def _remember(self, key: tuple[str, str | None], vector: Float32Array) -> None:
        with self._lock:
            self._known[key] = vector
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def _encoded(
        self, queries: Sequence[str], instruction: str | None, *, task: str | None = None
    ) -> list[Float32Array]:
        """A query longer than the encoder reads is cut into windows and their vectors are averaged."""
        if not queries:
            return []
        encoder = self._encoder()
        if task is not None and encoder.config.prompts.task(task).symmetric:
            raise UsageError(
                f"The task {task!r} prompts queries and documents alike, and the documents of a store have a prompt of "
                "their own; choose a task for search."
            )
        windows = [self._windows(encoder, query, instruction, task) for query in queries]
        parts = [part for parts in windows for part in parts]
        vectors = encoder.encode_queries(parts, instruction=instruction, task=task)
        ends = accumulate(map(len, windows), initial=0)
        means = [vectors[start:end].mean(axis=0) for start, end in pairwise(ends)]
        return [np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), dtype=np.float32) for mean in means]

    def _windows(
        self, encoder: Encoder | BroughtEncoder, query: str, instruction: str | None, task: str | None
    ) -> list[str]:
        if encoder.tokenizer is None:
            return [query]
        prompted = encoder.config.prompts.for_query("", instruction, task=task).text
        room = encoder.max_tokens - encoder.tokenizer.count(prompted) - encoder.tokenizer.specials - 2
        if room < _LEAST:
            raise UsageError(
                f"The instruction is too long for this encoder of {encoder.max_tokens} tokens; shorten it."
            )
        offsets = encoder.tokenizer.offsets(query)
        if len(offsets) <= room:
            return [query]
        starts = range(0, len(offsets), room)
        return [query[offsets[start][0] : offsets[min(start + room, len(offsets)) - 1][1]] for start in starts]

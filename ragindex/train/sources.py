"""Where negatives are looked for: a pool of passages (FAISS and BM25 over them), or a store that can be searched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ragindex.chunking.titles import title_line
from ragindex.errors import TrainingError, UsageError
from ragindex.loaders.decode import clean
from ragindex.store.faiss_base import load_faiss
from ragindex.store.rows import Float32Array, IdArray, TextEntry
from ragindex.store.tantivy_index import TantivyIndex
from ragindex.store.vector_index import Scored
from ragindex.train.data.examples import Example
from ragindex.train.data.keys import text_key
from ragindex.train.data.lines import read_lines
from ragindex.train.embedder import Candidate, Embedder, candidate
from ragindex.types import Hit, Mode

__all__ = ["Found", "PassagePool", "Searchable", "Source", "StorePassages", "positives_of", "read_passages"]

_DOCUMENT = ("document", "path", "_id", "id")
_EXPECTED = 'a passage is an object with "text" and, perhaps, "title" and "document"'
_INDEXED = 10_000  # passages that the lexical index is given at a time


@dataclass(frozen=True, slots=True)
class Found:
    """What one query finds, in any order and without repeats; its positive may be among it.

    dense: cosines (n,), NaN where the source does not know them; lexical: BM25 (n,), NaN where it was not asked for.
    """

    candidates: Sequence[Candidate]
    dense: Float32Array
    lexical: Float32Array


class Source(Protocol):
    """Something that can be asked for candidates."""

    def find(self, examples: Sequence[Example], vectors: Float32Array, *, depth: int, lexical: bool) -> list[Found]:
        """What is near to each example's query, whose vectors are given (n, d).

        depth: results of a ranking; lexical: whether words are asked as well as vectors.
        """


class Searchable(Protocol):
    """The part of `Index` that is needed here."""

    def search(self, query: str, *, k: int = 10, mode: Mode = "hybrid", instruction: str | None = None) -> list[Hit]:
        """The best hits, best first."""


class StorePassages:
    """The chunks of a store, found by its own search, which folds copies and overlapping chunks."""

    def __init__(self, index: Searchable, *, same_encoder: bool) -> None:
        """same_encoder: the store's encoder is the one that mines, so its cosines need not be computed again."""
        self._index = index
        self._same_encoder = same_encoder
        self._key = lru_cache(maxsize=1 << 16)(text_key)  # the same chunks are found again and again

    def find(self, examples: Sequence[Example], vectors: Float32Array, *, depth: int, lexical: bool) -> list[Found]:  # noqa: ARG002
        """See `Source`. The ranking is the store's hybrid one, or without `lexical` its dense one."""
        mode: Mode = "hybrid" if lexical else "dense"
        return [
            self._found(self._index.search(example.query, k=depth, mode=mode, instruction=example.instruction))
            for example in examples
        ]

    def _found(self, hits: Sequence[Hit]) -> Found:
        unique = {self._key(hit.text): hit for hit in reversed(hits)}
        hits = list(unique.values())
        return Found(
            [Candidate(hit.text, title_line(hit.title, hit.heading), hit.path, key) for key, hit in unique.items()],
            _numbers(hit.scores.dense if self._same_encoder else None for hit in hits),
            _numbers(hit.scores.lexical for hit in hits),
        )


class PassagePool:
    """Passages in memory, each text once: half-float vectors, FAISS over them, and an index of words on tantivy."""

    def __init__(
        self, passages: Iterable[Candidate], embedder: Embedder, *, advance: Callable[[int], None] | None = None
    ) -> None:
        """Embeds all passages; `advance` is told how many more are done. Raises UsageError when there are none."""
        distinct: dict[bytes, Candidate] = {}
        for item in passages:
            known = distinct.get(item.key)
            if known is None or (item.document and not known.document):
                distinct[item.key] = item
        if not distinct:
            raise UsageError("There are no passages to find negatives among.")
        self._passages = list(distinct.values())
        self._place = {item.key: place for place, item in enumerate(self._passages)}
        vectors = embedder.candidates(self._passages, advance=advance)
        self._vectors = vectors.astype(np.float16)
        self._dense = load_faiss().IndexFlatIP(vectors.shape[1])  # exact: a batch of queries is one large product
        self._dense.add(vectors)
        self._lexical: TantivyIndex | None = None

    def __len__(self) -> int:
        return len(self._passages)

    def find(self, examples: Sequence[Example], vectors: Float32Array, *, depth: int, lexical: bool) -> list[Found]:
        """See `Source`: the union of both rankings, and the positive where the pool holds it."""
        near = self._dense.search(np.ascontiguousarray(vectors, np.float32), min(depth, len(self)))[1]
        return [
            self._found(example, vector, ids[ids >= 0], depth=depth, lexical=lexical)
            for example, vector, ids in zip(examples, vectors, near, strict=True)
        ]

    def _found(self, example: Example, vector: Float32Array, near: IdArray, *, depth: int, lexical: bool) -> Found:
        own = self._place.get(text_key(example.positive))
        words = self._words().search(example.query, depth) if lexical else Scored(near[:0], vector[:0])
        ids = np.unique(np.concatenate([near, words.ids - 1, [] if own is None else [own]])).astype(np.int64)
        # What the list lacks counts as its last, or as nothing where the list is complete.
        least = words.scores[-1] if len(words.ids) == depth else 0.0
        scores = np.full(len(ids), least if lexical else np.nan, np.float32)
        scores[np.searchsorted(ids, words.ids - 1)] = words.scores
        if least > 0 and own is not None and own + 1 not in words.ids:
            exact = self._words().search(example.query, 1, np.array([own + 1])).scores
            scores[np.searchsorted(ids, own)] = exact[0] if len(exact) else 0.0
        cosines = self._vectors[ids].astype(np.float32) @ vector
        return Found([self._passages[place] for place in ids.tolist()], cosines, scores)

    def _words(self) -> TantivyIndex:
        if self._lexical is None:
            self._lexical = TantivyIndex()
            # Ids of that index begin with 1.
            entries = (TextEntry(place, item.text, item.title, (), "") for place, item in enumerate(self._passages, 1))
            batches = iter(lambda: list(islice(entries, _INDEXED)), [])
            self._lexical.apply(np.empty(0, np.int64), batches, None)
        return self._lexical


def positives_of(examples: Iterable[Example]) -> Iterator[Candidate]:
    """The positives of examples as passages."""
    return (candidate(example.positive, title=example.title) for example in examples)


def read_passages(path: Path) -> Iterator[Candidate]:
    """The passages of a `.jsonl` or `.jsonl.gz` file: "text" and, if there are any, "title" and "document" (or "path",
    "_id", "id"), as in the corpus of a BEIR folder.

    Raises TrainingError for a line without text, naming file and line.
    """
    for line in read_lines(path):
        if not line.data.strip():
            continue
        try:
            row: Any = json.loads(line.data)
        except (ValueError, RecursionError) as error:
            raise TrainingError(f"{line.where} is not JSON ({error}); {_EXPECTED}.") from error
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise TrainingError(f'{line.where} has no "text"; {_EXPECTED}.')
        text, title = clean(row["text"]), clean(str(row.get("title") or ""))
        if text.strip():
            yield candidate(text, title=title, document=next((str(row[key]) for key in _DOCUMENT if row.get(key)), ""))


def _numbers(values: Iterable[float | None]) -> Float32Array:
    return np.array([np.nan if value is None else value for value in values], np.float32)

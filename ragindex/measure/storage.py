"""What each way to keep vectors costs and finds, measured on a store's own vectors."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ragindex.errors import EncoderError, UsageError
from ragindex.index import Index
from ragindex.measure.watch import Unwatched, Watch, counted
from ragindex.store.catalog import Catalog
from ragindex.store.dense_base import Source
from ragindex.store.faiss_index import FaissIndex
from ragindex.store.rows import EncoderRow, Float32Array, IdArray, VectorBatch
from ragindex.store.schemes import SCHEMES, Choice, Scheme, choose, read_plan
from ragindex.store.tuning import NEAREST, Truth, imitated, recall_of
from ragindex.store.vector_file import VectorFile, write_vectors

__all__ = ["SchemeFigures", "StorageReport", "measure_storage"]

_WARM_UP = 3
_WORDS = 12  # of a query that is cut from a chunk
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class SchemeFigures:
    """One scheme.

    memory_bytes and disk_bytes are for one vector: of the index that a search keeps open, and of the vectors beside it
    that rescoring reads. recall: the share of the ten nearest that were found; ndcg: of their order too, where the
    n-th nearest is worth 11 − n; latency_ms: the median time of a search for ten, on one core or as many as FAISS
    takes; build_seconds: from the vectors in the catalogue to the index.
    """

    scheme: str
    factory: str
    memory_bytes: float
    disk_bytes: float
    recall: float
    ndcg: float
    latency_ms: float
    build_seconds: float


@dataclass(frozen=True, slots=True)
class StorageReport:
    """All schemes on the vectors of one collection.

    queries_from: "texts" when queries are passages of the chunks, encoded as queries, "vectors" when they are made of
    the vectors (see `ragindex.store.tuning.imitated`). chosen and reason: what the store's plan means for it.
    """

    collection: str
    encoder: str
    vectors: int
    dimensions: int
    queries: int
    queries_from: Literal["texts", "vectors"]
    chosen: str
    reason: str
    schemes: tuple[SchemeFigures, ...]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Queries (m, d), where they are from, and what is exactly nearest to each."""

    vectors: Float32Array
    made_of: Literal["texts", "vectors"]
    nearest: list[IdArray]


def measure_storage(
    index: Index, *, schemes: Sequence[str] = (), queries: int = 200, watch: Watch | None = None
) -> StorageReport:
    """Build each scheme (none given: all) from the vectors of a collection in a temporary folder, and search it.

    Nothing of the store changes. Raises UsageError for an unknown scheme and where there are fewer than 20 vectors.
    """
    wanted = [_scheme(name) for name in schemes] or list(SCHEMES.values())
    shown = watch or Unwatched()
    with Catalog.open(index.store, create=False) as catalog, tempfile.TemporaryDirectory() as scratch:
        collection, encoder = catalog.collection(index.collection), catalog.encoder()
        count = catalog.chunk_count(collection)
        if encoder is None or count < 2 * NEAREST:
            raise UsageError(f"There are {count} vectors; it takes {2 * NEAREST} at least to compare indexes.")
        bench = _Bench(catalog, collection, encoder, Path(scratch))
        asked = bench.asked(index, queries)
        rows = [
            bench.figures(scheme, asked)
            for scheme in counted(wanted, len(wanted), shown.stage("Building and searching", "schemes"))
        ]
        choice = bench.choice(count)
    return StorageReport(
        collection=index.collection,
        encoder=encoder.locator,
        vectors=count,
        dimensions=encoder.dimensions,
        queries=len(asked.vectors),
        queries_from=asked.made_of,
        chosen=choice.scheme.name,
        reason=choice.reason,
        schemes=tuple(rows),
    )


def _scheme(name: str) -> Scheme:
    if name not in SCHEMES:
        raise UsageError(f"There is no scheme {name!r}; choose among {', '.join(SCHEMES)}.")
    return SCHEMES[name]


class _Bench:
    """The vectors of one collection and a folder to build in."""

    def __init__(self, catalog: Catalog, collection: int, encoder: EncoderRow, scratch: Path) -> None:
        self._catalog, self._collection, self._encoder, self._scratch = catalog, collection, encoder, scratch
        self._source = Source(catalog.chunk_count(collection), self._vectors)

    def choice(self, count: int) -> Choice:
        return choose(read_plan(self._catalog, self._collection), count, self._encoder.dimensions)

    def asked(self, index: Index, count: int) -> _Asked:
        sample = self._sampled(count)
        made_of: Literal["texts", "vectors"] = "texts"
        try:
            texts = [_passage(entry.text, number) for number, entry in enumerate(self._catalog.texts(sample.ids))]
            vectors = index.encoder.encode_queries([text for text in texts if text][:count])
        except (EncoderError, UsageError):  # a program brought it, or it lies elsewhere
            vectors = np.empty((0, self._encoder.dimensions), np.float32)
        if len(vectors) == 0:
            vectors, made_of = imitated(sample.vectors, count), "vectors"
        truth = Truth(vectors)
        for batch in self._vectors():
            truth.see(batch)
        return _Asked(vectors, made_of, truth.nearest())

    def figures(self, scheme: Scheme, asked: _Asked) -> SchemeFigures:
        dimensions, file = self._encoder.dimensions, self._scratch / scheme.name
        began = time.perf_counter()
        built = FaissIndex.build(dimensions, self._fetch, scheme, self._source)
        seconds = time.perf_counter() - began
        built.save(file)
        # As a store opens it: where it lies on disk.
        data = np.asarray(np.memmap(file, np.uint8, "r"))
        opened = FaissIndex.read(dimensions, self._fetch, scheme, data=data, tuning=built.tuning)
        rows = self._scratch / "rows"
        if scheme.rescored and (rows.exists() or write_vectors(rows, opened.ids, self._vectors())):
            opened.attach(VectorFile(rows, opened.ids, dimensions))
        for query in asked.vectors[:_WARM_UP]:
            opened.search(query, NEAREST)
        found, times = [], []
        for query in asked.vectors:
            began = time.perf_counter()
            found.append(opened.search(query, NEAREST).ids)
            times.append(time.perf_counter() - began)
        return SchemeFigures(
            scheme=scheme.name,
            factory=built.factory,
            memory_bytes=round(file.stat().st_size / len(opened), 1),
            disk_bytes=round(rows.stat().st_size / len(opened), 1) if scheme.rescored and rows.exists() else 0.0,
            recall=round(recall_of(found, asked.nearest), 4),
            ndcg=round(_ndcg(found, asked.nearest), 4),
            latency_ms=round(1000 * float(np.median(times)), 3),
            build_seconds=round(seconds, 2),
        )

    def _sampled(self, count: int) -> VectorBatch:
        """Vectors from everywhere, three for each that is needed."""
        chance, draw = 3 * count / self._source.count, np.random.default_rng(0)
        parts = []
        for batch in self._vectors():
            chosen = draw.random(len(batch.ids)) < chance
            parts.append(VectorBatch(batch.ids[chosen], batch.vectors[chosen]))
        ids = np.concatenate([part.ids for part in parts])
        order = draw.permutation(len(ids))
        return VectorBatch(ids[order], np.concatenate([part.vectors for part in parts])[order])

    def _vectors(self) -> Iterator[VectorBatch]:
        return self._catalog.iter_vectors(self._collection, self._encoder.id)

    def _fetch(self, ids: IdArray) -> VectorBatch:
        return self._catalog.present_vectors(self._encoder.id, ids)


def _passage(text: str, number: int) -> str:
    """A few words in a row from somewhere in a text; always the same for the same number."""
    words = _WORD.findall(text)
    start = number * 7919 % max(1, len(words) - _WORDS + 1)
    return " ".join(words[start : start + _WORDS])


def _ndcg(found: Sequence[IdArray], nearest: Sequence[IdArray]) -> float:
    """Mean nDCG@10 of what was found where the exact order is the judgment; Järvelin and Kekäläinen, 2002."""
    discount = 1 / np.log2(np.arange(2, NEAREST + 2))
    values = []
    for ids, exact in zip(found, nearest, strict=True):
        gains = dict(zip(exact.tolist(), range(NEAREST, 0, -1), strict=False))
        ideal = float(discount[: len(gains)] @ list(gains.values()))
        reached = sum(gains.get(one, 0) * weight for one, weight in zip(ids.tolist(), discount, strict=False))
        values.append(reached / ideal if ideal else 1.0)
    return float(np.mean(values))

"""Filtered search: what each way of doing it costs and finds, at every selectivity, and what the product chooses.

    python benchmarks/filtered.py [--chunks 100000] [--queries 30] [--modes dense …] [--keep DIR]

The store is that of `_synthetic`; its documents are given fields so that a filter lets a known share of them through,
by an equality, a range, a set or a conjunction that have nothing to do with what is asked, or by a range of the
distance to it: the documents that are nearest ("near") and those farthest away ("far"), where an approximate index
looks in the wrong places. recall@10 is that of the ten best among the allowed, found exactly. Times are processor time
of one thread, so that the load of the machine does not count.

before: the filter read from every document by every query, and lists visited in inverse proportion to the share.
The ways that the product has, each forced: the allowed chunks are known already and all scored, or as many as the
product takes for enough; or what an unfiltered search finds is asked about. Then the product's choice for a filter that
it meets for the first time, and for one that it knows. Asserts nothing.
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import Times, milliseconds, table
from _synthetic import PER_DOCUMENT, Language, fill

from ragindex import Encoder
from ragindex.filters import And, Eq, Filter, In, Range
from ragindex.search import Request
from ragindex.search.engine import Engine
from ragindex.search.fusion import fuse
from ragindex.search.restricting import Restriction
from ragindex.store.allowing import Lists
from ragindex.store.catalog import Batch, Catalog
from ragindex.store.faiss_base import load_faiss, selector
from ragindex.store.faiss_index import FaissIndex
from ragindex.store.filter_sql import condition
from ragindex.store.rows import Float32Array, IdArray
from ragindex.store.snapshot import LiveIndexes
from ragindex.store.vector_index import Scored, best, inside
from ragindex.types import Mode

_SHARES = (0.0001, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0)
_CELLS = 10_000
_K, _DEPTH = 10, 200
_MODES: tuple[Mode, ...] = ("dense", "lexical", "hybrid")
_TIE = 2e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("--modes", nargs="+", choices=_MODES, default=_MODES)
    parser.add_argument("--shares", type=float, nargs="+", default=_SHARES, help="some of those that there are")
    parser.add_argument("--keep", type=Path, help="make the store in DIR, or use the one that is there")
    options = parser.parse_args()
    encoder = Encoder.load("bundled")
    load_faiss().omp_set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="ragindex-filtered-") as scratch:
        store = (options.keep or Path(scratch)) / "store"
        if not store.is_dir():
            fill(store, encoder, chunks=options.chunks)
        questions = _questions(encoder, options.queries)
        with Catalog.open(store, create=False) as catalog:
            world = World(catalog, store, encoder, questions)
            world.label()
            for mode in options.modes:
                compare(world, mode, options.shares)


@dataclass(frozen=True, slots=True)
class Question:
    """A query, its unit vector and what its words can score at most."""

    text: str
    vector: Float32Array


@dataclass(frozen=True, slots=True)
class Case:
    """A filter that lets a share of the documents through."""

    kind: str
    share: float
    filter: Filter


def cases() -> Iterable[Case]:
    """Every kind at every selectivity."""
    for number, share in enumerate(_SHARES):
        side = math.sqrt(share)
        yield Case("equality", share, Eq("tier", f"tier {number}") if share < 1 else Eq("all", "yes"))
        yield Case("range", share, Range("rank", high=share))
        yield Case("set", share, In("cell", tuple(range(max(1, round(share * _CELLS))))))
        yield Case("conjunction", share, And((Range("rank", high=side), Range("grade", high=side))))
        yield Case("range, near", share, Range("distance", high=share))
        yield Case("range, far", share, Range("distance", low=1 - share))


def _questions(encoder: Encoder, count: int) -> list[Question]:
    """Questions about one topic, each about words of its own."""
    language = Language(2)
    subjects = (language.subject() for _ in itertools.count())
    about = (subject for subject in subjects if subject.topic == 0)
    texts = [language.text(language.draw(8, subject)) for subject in itertools.islice(about, count)]
    vectors = encoder.encode_queries(texts)
    return [Question(text, vector) for text, vector in zip(texts, vectors, strict=True)]


class World:
    """The store with everything that is compared in it."""

    def __init__(self, catalog: Catalog, store: Path, encoder: Encoder, questions: Sequence[Question]) -> None:
        self.catalog = catalog
        self.collection = catalog.collection("default")
        self.encoder = encoder
        self.questions = questions
        self._words: dict[str, Scored] = {}
        row = catalog.encoder()
        assert row is not None
        self.live = LiveIndexes(catalog, store, self.collection, row.id, row.dimensions)
        parts = list(catalog.iter_vectors(self.collection, row.id))
        self.ids = np.concatenate([part.ids for part in parts])
        self.vectors = np.concatenate([part.vectors for part in parts])

    def label(self) -> None:
        """Give the documents the fields that `cases` asks for."""
        documents = self.catalog.documents(self.collection)
        count = len(documents)
        draw = np.random.default_rng(7)
        rank, grade, cell, tier = ((draw.permutation(count) + 0.5) / count for _ in range(4))
        asked = np.mean([question.vector for question in self.questions], axis=0)
        nearness = (self.vectors @ asked).reshape(count, PER_DOCUMENT).mean(axis=1)
        distance = np.empty(count)
        distance[np.argsort(-nearness)] = (np.arange(count) + 0.5) / count
        edges = np.cumsum(_SHARES[:-1])
        labels = {}
        for one in documents:
            number = int(one.metadata["serial"])
            labels[one.path] = {
                **one.metadata,
                "rank": float(rank[number]),
                "grade": float(grade[number]),
                "distance": float(distance[number]),
                "cell": int(cell[number] * _CELLS),
                "tier": f"tier {np.searchsorted(edges, tier[number])}",
                "all": "yes",
            }
        self.catalog.commit(self.collection, Batch(metadata=labels))

    def engine(self) -> Engine:
        """The product, which has never seen a filter."""
        self.catalog._lists = Lists()
        return Engine(self.catalog, self.live, self.collection, lambda: self.encoder)

    def exact(self, question: Question, allowed: IdArray) -> Scored:
        """The nearest of the allowed."""
        places = np.searchsorted(self.ids, allowed)
        return best(allowed, self.vectors[places] @ question.vector, _DEPTH)

    def exact_words(self, question: Question, allowed: IdArray) -> Scored:
        """The allowed with the best words."""
        found = self._words.get(question.text)
        if found is None:
            found = self._words[question.text] = self.live.lexical().search(question.text, len(self.ids))
        kept = inside(allowed, found.ids)
        return Scored(found.ids[kept][:_DEPTH], found.scores[kept][:_DEPTH])

    def fused(self, question: Question, dense: Scored, lexical: Scored) -> Scored:
        """Both as one list."""
        ceiling = self.live.lexical().ceiling(question.text)
        found = fuse(dense, lexical, ceiling=ceiling, depth=_DEPTH, trust=self.encoder.config.trust)
        return Scored(found.ids, found.scores)

    def read(self, case: Case) -> IdArray:
        """The allowed, read from the metadata of every document: the first version's way."""
        test = condition(case.filter)
        query = (
            "SELECT group_concat(chunks.id) FROM chunks WHERE document_id IN "
            f"(SELECT documents.id FROM documents WHERE documents.collection_id = ? AND {test.sql})"
        )
        with self.catalog._database.snapshot() as connection:
            listed = connection.execute(query, (self.collection, *test.parameters)).fetchone()[0]
        return np.sort(np.fromstring(listed or "", np.int64, sep=","))


Way = Callable[[Question], Scored]


def ways(world: World, case: Case, mode: Mode) -> dict[str, Way]:
    """Everything that is compared, by name."""
    catalog, collection = world.catalog, world.collection
    listed = catalog.allowed(collection, case.filter)
    assert listed is not None
    index = world.live.dense()
    assert isinstance(index, FaissIndex)
    faiss_index = getattr(index._state.base, "_index", None)
    texts = world.live.lexical()

    def dense(
        question: Question, search: Callable[[Float32Array, int, IdArray | None], Scored]
    ) -> Callable[..., Scored]:
        return lambda count, allowed: search(question.vector, count, allowed)

    def both(
        question: Question, found: Callable[[Callable[..., Scored]], Scored], search: Any = index.search
    ) -> Scored:
        near = _NONE if mode == "lexical" else found(dense(question, search))
        words = _NONE if mode == "dense" else found(lambda count, ids: texts.search(question.text, count, ids))
        return world.fused(question, near, words) if mode == "hybrid" else near if mode == "dense" else words

    def proportional(vector: Float32Array, count: int, allowed: IdArray | None) -> Scored:
        assert allowed is not None
        return visited(faiss_index, vector, count, allowed, factor=len(world.ids) / len(allowed))

    def everything(vector: Float32Array, count: int, allowed: IdArray | None) -> Scored:
        assert allowed is not None
        return visited(faiss_index, vector, count, allowed, factor=math.inf)

    asking = Restriction(catalog, collection, case.filter, share=case.share)
    engine = world.engine()

    def ranked(engine: Engine, question: Question) -> Scored:
        request = Request(question.text, _K, mode, filter=case.filter, vector=question.vector)
        ranking = engine.rank(request, depth=_DEPTH)
        return Scored(ranking.ids, ranking.scores)

    def before(question: Question) -> Scored:
        ids = world.read(case)
        return both(question, lambda search: search(_DEPTH, ids), proportional)

    found = {
        "before": before,
        "list, scan all": lambda question: both(question, lambda search: search(_DEPTH, listed), everything),
        "list, choose": lambda question: both(question, lambda search: search(_DEPTH, listed)),
        "ask": lambda question: both(question, lambda search: asking.best(search, _DEPTH)),
        "first use": lambda question: ranked(world.engine(), question),
        "again": lambda question: ranked(engine, question),
    }
    if mode == "lexical" or not hasattr(faiss_index, "nprobe"):
        del found["list, scan all"]
    if case.share < 0.01:
        del found["ask"]  # it would ask about nearly everything
    return found


_NONE = Scored(np.empty(0, np.int64), np.empty(0, np.float32))


def visited(index: Any, vector: Float32Array, count: int, allowed: IdArray, *, factor: float) -> Scored:
    """The nearest of the allowed in so many times as many lists as usual, and in four times as many until there are
    enough.
    """
    faiss = load_faiss()
    probes = math.ceil(min(index.nlist, factor * index.nprobe))
    wanted = min(count, len(allowed))
    while True:
        parameters = faiss.SearchParametersIVF(sel=selector(faiss, allowed), nprobe=probes)
        scores, ids = (part[0] for part in index.search(vector[None], count, params=parameters))
        if np.count_nonzero(ids >= 0) >= wanted or probes == index.nlist:
            return best(ids[ids >= 0], scores[ids >= 0], count)
        probes = min(index.nlist, 4 * probes)


def compare(world: World, mode: Mode, shares: Sequence[float]) -> None:
    """Print what every way takes and finds."""
    print(f"\n## {mode}: {len(world.ids):,} chunks, {_K} of {_DEPTH} results, median ms (recall@{_K} where below 1)\n")
    rows, names = [], ("before", "list, scan all", "list, choose", "ask", "first use", "again")
    ratios = []
    for case in (case for case in cases() if case.share in shares):
        allowed = world.read(case)
        truths = [truth(world, question, allowed, mode) for question in world.questions]
        times: dict[str, Times] = {}
        recalls: dict[str, float] = {}
        for name, way in ways(world, case, mode).items():
            for question in world.questions[:5] if name == "again" else world.questions[:1]:
                way(question)  # what is used again has been used before
            seconds, hits = [], []
            for question, exact in zip(world.questions, truths, strict=True):
                began = time.process_time()
                found = way(question)
                seconds.append(time.process_time() - began)
                hits.append(overlap(found, exact) if mode == "hybrid" else recall(found, exact))
            times[name], recalls[name] = Times(tuple(seconds)), float(np.mean(hits))
        cells = [_cell(times[name], recalls[name]) if name in times else "" for name in names]
        gains = [f"{times['before'].median / times[name].median:.1f}" for name in ("first use", "again")]
        tails = [milliseconds(_p99(times[name])) for name in ("before", "first use", "again")]
        rows.append([f"{case.share:.2%} {case.kind}", f"{len(allowed):,}", *cells, *gains, *tails])
        rivals = [times[name].median for name in ("list, scan all", "list, choose", "ask") if name in times]
        ratios.append(times["again"].median / min(rivals))
    gained = ("× first", "× again", "p99 before", "p99 first", "p99 again")
    print(table(("share and kind", "allowed", *names, *gained), rows))
    usual, most = np.median(ratios), max(ratios)
    print(f"\nused again, the choice takes {usual:.2f} times what the best forced way takes, at most {most:.2f} times")


def truth(world: World, question: Question, allowed: IdArray, mode: Mode) -> Scored:
    """What exact search finds."""
    if mode == "dense":
        return world.exact(question, allowed)
    words = world.exact_words(question, allowed)
    return words if mode == "lexical" else world.fused(question, world.exact(question, allowed), words)


def recall(found: Scored, exact: Scored) -> float:
    """The share of the ten best whose scores are reached; equal ones may stand for each other."""
    wanted = min(_K, len(exact.ids))
    if wanted == 0:
        return 1.0
    reached = found.scores[:wanted] >= exact.scores[wanted - 1] - _TIE
    return float(np.count_nonzero(reached) / wanted)


def overlap(found: Scored, exact: Scored) -> float:
    """The share of the ten best that are the same: fused scores depend on the whole of both lists."""
    wanted = min(_K, len(exact.ids))
    return len(np.intersect1d(found.ids[:_K], exact.ids[:_K])) / wanted if wanted else 1.0


def _cell(times: Times, share: float) -> str:
    return milliseconds(times.median) + (f" ({share:.3f})" if share < 0.9995 else "")


def _p99(times: Times) -> float:
    ordered = sorted(times.seconds)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


if __name__ == "__main__":
    main()

"""Latency of a warm query over a large store, whole and in parts, against bare FAISS and bare tantivy.

    python benchmarks/query.py [--chunks 100000] [--queries 200] [--keep DIR]

The store is made of the language in `_synthetic.py`. Queries go through the real encoder; none is asked twice, so no
cache answers. Prints medians as multiples of the baselines in the same run; asserts nothing.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import tantivy
from _common import interleaved, table, versus
from _synthetic import Language, made

from ragindex import Index
from ragindex.filters import parse
from ragindex.measure import MODES
from ragindex.store.analysis import ANALYSER_VERSION
from ragindex.store.catalog import Catalog
from ragindex.store.dense_files import read_manifest
from ragindex.store.faiss_base import load_faiss
from ragindex.store.snapshot import LiveIndexes
from ragindex.types import Mode

_FILTERS = ("path like 'area-1/%'", "path like 'area-1/1/%'", "size > 0")  # 10 %, 1 %, all of the chunks
_K, _DEPTH = 10, 200
_BASELINE = "bare FAISS + bare tantivy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200, help="timed queries of each kind")
    parser.add_argument("--keep", type=Path, help="make the store in DIR, or use the one that is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragindex-query-") as scratch:
        folder = options.keep or Path(scratch)
        phases = made(folder, options.chunks)
        print(", ".join(f"{name} {phase.seconds:.0f} s" for name, phase in phases.items()), "\n")
        measure(folder / "store", options.queries)


def measure(store: Path, count: int) -> None:
    """Print whole queries, then their parts, as multiples of the bare libraries."""
    asked = Language(2).queries()
    with Index.open(store, create=False) as index, Catalog.open(store, create=False) as catalog:
        row = catalog.encoder()
        assert row is not None
        collection = catalog.collection("default")
        live = LiveIndexes(catalog, store, collection, row.id, row.dimensions)
        vectors = itertools.cycle(index.encoder.encode_queries(list(itertools.islice(asked, count))))
        print(f"{catalog.chunk_count(collection):,} chunks, {live.status().factory}\n")
        dense, lexical = bare_faiss(store, collection, vectors), bare_tantivy(store, collection, asked)

        def search(mode: Mode, filter_text: str | None = None) -> Callable[[], object]:
            return lambda: index.search(next(asked), k=_K, mode=mode, filter=filter_text)

        tasks: dict[str, Callable[[], object]] = {
            _BASELINE: lambda: (dense(), lexical()),
            **{mode: search(mode) for mode in MODES},
            **{f"hybrid, {text}": search("hybrid", text) for text in _FILTERS},
        }
        times = interleaved(tasks, rounds=count, warm_up=3)
        print(table(("whole query", "median ms", "95 % ms", "× bare"), versus(times, _BASELINE)))
        ids = live.dense().search(next(vectors), _DEPTH).ids
        parts: dict[str, Callable[[], object]] = {
            "bare FAISS, same index": dense,
            "dense search": lambda: live.dense().search(next(vectors), _DEPTH),
            "bare tantivy, same index": lexical,
            "lexical search": lambda: live.lexical().search(next(asked), _DEPTH),
            "encode the query": lambda: index.encoder.encode_queries([next(asked)]),
            "fetch 32 chunks": lambda: catalog.hits(ids[:32]),
            **{f"resolve {text}": partial(catalog.allowed, collection, parse(text)) for text in _FILTERS},
        }
        times = interleaved(parts, rounds=count, warm_up=3)
        print()
        print(table(("part", "median ms", "95 % ms", "× bare FAISS"), versus(times, "bare FAISS, same index")))


def bare_faiss(store: Path, collection: int, vectors: Iterator[np.ndarray]) -> Callable[[], object]:
    """The published FAISS file, searched as the library's manual does it."""
    folder = next((store / "snapshots" / str(collection)).glob("dense-*"))
    manifest = read_manifest(folder)
    assert manifest is not None
    index = load_faiss().read_index(str(folder / manifest.file))
    return lambda: index.search(next(vectors)[None], _DEPTH)


def bare_tantivy(store: Path, collection: int, asked: Iterator[str]) -> Callable[[], object]:
    """The published tantivy index, searched with its own query parser."""
    index = tantivy.Index.open(str(store / "snapshots" / str(collection) / "lexical"))
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace())
    analyser = builder.filter(tantivy.Filter.stopword("english")).filter(tantivy.Filter.stemmer("english")).build()
    index.register_tokenizer(f"ragindex{ANALYSER_VERSION}", analyser)
    searcher = index.searcher()
    fields = ["body", "context", "path"]
    return lambda: searcher.search(index.parse_query(next(asked).rstrip("."), fields), limit=_DEPTH)


if __name__ == "__main__":
    main()

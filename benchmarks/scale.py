"""A large store from its making to its hundredth query: time, memory and disk, against the bare libraries.

    python benchmarks/scale.py [--chunks 1000000] [--queries 100] [--rounds 5] [--keep DIR] [--clock processor]

Makes the store (or takes the one in DIR), opens it in fresh processes with files in the page cache and without, asks it
beside a bare FAISS index of the same file and a bare tantivy, and puts a hundred documents into it, which another open
index is then asked for; they are taken out again. `--clock processor` counts the seconds of processor in place of those
on the wall, for machines that do other things too. Prints tables; asserts nothing.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _common import CLOCKS, Times, fresh, interleaved, milliseconds, peak, table, versus
from _synthetic import Language, Phase, made
from query import bare_faiss, bare_tantivy

from ragindex import Index
from ragindex.measure import MODES
from ragindex.store.catalog import Catalog
from ragindex.store.dense_files import read_manifest
from ragindex.store.faiss_base import load_faiss
from ragindex.store.rows import Float32Array
from ragindex.store.snapshot import IndexStatus, LiveIndexes
from ragindex.types import Document, Mode

_K, _DEPTH = 10, 200
_DIMENSIONS = 384  # of the bundled encoder
_BATCH, _PARAGRAPHS = 100, 2  # documents; the chunker makes about four chunks of two paragraphs
_MEGABYTE = 1e6
_OPENING = 20  # queries after which memory is looked at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100, help="timed queries of each kind")
    parser.add_argument("--rounds", type=int, default=5, help="batches of documents, and cold processes of each kind")
    parser.add_argument("--keep", type=Path, help="make the store in DIR, or use the one that is there")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragindex-scale-") as scratch:
        folder = options.keep or Path(scratch)
        phases = made(folder, options.chunks)
        store = folder / "store"
        status = sizes(store)
        print(f"{built(phases, status, options.chunks)}\n\n{disk(store, status)}\n")
        print(f"{opened(store, status, options.rounds, options.clock)}\n")
        print(f"{asked(store, options.queries, options.clock)}\n")
        print(put(store, options.rounds, options.clock))


def live_of(catalog: Catalog) -> LiveIndexes:
    """The indexes of the default collection."""
    row = catalog.encoder()
    assert row is not None
    return LiveIndexes(catalog, catalog.directory, catalog.collection("default"), row.id, row.dimensions)


def sizes(store: Path) -> IndexStatus:
    """Bytes on disk and what kind of index there is."""
    with Catalog.open(store, create=False) as catalog:
        return live_of(catalog).status()


def built(phases: dict[str, Phase], status: IndexStatus, chunks: int) -> str:
    """What making the store took."""
    size = status.dense_bytes + status.lexical_bytes
    rows = [
        (
            name,
            f"{phase.seconds:,.0f}",
            f"{phase.processor:,.0f}",
            f"{1e6 * phase.processor / chunks:,.0f}",
            f"{phase.peak / _MEGABYTE:,.0f}",
            f"{phase.peak / size:.2f}",
        )
        for name, phase in phases.items()
    ]
    header = ("made", "wall s", "processor s", "processor µs a chunk", "peak MB so far", "× indexes' size")
    return table(header, rows)


def disk(store: Path, status: IndexStatus) -> str:
    """What lies on disk."""
    catalogue = sum(file.stat().st_size for file in store.glob("catalog.sqlite*"))
    rows = [
        ("catalogue", f"{catalogue / _MEGABYTE:,.0f}"),
        (f"dense, {status.factory}", f"{status.dense_bytes / _MEGABYTE:,.0f}"),
        ("lexical", f"{status.lexical_bytes / _MEGABYTE:,.0f}"),
    ]
    return table(("on disk", "MB"), rows)


class Bare(NamedTuple):
    """A search in each of the bare libraries."""

    dense: Callable[[], object]
    lexical: Callable[[], object]


class Opening(NamedTuple):
    """Seconds until both indexes are open and until the first hybrid answer; bytes after some more queries."""

    indexes: float
    answer: float
    memory: int


def opened(store: Path, status: IndexStatus, rounds: int, clock: str) -> str:
    """How long a process that has imported everything needs until it can answer, and what it holds then."""
    ways: dict[str, Callable[[Path, str], Opening]] = {"ragindex": opening, "bare libraries, read": bare_opening}
    size = status.dense_bytes + status.lexical_bytes
    rows = []
    for name, way in ways.items():
        for cold in (False, True):
            found = [_opening_of(way, store, clock, cold=cold) for _ in range(rounds)]
            first, answer = Times(tuple(each.indexes for each in found)), Times(tuple(each.answer for each in found))
            memory = max(each.memory for each in found)
            kind = f"{name}, files {'on disk' if cold else 'in the page cache'}"
            shown = (milliseconds(first.median), milliseconds(answer.median), f"{memory / _MEGABYTE:,.0f}")
            rows.append((kind, *shown, f"{memory / size:.2f}"))
    return table(("opened", "indexes ms", "first answer ms", f"peak MB after {_OPENING}", "× indexes' size"), rows)


def _opening_of(way: Callable[[Path, str], Opening], store: Path, clock: str, *, cold: bool) -> Opening:
    if cold:
        _forget(store)
        clock = "wall"  # the processor does not wait for the disk
    return fresh(way, store, clock)


def _forget(store: Path) -> None:
    """Ask the system to drop the store's files from its page cache."""
    for file in store.rglob("*"):
        if file.is_file() and hasattr(os, "posix_fadvise"):
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def opening(store: Path, clock: str) -> Opening:
    """Open the store and ask it."""
    load_faiss()
    now = CLOCKS[clock]
    questions = Language(2).queries()
    began = now()
    with Index.open(store, create=False) as index:
        # Any question opens the index that it needs; a dense one by vector needs no encoder.
        index.records.search(vector=[1.0] * _DIMENSIONS, k=1)
        index.search("word", k=1, mode="lexical")
        indexes = now() - began
        index.search(next(questions), k=_K)
        answer = now() - began
        for _ in range(_OPENING):
            index.search(next(questions), k=_K)
        return Opening(indexes, answer, peak())


def bare_opening(store: Path, clock: str) -> Opening:
    """Open the same files with FAISS and tantivy as their manuals do, and ask them; no encoder, no texts."""
    load_faiss()
    now = CLOCKS[clock]
    began = now()
    dense, lexical = _bare(store, _directions(), Language(2).queries())
    indexes = now() - began
    dense(), lexical()
    answer = now() - began
    for _ in range(_OPENING):
        dense(), lexical()
    return Opening(indexes, answer, peak())


def _bare(store: Path, vectors: Iterator[Float32Array], questions: Iterator[str]) -> Bare:
    with Catalog.open(store, create=False) as catalog:
        collection = catalog.collection("default")
    return Bare(bare_faiss(store, collection, vectors), bare_tantivy(store, collection, questions))


def _directions() -> Iterator[Float32Array]:
    draw = np.random.default_rng(0)
    while True:
        yield draw.standard_normal(_DIMENSIONS, np.float32)


def asked(store: Path, count: int, clock: str) -> str:
    """Warm queries beside the bare libraries."""
    questions = Language(2).queries()
    with Index.open(store, create=False) as index, Catalog.open(store, create=False) as catalog:
        live = live_of(catalog)
        vectors = itertools.cycle(index.encoder.encode_queries(list(itertools.islice(questions, count))))
        dense, lexical = _bare(store, vectors, questions)

        def search(mode: Mode) -> Callable[[], object]:
            return lambda: index.search(next(questions), k=_K, mode=mode)

        tasks: dict[str, Callable[[], object]] = {
            "bare FAISS, same index": dense,
            "dense index": lambda: live.dense().search(next(vectors), _DEPTH),
            "bare tantivy, same index": lexical,
            "lexical index": lambda: live.lexical().search(next(questions), _DEPTH),
            **{f"whole query, {mode}": search(mode) for mode in MODES},
        }
        times = interleaved(tasks, rounds=count, warm_up=5, clock=CLOCKS[clock])
    first = "bare FAISS, same index"
    return table((f"warm query, {clock}", "median ms", "95 % ms", "× bare FAISS"), versus(times, first))


def put(store: Path, rounds: int, clock: str) -> str:
    """Put a hundred new documents, and ask an index that was open before for each batch; then take them out."""
    language = Language(3)
    now = CLOCKS[clock]
    committed, seen = [], []
    kept = _snapshot_of(store)
    paths: list[str] = []
    with Index.open(store, create=False) as writer, Index.open(store, create=False) as reader:
        reader.search("warm", k=1)
        for number in range(rounds):
            marker = f"marker{time.time_ns()}"
            batch = [
                Document(f"put/{marker}/{place}.txt", f"{marker} {_text(language)}", title="")
                for place in range(_BATCH)
            ]
            paths += [document.path for document in batch]
            began = now()
            report = writer.put(batch)
            middle = now()
            hits = reader.search(marker, k=_BATCH, mode="lexical")
            near = reader.search(batch[0].text.split("\n")[0], k=_K, mode="dense")
            seen.append(now() - middle)
            committed.append(middle - began)
            assert {hit.path for hit in hits} == {document.path for document in batch}, number
            assert batch[0].path in {hit.path for hit in near}, number
        print(f"A batch: {_BATCH} documents, {report.chunks} chunks, embedded; the dense snapshot was ", end="")
        print("written again." if _snapshot_of(store) != kept else "left as it was.")
        began = now()
        writer.remove("put")
        removed = now() - began
    rows = [
        ("embedded, committed, published", *_two(committed)),
        ("and found by another open index, both ways", *_two(seen)),
        ("all of them removed", milliseconds(removed), ""),
    ]
    return table((f"{_BATCH} documents, {clock}", "median ms", "most ms"), rows)


def _two(seconds: list[float]) -> tuple[str, str]:
    return milliseconds(Times(tuple(seconds)).median), milliseconds(max(seconds))


def _text(language: Language) -> str:
    subject = language.subject()
    return "\n\n".join(language.text(language.draw(90, subject)) for _ in range(_PARAGRAPHS))


def _snapshot_of(store: Path) -> str:
    manifest = read_manifest(next(store.glob("snapshots/*/dense-*")))
    return "" if manifest is None else manifest.file


if __name__ == "__main__":
    main()

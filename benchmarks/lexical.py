"""Lexical search at scale: long questions, filters, and a thousand small commits under a reader.

    python benchmarks/lexical.py [--chunks 1000000] [--queries 60] [--commits 1000] [--keep DIR] [--clock processor]

Asks questions of 8 to 64 words of the large store's index, freely and with allowed sets of many sizes, those of chance
and those that lie far from the question, beside bare tantivy. Then an index takes small commits, one document each,
while another process searches it all the time; at the end it is compared with one that was made in one go. Prints
tables; asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from queue import Queue

import numpy as np
from _common import CLOCKS, Times, interleaved, milliseconds, table, versus
from _synthetic import PER_DOCUMENT, Language, Subject, made
from query import bare_tantivy

from ragindex.filters import parse
from ragindex.store.catalog import Catalog
from ragindex.store.rows import IdArray, Mark, TextEntry
from ragindex.store.tantivy_index import TantivyIndex

_LENGTHS = (8, 16, 32, 64)  # words of a question
_SHARES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
_LENGTH = 16
_DEPTHS = (10, 200)
_TOPICS = 200
_NEVER_ASKED = 100  # topics below this one are only in what is allowed, those above only in what is asked
_BASE = 20_000  # chunks before the small commits
_NONE = np.empty(0, np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=60, help="timed queries of each kind")
    parser.add_argument("--commits", type=int, default=1_000)
    parser.add_argument("--keep", type=Path, help="make the store in DIR, or use the one that is there")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragindex-lexical-") as scratch:
        folder = options.keep or Path(scratch)
        made(folder, options.chunks)
        with Catalog.open(folder / "store", create=False) as catalog:
            collection = catalog.collection("default")
            index = TantivyIndex(folder / "store" / "snapshots" / str(collection) / "lexical", create=False)
            print(f"{questions(catalog, index, collection, options.queries, options.clock)}\n")
            print(f"{filtered(catalog, index, collection, options.queries, options.clock)}\n")
        print(commits(Path(scratch), options.commits, options.queries, options.clock))


def questions(catalog: Catalog, index: TantivyIndex, collection: int, count: int, clock: str) -> str:
    """Questions of every length, freely."""
    tasks: dict[str, Callable[[], object]] = {}
    for length in _LENGTHS:
        asked = Language(2).queries(length)
        tasks[f"bare tantivy, {length} words"] = bare_tantivy(catalog.directory, collection, asked)
        for depth in _DEPTHS:
            tasks[f"{length} words, {depth} results"] = _searching(index, asked, depth, None)
    times = interleaved(tasks, rounds=count, warm_up=3, clock=CLOCKS[clock])
    first = f"bare tantivy, {_LENGTHS[0]} words"
    return table(
        (f"questions of {len(index):,} chunks, {clock}", "median ms", "95 % ms", "× the first"), versus(times, first)
    )


def filtered(catalog: Catalog, index: TantivyIndex, collection: int, count: int, clock: str) -> str:
    """Questions with allowed sets: of documents by chance, and of topics that are never asked about."""
    draw = np.random.default_rng(0)
    asked = _of_topics(Language(2), _NEVER_ASKED, _TOPICS)
    everything = catalog.allowed(collection, parse("size > 0"))
    assert everything is not None
    documents = everything[: len(everything) // PER_DOCUMENT * PER_DOCUMENT].reshape(-1, PER_DOCUMENT)
    tasks: dict[str, Callable[[], object]] = {"none": _searching(index, asked, _DEPTHS[1], None)}
    for share in _SHARES:
        wanted = draw.choice(len(documents), max(1, int(share * len(documents))), replace=False)
        chance = np.sort(documents[wanted].ravel())
        far = catalog.allowed(collection, parse(f"topic < {max(1, round(share * _TOPICS))}"))
        for depth in _DEPTHS:
            tasks[f"{share:.1%} by chance, {depth} results"] = _searching(index, asked, depth, chance)
            if far is not None and share * _TOPICS >= 1:
                tasks[f"{share:.1%} far away, {depth} results"] = _searching(index, asked, depth, far)
    times = interleaved(tasks, rounds=count, warm_up=1, clock=CLOCKS[clock])
    return table(
        (f"allowed, questions of {_LENGTH} words, {clock}", "median ms", "95 % ms", "× none"), versus(times, "none")
    )


def _searching(index: TantivyIndex, asked: Iterator[str], depth: int, allowed: IdArray | None) -> Callable[[], object]:
    return lambda: index.search(next(asked), depth, allowed)


def _of_topics(language: Language, low: int, high: int) -> Iterator[str]:
    """Questions about the topics from `low` to below `high`."""
    while True:
        subject: Subject = language.subject()
        if low <= subject.topic < high:
            yield language.text(language.draw(_LENGTH, subject))


@dataclass(frozen=True, slots=True)
class Index:
    """An index on disk with what describes it."""

    name: str
    path: Path
    index: TantivyIndex

    def row(self, times: Times) -> tuple[str, ...]:
        """For the table."""
        segments = json.loads((self.path / "meta.json").read_bytes())["segments"]
        deleted = sum((segment["deletes"] or {}).get("num_deleted_docs", 0) for segment in segments)
        size = sum(file.stat().st_size for file in self.path.iterdir())
        shown = (f"{len(segments)}", f"{deleted:,}", f"{size / 1e6:.2f}", milliseconds(times.median))
        return (self.name, f"{len(self.index):,}", *shown, milliseconds(times.p95))


def commits(scratch: Path, count: int, queries: int, clock: str) -> str:
    """Many small commits while somebody reads, and what is left of them."""
    grown, whole = scratch / "grown", scratch / "whole"
    index = TantivyIndex(grown)
    index.apply(_NONE, _entries(0, _BASE), Mark(1, 1))
    seconds, reading = _committed(grown, index, count)
    fresh = TantivyIndex(whole)
    fresh.apply(_NONE, _entries(0, _BASE + count * PER_DOCUMENT // 2), Mark(1, 1))
    both = [Index(f"after {count:,} commits", grown, index), Index("made in one go", whole, fresh)]
    asked = Language(2).queries(_LENGTH)
    tasks = {each.name: _searching(each.index, asked, _DEPTHS[1], None) for each in both}
    times = interleaved(tasks, rounds=queries, warm_up=3, clock=CLOCKS[clock])
    rows = [each.row(times[each.name]) for each in both]
    sizes = table(("index", "chunks", "segments", "deleted", "MB", "median ms", "95 % ms"), rows)
    told = [("a commit", seconds), *((f"a search, {when}", found) for when, found in reading.items())]
    lines = [(name, f"{len(each.seconds):,}", *_shown(each)) for name, each in told]
    return f"{table(('wall', 'times', 'median ms', '99 % ms', 'most ms'), lines)}\n\n{sizes}"


def _committed(path: Path, index: TantivyIndex, count: int) -> tuple[Times, dict[str, Times]]:
    """Times of commits, every second of which also replaces a document, and of searches in another process before and
    during them.
    """
    context = get_context("spawn")
    manager = context.Manager()
    idle, done, found = context.Event(), context.Event(), manager.Queue()
    reader = context.Process(target=_read, args=(path, idle, done, found))
    reader.start()
    seconds = []
    idle.wait()
    for number in range(count):
        first = _BASE + (number - number % 2) // 2 * PER_DOCUMENT
        began = time.perf_counter()
        index.apply(_NONE, _entries(first, PER_DOCUMENT, seed=number), Mark(2 + number, 1))
        seconds.append(time.perf_counter() - began)
    done.set()
    before, during = found.get(), found.get()
    reader.join()
    return Times(tuple(seconds)), {"nobody writes": before, "during the commits": during}


def _read(path: Path, idle: Event, done: Event, found: Queue[Times]) -> None:
    """Search again and again, reloading each time: first alone, then until the writer is done."""
    index = TantivyIndex(path, create=False)
    asked = Language(4).queries(_LENGTH)

    def search() -> float:
        question = next(asked)
        began = time.perf_counter()
        index.reload()
        index.search(question, _DEPTHS[0])
        return time.perf_counter() - began

    before = [search() for _ in range(300)]
    idle.set()
    during = [search() for _ in iter(done.is_set, True)]
    found.put(Times(tuple(before)))
    found.put(Times(tuple(during)))


def _entries(first: int, count: int, *, seed: int = 0) -> Iterator[list[TextEntry]]:
    """Chunks with ids above `first`, in documents of ten."""
    language = Language(1_000_000 + first + seed)
    for start in range(first, first + count, PER_DOCUMENT):
        subject = language.subject()
        texts = [language.text(language.draw(90, subject)) for _ in range(PER_DOCUMENT)]
        yield [TextEntry(start + place, text, "", (), f"area/{start}.txt") for place, text in enumerate(texts, 1)]


def _shown(times: Times) -> tuple[str, str, str]:
    ordered = sorted(times.seconds)
    rare = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
    return milliseconds(times.median), milliseconds(rare), milliseconds(ordered[-1])


if __name__ == "__main__":
    main()

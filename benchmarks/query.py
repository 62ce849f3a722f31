"""Latency of a warm query over a large store, whole and in parts, against bare FAISS and bare tantivy.

    python benchmarks/query.py [--chunks 100000] [--queries 200] [--keep DIR]

The store is synthetic and seeded: words with Zipf frequencies, documents about topics, and as the vector of a chunk
the mean of its words' vectors (embedding that much text would take minutes and change no latency). Queries go through
the real encoder; none is asked twice, so no cache answers. Prints medians as multiples of the baselines in the same
run; asserts nothing.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import tantivy
from _common import interleaved, table, versus

from ragindex import Encoder, Index
from ragindex.filters import parse
from ragindex.measure import MODES
from ragindex.store.analysis import ANALYSER_VERSION
from ragindex.store.catalog import Batch, Catalog, DocumentWrite, EncoderRow, FileState
from ragindex.store.dense_files import read_manifest
from ragindex.store.faiss_base import load_faiss
from ragindex.store.rows import Float16Array
from ragindex.store.snapshot import LiveIndexes
from ragindex.types import Chunk, Document, Mode

_STOP = "the of and to in a is that for it as was with be by on not are"
_SYLLABLES = "ba cor den fi gal hum jo kel lin mar nor pel quo ras sten tu"
_WORDS, _TOPICS, _TOPIC_WORDS, _OWN_WORDS = 20_000, 200, 300, 30
_COMMON = 2_000  # the words up to this rank are common
_PER_DOCUMENT, _CHUNK_WORDS, _COMMIT = 10, 90, 200  # chunks, words, documents
_FILTERS = ("path like 'area-1/%'", "path like 'area-1/1/%'", "size > 0")  # 10 %, 1 %, all of the chunks
_K, _DEPTH = 10, 200
_BASELINE = "bare FAISS + bare tantivy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=200, help="timed queries of each kind")
    parser.add_argument("--keep", type=Path, help="make the store in DIR, or use the one that is there")
    options = parser.parse_args()
    encoder = Encoder.load("bundled")
    with tempfile.TemporaryDirectory(prefix="ragindex-query-") as scratch:
        store = (options.keep or Path(scratch)) / "store"
        if not store.is_dir():
            fill(store, encoder, chunks=options.chunks)
        measure(store, options.queries)


class Language:
    """Seeded word lists and topics."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        made = ("".join(parts) for parts in itertools.product(_SYLLABLES.split(), repeat=4))
        self.words = [*_STOP.split(), *itertools.islice(made, _WORDS - len(_STOP.split()))]
        odds = 1.0 / np.arange(1, _WORDS + 1)
        self._odds = np.cumsum(odds / odds.sum())
        topics = np.random.default_rng(0)
        self._topics = topics.integers(len(_STOP.split()), _WORDS, (_TOPICS, _TOPIC_WORDS))

    def subject(self) -> np.ndarray:
        """What a document or a query is about: a few words of a topic, by number."""
        topic = int(self.generator.integers(_TOPICS))
        return self.generator.choice(self._topics[topic], _OWN_WORDS)

    def draw(self, count: int, subject: np.ndarray) -> np.ndarray:
        """Word numbers: half of them common ones, half of the subject's."""
        common = np.minimum(np.searchsorted(self._odds, self.generator.random(count)), _WORDS - 1)
        return np.where(self.generator.random(count) < 0.5, common, self.generator.choice(subject, count))

    def text(self, numbers: np.ndarray) -> str:
        """Words as a sentence."""
        return " ".join(self.words[number] for number in numbers) + "."

    def queries(self) -> Iterator[str]:
        """Questions of eight words, without end."""
        while True:
            yield self.text(self.draw(8, self.subject()))


def fill(store: Path, encoder: Encoder, *, chunks: int) -> None:
    """Make the store and both snapshots."""
    began = time.perf_counter()
    language = Language(1)
    table_of_words = encoder.encode_documents(language.words)
    with Catalog.open(store) as catalog:
        collection = catalog.collection("default", create=True)
        row = catalog.register_encoder(encoder.fingerprint, "bundled", encoder.dimensions, {})
        catalog.activate_encoder(row.fingerprint)
        documents = (document(language, number, row, table_of_words) for number in range(chunks // _PER_DOCUMENT))
        while writes := list(itertools.islice(documents, _COMMIT)):
            catalog.commit(collection, Batch(writes=writes))
        middle = time.perf_counter()
        live = LiveIndexes(catalog, store, collection, row.id, row.dimensions)
        live.publish(force=True)
        live.close()
    done = time.perf_counter()
    print(f"made {chunks:,} chunks in {middle - began:.0f} s, their snapshots in {done - middle:.0f} s\n")


def document(language: Language, number: int, row: EncoderRow, table_of_words: np.ndarray) -> DocumentWrite:
    """A document of ten chunks about one subject."""
    subject = language.subject()
    drawn = [language.draw(_CHUNK_WORDS, subject) for _ in range(_PER_DOCUMENT)]
    texts = [language.text(numbers) for numbers in drawn]
    starts = [0, *itertools.accumulate(len(text) + 1 for text in texts)]
    chunks = [
        Chunk(ordinal, start, start + len(text), text, (), ordinal + 1, ordinal + 1, None, _CHUNK_WORDS)
        for ordinal, (start, text) in enumerate(zip(starts, texts, strict=False))
    ]
    keys = [number.to_bytes(8, "big") + ordinal.to_bytes(8, "big") for ordinal in range(_PER_DOCUMENT)]
    name = f"area-{number % 10}/{number // 10 % 10}/{number}.txt"
    text = "\n".join(texts)
    state = FileState(name, len(text), 0, f"{number:064x}", 0, "1")
    vectors = {key: _mean(table_of_words, numbers) for key, numbers in zip(keys, drawn, strict=True)}
    return DocumentWrite(Document(name, text, metadata={"size": len(text)}), state, chunks, keys, vectors, row.id)


def _mean(table_of_words: np.ndarray, numbers: np.ndarray) -> Float16Array:
    """Unit vector of a text. The commonest words count little, as they do for an encoder."""
    vector = np.minimum(1.0, numbers / _COMMON) @ table_of_words[numbers]
    return np.asarray(vector / np.linalg.norm(vector), np.float16)


def measure(store: Path, count: int) -> None:
    """Print whole queries, then their parts, as multiples of the bare libraries."""
    asked = Language(2).queries()
    with Index.open(store, create=False) as index, Catalog.open(store, create=False) as catalog:
        row = catalog.encoder()
        assert row is not None
        collection = catalog.collection("default")
        live = LiveIndexes(catalog, store, collection, row.id, row.dimensions)
        vectors = itertools.cycle(index.encoder.encode_queries(list(itertools.islice(asked, count))))
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
    print(f"{index.ntotal:,} chunks, {manifest.factory}, nprobe {getattr(index, 'nprobe', '-')}\n")
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

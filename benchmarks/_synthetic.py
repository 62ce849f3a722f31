"""A seeded language and a store made of it, as large as one likes: what the benchmarks of the store search in.

Words have Zipf frequencies, documents are about topics, and the vector of a chunk is the mean of its words' vectors
under the real encoder: embedding that much text would take hours and change no latency. Chunks of one document lie
together, and documents of one topic do, so that recall means something.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from _common import fresh, peak

from ragindex import Encoder
from ragindex.store.catalog import Batch, Catalog, DocumentWrite, EncoderRow, FileState
from ragindex.store.rows import Float16Array, Float32Array
from ragindex.store.snapshot import LiveIndexes
from ragindex.types import Chunk, Document, Metadata

__all__ = ["PER_DOCUMENT", "Language", "Phase", "Subject", "document", "fill", "made", "phase"]

PER_DOCUMENT = 10  # chunks
_STOP = "the of and to in a is that for it as was with be by on not are"
_SYLLABLES = "ba cor den fi gal hum jo kel lin mar nor pel quo ras sten tu"
_WORDS, _TOPICS, _TOPIC_WORDS, _OWN_WORDS = 20_000, 200, 300, 30
_SENTENCE_WORDS = 20
_COMMON = 2_000  # the words up to this rank are common
_CHUNK_WORDS, _COMMIT = 90, 200  # words, documents
_KINDS = ("note", "report", "letter", "minutes")

Numbers = npt.NDArray[np.int64]


class Subject(NamedTuple):
    """What a document or a query is about: a topic, and a few of its words by number."""

    topic: int
    words: Numbers


class Language:
    """Seeded word lists and topics; topics are the same for every seed."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        made = ("".join(parts) for parts in itertools.product(_SYLLABLES.split(), repeat=4))
        self.words = [*_STOP.split(), *itertools.islice(made, _WORDS - len(_STOP.split()))]
        odds = 1.0 / np.arange(1, _WORDS + 1)
        self._odds = np.cumsum(odds / odds.sum())
        topics = np.random.default_rng(0)
        self._topics = topics.integers(len(_STOP.split()), _WORDS, (_TOPICS, _TOPIC_WORDS))

    def subject(self) -> Subject:
        """A topic and thirty of its words, both by chance."""
        topic = int(self.generator.integers(_TOPICS))
        return Subject(topic, self.generator.choice(self._topics[topic], _OWN_WORDS))

    def draw(self, count: int, subject: Subject) -> Numbers:
        """Word numbers: half of them common ones, half of the subject's."""
        common = np.minimum(np.searchsorted(self._odds, self.generator.random(count)), _WORDS - 1)
        return np.where(self.generator.random(count) < 0.5, common, self.generator.choice(subject.words, count))

    def text(self, numbers: Numbers) -> str:
        """Words as sentences, of twenty each."""
        words = [self.words[number] for number in numbers.tolist()]
        starts = range(0, len(words), _SENTENCE_WORDS)
        return " ".join(" ".join(words[start : start + _SENTENCE_WORDS]) + "." for start in starts)

    def queries(self, length: int = 8) -> Iterator[str]:
        """Questions of so many words, without end."""
        while True:
            yield self.text(self.draw(length, self.subject()))


@dataclass(frozen=True, slots=True)
class Phase:
    """What a part of the work took: seconds by the wall clock and of the processor, and the most memory, in bytes, that
    the process had held by its end.
    """

    seconds: float
    processor: float
    peak: int


def made(folder: Path, chunks: int) -> dict[str, Phase]:
    """See that `folder` holds a `store` of so many chunks; what making it took, now or at another time."""
    note = folder / "built.json"
    if not note.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({name: asdict(each) for name, each in fresh(_make, folder, chunks).items()}))
    return {name: Phase(**values) for name, values in json.loads(note.read_text()).items()}


def _make(folder: Path, chunks: int) -> dict[str, Phase]:
    return fill(folder / "store", Encoder.load("bundled"), chunks=chunks)


def fill(store: Path, encoder: Encoder, *, chunks: int, seed: int = 1) -> dict[str, Phase]:
    """Make a store of about so many chunks with both snapshots; what "catalogue", "lexical" and "dense" took."""
    language = Language(seed)
    table_of_words = encoder.encode_documents(language.words)
    with Catalog.open(store) as catalog:
        collection = catalog.collection("default", create=True)
        row = catalog.register_encoder(encoder.fingerprint, "bundled", encoder.dimensions, {})
        catalog.activate_encoder(row.fingerprint)

        def commit() -> None:
            documents = (document(language, number, row, table_of_words) for number in range(chunks // PER_DOCUMENT))
            while writes := list(itertools.islice(documents, _COMMIT)):
                catalog.commit(collection, Batch(writes=writes))

        phases = {"catalogue": phase(commit)}
        live = LiveIndexes(catalog, store, collection, row.id, row.dimensions)
        phases["lexical"] = phase(live.lexical)
        phases["dense"] = phase(lambda: live.publish(force=True))
        live.close()
    return phases


def phase(work: Callable[[], object]) -> Phase:
    """Do the work and say what it took."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return Phase(time.perf_counter() - clock, time.process_time() - processor, peak())


def document(language: Language, number: int, row: EncoderRow, table_of_words: Float32Array) -> DocumentWrite:
    """The document of that number: ten chunks about one subject.

    Its path begins with `area-<number % 10>/<number // 10 % 10>/`; its metadata are `size`, `topic`, `serial` (the
    number) and `kind`.
    """
    subject = language.subject()
    drawn = [language.draw(_CHUNK_WORDS, subject) for _ in range(PER_DOCUMENT)]
    texts = [language.text(numbers) for numbers in drawn]
    starts = [0, *itertools.accumulate(len(text) + 1 for text in texts)]
    chunks = [
        Chunk(ordinal, start, start + len(text), text, (), ordinal + 1, ordinal + 1, None, _CHUNK_WORDS)
        for ordinal, (start, text) in enumerate(zip(starts, texts, strict=False))
    ]
    keys = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
    name = f"area-{number % 10}/{number // 10 % 10}/{number}.txt"
    text = "\n".join(texts)
    state = FileState(name, len(text), 0, f"{number:064x}", 0, "1")
    vectors = {key: _mean(table_of_words, numbers) for key, numbers in zip(keys, drawn, strict=True)}
    metadata: Metadata = {
        "size": len(text),
        "topic": subject.topic,
        "serial": number,
        "kind": _KINDS[number % len(_KINDS)],
    }
    return DocumentWrite(Document(name, text, metadata=metadata), state, chunks, keys, vectors, row.id)


def _mean(table_of_words: Float32Array, numbers: Numbers) -> Float16Array:
    """Unit vector of a text. The commonest words count little, as they do for an encoder."""
    vector = np.minimum(1.0, numbers / _COMMON) @ table_of_words[numbers]
    return np.asarray(vector / np.linalg.norm(vector), np.float16)

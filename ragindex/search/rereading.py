"""Hybrid search that reads its best candidates once more, with what neither of its lists knows.

Both lists take a passage for a bag, BM25 of its words and a vector of all that it says. So two things are looked for in
the passages at the top:

- their sentence that is nearest to the query: a passage counts as much as the mean of its own cosine and of that
  one's. That the best part of a text tells more than the whole is old (Callan, "Passage-level evidence in document
  retrieval", SIGIR 1994); a static encoder, which says of a long passage little more than its subject, gains most.
  It is also the only one that reads twenty passages while a user waits, so with others this is left out.
- words of the query in its order (`ragindex.store.word_order`).

What was not read counts as if it had gained as much as what was, on average. The scores that a hit shows for each list
stay what they are, a cosine and BM25: only the order in which they are fused knows of this. `benchmarks/rereading.py`
measures it; the constants were chosen on the data sets that docs/querying.md names.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

import numpy as np

from ragindex.chunking.boundaries import sentence_ends
from ragindex.errors import EncoderError
from ragindex.search.fusion import HEAD, Fused, fuse
from ragindex.store.rows import Float32Array, IdArray
from ragindex.store.text_index import TextIndex
from ragindex.store.vector_index import Scored

__all__ = ["Passage", "Reader", "Reading", "Sentences", "fuse_and_read", "read_passages", "sentences", "title_line"]

_READ = 20  # candidates; with 10, the sets' mean is 0.001 lower, with 30 the same
_SENTENCE = 0.5  # of the weight of the dense list: the best sentence, the rest is the passage's
_ORDER = 0.7  # what a pair of words in order counts, in words
_SHORTEST = 60  # characters of what counts as a sentence: shorter ones are joined to the next
_LONGEST = 8_000  # characters of a passage that are read: those that other programs bring may be books
_LONGEST_TITLE = 300
_LINE_END = re.compile("\n")
_KNOWN = 512  # passages whose sentences are remembered: similar queries read the same ones


class Reading(NamedTuple):
    """What was found in passages: their ids (n,); how much nearer to the query their best sentence is than they are,
    and what they gain by words in order, both (n,); the best sentences, "" where none was looked for.
    """

    ids: IdArray
    nearer: Float32Array
    ordered: Float32Array
    sentences: Sequence[str]


class SentenceEncoder(Protocol):
    """What is asked of an encoder here; see `ragindex.encoder.TextEncoder`."""

    def encode_documents(self, texts: Sequence[str], *, titles: Sequence[str] | None = None) -> np.ndarray:
        """Unit vectors, float32 (len(texts), d)."""


class Reader(Protocol):
    """What reads passages: all that a query's two lists were made of."""

    def __call__(self, ids: IdArray) -> Reading:
        """What is found in those of the passages that still exist."""


def fuse_and_read(
    dense: Scored,
    lexical: Scored,
    read: Reader,
    *,
    ceiling: float,
    depth: int = HEAD,
    trust: float = 1.0,
    share: float | None = None,
) -> tuple[Fused, Reading]:
    """Fuse two lists as `ragindex.search.fusion.fuse` does, `read` the best ids of the result, and fuse again with
    what they gained.
    """

    def fused(dense: Scored, lexical: Scored) -> Fused:
        return fuse(dense, lexical, ceiling=ceiling, depth=depth, trust=trust, share=share)

    found = read(fused(dense, lexical).ids[:_READ])
    nearer = _raised(dense, found.ids, _SENTENCE * found.nearer)
    return fused(nearer, _raised(lexical, found.ids, _ORDER * found.ordered)), found


def _raised(found: Scored, ids: IdArray, gains: Float32Array) -> Scored:
    """The list with the gains of `ids`, those of them that it has, and the mean of these for all others."""
    order = np.argsort(ids)
    ids, gains = ids[order], gains[order]
    places = np.minimum(np.searchsorted(ids, found.ids), max(len(ids) - 1, 0))
    read = np.zeros(len(found.ids), bool) if not len(ids) else ids[places] == found.ids
    if not read.any() or not gains.any():
        return found
    scores = found.scores + gains[places[read]].mean()
    scores[read] = found.scores[read] + gains[places[read]]
    best = np.lexsort((found.ids, -scores))
    return Scored(found.ids[best], scores[best].astype(np.float32))


class Passage(NamedTuple):
    """What is read. title: what stands above the text, in a line."""

    id: int
    title: str
    text: str


class Sentences:
    """The sentences of passages and their vectors under one encoder. Thread-safe."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], _Told] = OrderedDict()

    def of(self, passages: Sequence[Passage]) -> list[_Told]:
        """The sentences of each passage, the first one told with its title."""
        keys = [(passage.title, passage.text) for passage in passages]
        with self._lock:
            known = {key: self._known[key] for key in keys if key in self._known}
            for key in known:
                self._known.move_to_end(key)
        fresh = {key: sentences(key[1]) for key in keys if key not in known}
        made = {key: _Told(parts, None) for key, parts in fresh.items()}
        several = {key: parts for key, parts in fresh.items() if len(parts) > 1}
        try:
            made.update(self._encoded(several))
        except (
            EncoderError
        ):  # one is longer than the encoder reads: those without such a sentence are read all the same
            for key, parts in several.items():
                with suppress(EncoderError):
                    made.update(self._encoded({key: parts}))
        self._remember(made)
        return [known[key] if key in known else made[key] for key in keys]

    def _encoded(self, fresh: Mapping[tuple[str, str], Sequence[str]]) -> Mapping[tuple[str, str], _Told]:
        if not fresh:
            return {}
        parts = [part for told in fresh.values() for part in told]
        titles = [title if place == 0 else "" for (title, _), told in fresh.items() for place in range(len(told))]
        vectors = self._encoder.encode_documents(parts, titles=titles)
        ends = np.cumsum([len(told) for told in fresh.values()])
        return dict(zip(fresh, map(_Told, fresh.values(), np.split(vectors, ends[:-1])), strict=True))

    def _remember(self, made: Mapping[tuple[str, str], _Told]) -> None:
        with self._lock:
            self._known.update(made)
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)


class _Told(NamedTuple):
    """Sentences and their vectors, float32 (sentences, d); None where there is a single one, whose vector is the
    passage's, and where one is longer than the encoder reads.
    """

    sentences: Sequence[str]
    vectors: Float32Array | None


def read_passages(
    passages: Sequence[Passage],
    *,
    query: str,
    vector: Float32Array,
    dense: Scored,
    words: TextIndex,
    known: Sentences | None,
) -> Reading:
    """Read passages for a query and its unit vector. dense: the list that their own cosines are in; words: the index
    that knows how rare words are; known: None where the encoder is too slow for sentences.
    """
    ids = [passage.id for passage in passages]
    ordered = words.order_gains(query, [f"{passage.title}\n{passage.text[:_LONGEST]}" for passage in passages])
    nearer, best = np.zeros(len(ids), np.float32), [""] * len(ids)
    own = dict(zip(dense.ids.tolist(), dense.scores.tolist(), strict=True))
    for place, told in enumerate(known.of(passages) if known is not None else ()):
        if told.vectors is None:
            best[place] = told.sentences[0] if len(told.sentences) == 1 else ""
            continue
        cosines = told.vectors @ vector
        nearest = int(cosines.argmax())
        best[place] = told.sentences[nearest]
        if ids[place] in own:
            nearer[place] = cosines[nearest] - own[ids[place]]
    return Reading(np.array(ids, np.int64), nearer, ordered, best)


def title_line(title: str, heading: Sequence[str]) -> str:
    """What stands above a passage, in a line."""
    parts = (" ".join(part.split()) for part in (title, *heading))
    return " > ".join(dict.fromkeys(part for part in parts if part))[:_LONGEST_TITLE]


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, short ones joined to the next; the text itself where there is only one."""
    text = text[:_LONGEST]
    ends = sorted({*sentence_ends(text, 0, len(text)), *(match.start() for match in _LINE_END.finditer(text))})
    found: list[str] = []
    start = 0
    for end in (*ends, len(text)):
        if len(part := text[start:end].strip()) >= _SHORTEST or (part and end == len(text)):
            found.append(part)
            start = end
    return found or [text]

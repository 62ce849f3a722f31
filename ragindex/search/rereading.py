"""Hybrid search that reads its best candidates once more, with what neither of its lists knows.

Both lists take a passage for a bag, BM25 of its words and a vector of all that it says. So of the passages at the top
it is found out

- which of their sentences is nearest to the query: a passage counts as much as the mean of its own cosine and of that
  one's. That the best part of a text tells more than the whole is old (Callan, "Passage-level evidence in document
  retrieval", SIGIR 1994); a static encoder, which says of a long passage little more than its subject, gains most.
- how well they answer each word of the query: late interaction (`ragindex.encoder.reading`), which tells a passage
  that has nothing on one of them from one that has something on all.
- which words of the query they hold in its order (`ragindex.store.word_order`).
- what the other passages at the top are worth that are like them (`ragindex.search.regularisation`).

Only a static encoder reads twenty passages while a user waits, so with others the first two are left out.

What was not read counts as if it had gained as much as what was, on average. The scores that a hit shows for each list
stay what they are, a cosine and BM25: only the order in which they are fused knows of this. `benchmarks/rereading.py`
measures it; the constants were chosen on the data sets that docs/querying.md names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from ragindex.search.fusion import HEAD, Fused, fuse
from ragindex.search.regularisation import regularised
from ragindex.search.sentences import Sentences
from ragindex.store.rows import Float32Array, IdArray
from ragindex.store.text_index import TextIndex
from ragindex.store.vector_index import Scored

__all__ = ["Passage", "Reader", "Reading", "fuse_and_read", "read_passages"]

_READ = 20  # candidates; with 10, the sets' mean is 0.003 lower, with 30 the same
_SENTENCE = 0.5  # of the weight of the dense list: the best sentence, the rest is the passage's
_INTERACTION = 0.3  # what late interaction counts beside a cosine
_ORDER = 0.7  # what a pair of words in order counts, in words
_LIKENESS = 0.3  # of a fused score: what the passages like it have
_LONGEST = 8_000  # characters of a passage that are read: those that other programs bring may be books
_LONGEST_TITLE = 300  # characters of what is read of a title


class Reading(NamedTuple):
    """What was found in passages: their ids (n,); how much nearer to the query their best sentence is than they are,
    how well they answer each of its words, what they gain by words in order, each (n,); their vectors (n, d); the best
    sentences, "" where none was looked for.
    """

    ids: IdArray
    nearer: Float32Array
    answered: Float32Array
    ordered: Float32Array
    vectors: Float32Array
    sentences: Sequence[str]


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
    dense = _raised(dense, found.ids, _SENTENCE * found.nearer + _INTERACTION * found.answered)
    result = fused(dense, _raised(lexical, found.ids, _ORDER * found.ordered))
    if share != 0:  # or vectors were to have no say
        result = _regularised(result, found)
    return result, found


def _raised(found: Scored, ids: IdArray, gains: Float32Array) -> Scored:
    """The list with the gains of `ids`, those of them that it has, and the mean of these for all others."""
    read, places = _placed(found.ids, ids)
    if not read.any() or not gains.any():
        return found
    scores = found.scores + gains[places].mean()
    scores[read] = found.scores[read] + gains[places]
    return Scored(*_sorted(found.ids, scores))


def _regularised(fused: Fused, found: Reading) -> Fused:
    """The fused list with the scores of what was read brought nearer to those of their like."""
    read, places = _placed(fused.ids, found.ids)
    scores = fused.scores.copy()
    scores[read] = regularised(fused.scores[read], found.vectors[places], share=_LIKENESS)
    return Fused(*_sorted(fused.ids, scores), fused.dense_weight)


def _placed(ids: IdArray, wanted: IdArray) -> tuple[np.ndarray, np.ndarray]:
    """Which of `ids` are wanted, bool, and the places of these in `wanted`."""
    if not len(wanted):
        return np.zeros(len(ids), bool), np.empty(0, np.int64)
    order = np.argsort(wanted)
    places = np.minimum(np.searchsorted(wanted[order], ids), len(wanted) - 1)
    held = wanted[order][places] == ids
    return held, order[places[held]]


def _sorted(ids: IdArray, scores: Float32Array) -> tuple[IdArray, Float32Array]:
    best = np.lexsort((ids, -scores))
    return ids[best], scores[best].astype(np.float32)


class Passage(NamedTuple):
    """What is read. title: the line above the text; vector: its own, (d,)."""

    id: int
    title: str
    text: str
    vector: Float32Array


def read_passages(
    passages: Sequence[Passage], *, query: str, vector: Float32Array, words: TextIndex, known: Sentences | None
) -> Reading:
    """Read passages for a query and its unit vector. words: the index that knows how rare words are; known: None where
    the encoder is too slow for sentences.
    """
    count = len(passages)
    texts = [passage.text[:_LONGEST] for passage in passages]
    titles = [passage.title[:_LONGEST_TITLE] for passage in passages]
    ordered = words.order_gains(query, [f"{title}\n{text}" for title, text in zip(titles, texts, strict=True)])
    vectors = np.stack([passage.vector for passage in passages]) if count else np.empty((0, len(vector)), np.float32)
    nearer, answered, best = np.zeros(count, np.float32), np.zeros(count, np.float32), [""] * count
    if known is not None:
        told = known.of(list(zip(titles, texts, strict=True)))
        answered = known.answered(query, told)
        own = vectors @ vector
        for place, one in enumerate(told):
            if one.vectors is not None:
                cosines = one.vectors @ vector
                nearest = int(cosines.argmax())
                best[place] = one.sentences[nearest]
                nearer[place] = cosines[nearest] - own[place]
    return Reading(np.array([passage.id for passage in passages], np.int64), nearer, answered, ordered, vectors, best)

"""Fuses a dense and a lexical result list by standardised scores, each weighted by its evidence.

Reciprocal-rank fusion throws scores away and lets a weak list vote as loudly as a strong one; on nine development sets
it lost up to 0.29 nDCG@10 to the better of its two lists. Here each list's scores are brought to mean 0 and deviation 1
over its own head, and the weight of a list is its evidence:

- how far its best score stands above its tail, in deviations of the tail: a list whose top stands out has found
  something, one that falls slowly is guessing;
- for the lexical list, times the square of the coverage: the share of the query's words, weighed by rarity, that its
  best result accounts for. Somebody who asks in other words than the document's gets a low coverage, and then BM25's
  clear winner is clear about little words only.

A lexical list that is complete goes on with zeros, as many as it takes to be as long as the dense one: whatever else
there is shares no word with the query. So the only two passages that hold an identifier stand out, as far as that one
list can tell, however much they differ from each other.

`benchmarks/quality.py` measures it; the constants below were chosen on the development sets it names.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragindex.store.rows import Float32Array, IdArray
from ragindex.store.vector_index import Scored

__all__ = ["HEAD", "Fused", "evidence", "fuse"]

HEAD = 200  # results of a list that its statistics are taken over
_TOP = 10  # results that do not count as tail
_CLEAREST = 25.0  # evidence of a complete list of very few
_FULL = 0.35  # coverage at which the lexical list is trusted fully: length and frequency damping keep real ones below 1


class Fused(NamedTuple):
    """Candidates best first: ids (n,), fused scores (n,), and the share of the dense list in them."""

    ids: IdArray
    scores: Float32Array
    dense_weight: float


def fuse(
    dense: Scored,
    lexical: Scored,
    *,
    ceiling: float,
    depth: int = HEAD,
    trust: float = 1.0,
    share: float | None = None,
) -> Fused:
    """Fuse two lists, each best first and cut at `depth`.

    A candidate that a list lacks counts there as that list's worst, or as 0 where the lexical list is complete: it
    shares no word with the query. `trust` multiplies the evidence of the dense list; it is a property of the encoder,
    measured. `share`: the weight of the dense list, in place of what the evidence says.
    """
    if not len(dense.ids) or not len(lexical.ids):
        only, weight = (dense, 1.0) if len(dense.ids) else (lexical, 0.0)
        return Fused(only.ids, only.scores, weight)
    coverage = min(1.0, float(lexical.scores[0]) / (_FULL * ceiling)) if ceiling > 0 else 1.0
    complete = len(lexical.ids) < depth
    head = _head(lexical.scores, len(dense.ids) if complete else 0)
    # The fewer share a word with the query, the clearer these stand apart, even where none of them is a tail.
    apart = _CLEAREST * (1 - len(lexical.ids) / len(head)) if complete else 0.0
    told = _share(trust * evidence(dense.scores), coverage**2 * max(apart, evidence(lexical.scores)))
    weight = told if share is None else share
    both = np.sort(np.concatenate([dense.ids, lexical.ids]))
    ids = both[np.append(True, both[1:] != both[:-1])]  # np.union1d would import numpy.ma, a tenth of a cold query
    unmatched = 0.0 if complete else float(lexical.scores[-1])
    scores = weight * _standardised(dense, ids, _head(dense.scores), missing=float(dense.scores[-1]))
    scores += (1.0 - weight) * _standardised(lexical, ids, head, missing=unmatched)
    order = np.lexsort((ids, -scores))
    return Fused(ids[order], scores[order].astype(np.float32), weight)


def evidence(scores: Float32Array) -> float:
    """How far the best score stands above the tail, in deviations of the tail; 0 where there is no tail to compare
    with.
    """
    tail = np.asarray(scores[_TOP:HEAD], dtype=np.float64)
    if len(tail) < 2:
        return 0.0
    spread = float(tail.std())
    return float((scores[0] - tail.mean()) / spread) if spread > 1e-9 else 0.0


def _share(dense: float, lexical: float) -> float:
    return dense / (dense + lexical) if dense > 0 and lexical > 0 else 0.5


def _head(scores: Float32Array, length: int = 0) -> Float32Array:
    """The scores that statistics are taken over, with zeros up to `length`."""
    head = scores[:HEAD]
    return np.concatenate([head, np.zeros(max(0, min(length, HEAD) - len(head)), np.float32)])


def _standardised(result: Scored, ids: IdArray, head: Float32Array, *, missing: float) -> np.ndarray:
    """Scores of `ids` in deviations from the mean of the head; `missing` where the list lacks them."""
    head = np.asarray(head, dtype=np.float64)
    spread = float(head.std())
    spread = spread if spread > 1e-6 else 1.0  # less is rounding, not an opinion
    values = np.full(len(ids), missing)
    values[np.searchsorted(ids, result.ids)] = result.scores
    return np.asarray((values - head.mean()) / spread)

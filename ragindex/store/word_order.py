"""What texts gain by holding a query's words in its order, which BM25 knows nothing of. Pure.

The ordered features of the sequential dependence model (Metzler and Croft, "A Markov random field model for term
dependencies", SIGIR 2005), reduced to what it took: two words that follow each other in the query and in the text,
stop words aside, count once, as much as the commoner of the two. How often they do, other distances and the reverse
order added nothing (docs/querying.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from ragindex.store.rows import Float32Array

__all__ = ["order_gains"]


def order_gains(
    asked: Sequence[str], texts: Iterable[Sequence[str]], worth: Mapping[str, float], *, count: int
) -> Float32Array:
    """The gain (count,) of each of `count` texts. asked: terms of the query, in order; texts: their terms, in order;
    worth: of each term asked, the gain that a text has from holding it.
    """
    wanted = {pair: min(worth[pair[0]], worth[pair[1]]) for pair in pairwise(asked) if pair[0] != pair[1]}
    if not wanted:
        return np.zeros(count, np.float32)
    held = (wanted.keys() & set(pairwise(terms)) for terms in texts)
    # In the order of the query: a sum of floats depends on it, and that of a set changes from run to run.
    return np.fromiter(
        (sum(gain for pair, gain in wanted.items() if pair in pairs) for pairs in held), np.float32, count
    )

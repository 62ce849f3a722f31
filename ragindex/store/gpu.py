"""Searches of FAISS indexes on a graphics card, which have to find what the processor finds.

Only FAISS's builds for CUDA can do it, and only for some indexes: whole vectors and codes in inverted lists. A search
under a filter is the processor's in any case, for the card knows no selectors.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from ragindex.errors import MissingDependencyError, StoreError
from ragindex.store.faiss_base import load_faiss
from ragindex.store.rows import Float32Array
from ragindex.store.vector_index import Scored

__all__ = ["MOST", "Gpu"]

MOST = 2048  # results that FAISS's kernels give at once
_COMPARED = 10  # of the nearest
_SAME = 0.99  # share of them that has to be the same; at the edge of what is visited, rounding decides
_TOLERANCE = 1e-3  # of scores


class Gpu:
    """The first graphics card that is visible (CUDA_VISIBLE_DEVICES chooses). Thread-safe: one search at a time, as
    FAISS asks for.

    Raises MissingDependencyError when this FAISS knows no cards or finds none.
    """

    def __init__(self) -> None:
        faiss = load_faiss()
        if not hasattr(faiss, "StandardGpuResources"):
            raise MissingDependencyError(
                "index.search_on is 'gpu', but the installed FAISS is the one for processors; run `pip uninstall -y "
                "faiss-cpu` and `pip install 'ragindex[gpu]'`, or set it to 'cpu'."
            )
        if faiss.get_num_gpus() == 0:
            raise MissingDependencyError("index.search_on is 'gpu', but FAISS finds no GPU; set it to 'cpu'.")
        self._faiss = faiss
        self._resources = faiss.StandardGpuResources()
        self._lock = threading.Lock()

    def copied(self, index: Any, queries: Float32Array, parameters: Any = None) -> Any:
        """A copy of `index` in the card's memory. Raises StoreError when there is no room for it, or when it does not
        find for `queries` (n, d) what the original finds.
        """
        with self._lock:
            try:
                copy = self._faiss.index_cpu_to_gpu(self._resources, 0, index)
            except RuntimeError as error:
                raise StoreError(
                    f"The GPU cannot hold the dense index ({error}); set index.search_on to 'cpu', or choose a smaller "
                    "scheme with `ragindex compact --index`."
                ) from error
        expected = index.search(queries, _COMPARED, params=parameters)
        with self._lock:
            found = copy.search(queries, _COMPARED, params=parameters)
        share = _share(expected[1], found[1])
        if share < _SAME or not np.allclose(found[0], expected[0], atol=_TOLERANCE):
            raise StoreError(
                f"The GPU finds {share:.1%} of what the processor finds among the ten nearest, or scores it otherwise; "
                "set index.search_on to 'cpu'."
            )
        return copy

    def search(self, copy: Any, query: Float32Array, count: int, parameters: Any = None) -> Scored:
        """The `count` nearest for one query (d,), -1 in the place of ids that there are not; `MOST` at most."""
        with self._lock:
            scores, ids = copy.search(query[None], count, params=parameters)
        return Scored(ids[0], scores[0])


def _share(expected: Any, found: Any) -> float:
    pairs = zip(expected, found, strict=True)
    return float(np.mean([np.isin(one[one >= 0], other).mean() for one, other in pairs if (one >= 0).any()]))

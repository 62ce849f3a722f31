"""Vectors by id, indexes over them and the exact reference, for the tests of the dense side."""

from __future__ import annotations

import numpy as np

from ragindex.store.dense_base import Source
from ragindex.store.faiss_index import FaissIndex
from ragindex.store.rows import VectorBatch
from ragindex.store.schemes import SCHEMES
from ragindex.store.vector_index import MemoryVectorIndex

D = 16


class World:
    """Clustered unit vectors, exact in half floats."""

    def __init__(self, count, seed=0):
        rng = np.random.default_rng(seed)
        centres = rng.standard_normal((40, D))
        raw = centres[rng.integers(0, 40, count)] + 0.7 * rng.standard_normal((count, D))
        raw /= np.linalg.norm(raw, axis=1, keepdims=True)
        self.vectors = raw.astype(np.float16).astype(np.float32)
        self.ids = np.arange(count, dtype=np.int64) * 3 + 5
        self.rng = rng
        self.fetched = 0

    def fetch(self, ids):
        """What the catalogue would give."""
        self.fetched += len(ids)
        return VectorBatch(ids, self.vectors[(ids - 5) // 3])

    def source(self, upto=None):
        """In batches of a few hundred."""
        count = len(self.ids[:upto])
        cuts = [slice(start, min(start + 300, count)) for start in range(0, count, 300)]
        return Source(count, lambda: (VectorBatch(self.ids[cut], self.vectors[cut]) for cut in cuts))

    def build(self, upto=None, scheme="flat"):
        """An index of the first vectors, and the reference."""
        reference = MemoryVectorIndex(D)
        reference.add(self.ids[:upto], self.vectors[:upto])
        return FaissIndex.build(D, self.fetch, SCHEMES[scheme], self.source(upto)), reference

    def query(self):
        value = self.vectors[self.rng.integers(len(self.vectors))] + 0.2 * self.rng.standard_normal(D)
        return (value / np.linalg.norm(value)).astype(np.float32)


def assert_equal(found, expected):
    assert found.ids.tolist() == expected.ids.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, atol=2e-6)


def recall(index, reference, world, k=10, allowed=None, queries=20):
    """The share of the k nearest that are found; asserts that k are, and that every score is exact."""
    hit = 0
    for _ in range(queries):
        query = world.query()
        found = index.search(query, k, allowed)
        truth = reference.search(query, k, allowed)
        assert len(found.ids) == len(set(found.ids.tolist())) == len(truth.ids)
        # Scores are rounded to 1e-6, here and in the reference.
        exact = reference.search(query, len(found.ids), np.sort(found.ids))
        assert_equal(found, exact)
        hit += len(np.intersect1d(found.ids, truth.ids))
    return hit / (queries * len(truth.ids))

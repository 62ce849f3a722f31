import importlib.metadata
import sys

import numpy as np
import pytest
from dense_kit import D, World, assert_equal

from ragindex.errors import MissingDependencyError
from ragindex.store import faiss_base
from ragindex.store.dense_base import Source
from ragindex.store.faiss_index import FaissIndex
from ragindex.store.rows import VectorBatch
from ragindex.store.schemes import SCHEMES
from ragindex.store.vector_index import VectorIndex


def test_both_are_vector_indexes():
    index, reference = World(10).build()
    assert isinstance(index, VectorIndex)
    assert isinstance(reference, VectorIndex)


def test_flat_is_exact_through_adds_and_removes():
    world = World(600)
    index, reference = world.build(400)
    assert index.factory == "Flat"
    for target in (index, reference):
        target.add(world.ids[400:], world.vectors[400:])
        target.remove(world.ids[350:450])
        target.remove(np.array([1, 10**12]))
        target.add(world.ids[:5], world.vectors[100:105])
    assert len(index) == len(reference) == 500
    for k in (1, 7, 1000):
        query = world.query()
        assert_equal(index.search(query, k), reference.search(query, k))
        folded = index.compacted()
        assert folded.pending == 0
        assert_equal(folded.search(query, k), reference.search(query, k))


def test_allowed_ids_that_nobody_knows():
    world = World(50)
    index, _ = world.build()
    assert index.search(world.query(), 5, np.array([1, 2], np.int64)).ids.tolist() == []
    assert index.search(world.query(), 5, np.empty(0, np.int64)).ids.tolist() == []
    assert index.search(world.query(), 0).ids.tolist() == []


@pytest.mark.parametrize("scheme", sorted(SCHEMES.keys() - {"hnsw"}))  # which equals a graph meets is chance
def test_ties_are_broken_by_id_wherever_the_vectors_lie(scheme):
    same = np.tile(np.eye(D, dtype=np.float32)[0], (60, 1))
    ids = np.arange(1, 61, dtype=np.int64)
    source = Source(40, lambda: [VectorBatch(ids[1:41], same[:40])])
    index = FaissIndex.build(D, lambda some: VectorBatch(some, same[: len(some)]), SCHEMES[scheme], source)
    index.add(np.array([*ids[41:], 1]), same[:20])
    assert index.search(same[0], 5).ids.tolist() == [1, 2, 3, 4, 5]


def test_no_faiss_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match=r"ragindex\[cpu\]"):
        faiss_base.load_faiss()


def test_two_builds_of_faiss_are_refused(monkeypatch):
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1" if name.startswith("faiss-") else real(name))
    with pytest.raises(MissingDependencyError, match="faiss-cpu and faiss-gpu"):
        faiss_base.load_faiss()

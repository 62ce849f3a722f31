import importlib.metadata
import sys

import numpy as np
import pytest

from ragindex.errors import MissingDependencyError
from ragindex.store import faiss_base
from ragindex.store.faiss_index import FaissIndex
from ragindex.store.rows import VectorBatch
from ragindex.store.vector_index import MemoryVectorIndex, VectorIndex

D = 16


class World:
    """Vectors by id, an index under test and the reference."""

    def __init__(self, count, seed=0):
        rng = np.random.default_rng(seed)
        centres = rng.standard_normal((40, D))
        raw = centres[rng.integers(0, 40, count)] + 0.7 * rng.standard_normal((count, D))
        raw /= np.linalg.norm(raw, axis=1, keepdims=True)
        self.vectors = raw.astype(np.float16).astype(np.float32)
        self.ids = np.arange(count, dtype=np.int64) * 3 + 5
        self.rng = rng

    def fetch(self, ids):
        return VectorBatch(ids, self.vectors[(ids - 5) // 3])

    def build(self, upto=None):
        first = slice(0, upto)
        reference = MemoryVectorIndex(D)
        reference.add(self.ids[first], self.vectors[first])
        batches = [VectorBatch(self.ids[first][::-1], self.vectors[first][::-1])]
        return FaissIndex.build(D, self.fetch, batches), reference

    def query(self):
        value = self.vectors[self.rng.integers(len(self.vectors))] + 0.2 * self.rng.standard_normal(D)
        return (value / np.linalg.norm(value)).astype(np.float32)


@pytest.fixture
def lists(monkeypatch):
    """Makes inverted lists of small bases."""
    monkeypatch.setattr(faiss_base, "_FLAT_UP_TO", 1_000)


def assert_equal(found, expected):
    assert found.ids.tolist() == expected.ids.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, atol=2e-6)


def recall(index, reference, world, k=10, allowed=None, queries=20):
    hit = 0
    for _ in range(queries):
        query = world.query()
        found = index.search(query, k, allowed).ids
        truth = reference.search(query, k, allowed).ids
        assert len(found) == len(truth)
        hit += len(np.intersect1d(found, truth))
    return hit / (queries * min(k, len(truth)))


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


def test_lists_find_what_is_near(lists):
    world = World(4_000)
    index, reference = world.build(3_500)
    assert index.factory == "IVF240,SQfp16"
    for target in (index, reference):
        target.add(world.ids[3_500:], world.vectors[3_500:])
        target.remove(world.ids[::7])
    assert recall(index, reference, world) >= 0.98
    folded = index.compacted()
    assert (len(folded), folded.pending, folded.factory) == (len(index), 0, "IVF240,SQfp16")
    assert recall(folded, reference, world) >= 0.98


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02, 0.005])
@pytest.mark.parametrize("upto", [900, 4_000])
def test_k_results_at_every_selectivity(lists, share, upto):
    world = World(4_000)
    index, reference = world.build(upto)
    for target in (index, reference):
        target.remove(world.ids[:upto:5])
        target.add(world.ids[upto:], world.vectors[upto:])
    allowed = np.sort(world.rng.choice(world.ids, int(share * len(world.ids)), replace=False))
    assert recall(index, reference, world, allowed=allowed) >= 0.98


def test_lists_score_exactly(lists):
    world = World(4_000)
    index, reference = world.build()
    for target in (index, reference):
        target.remove(world.ids[1::9])
    query = world.query()
    few = np.sort(world.rng.choice(world.ids, 30, replace=False))
    assert_equal(index.search(query, 20, few), reference.search(query, 20, few))
    everything = dict(zip(*(part.tolist() for part in reference.search(query, 4_000)), strict=True))
    found = index.search(query, 10)
    np.testing.assert_allclose(found.scores, [everything[one] for one in found.ids.tolist()], atol=2e-6)


def test_allowed_in_one_far_corner_still_gives_k(lists):
    world = World(4_000)
    index, _ = world.build()
    query = world.query()
    far = np.sort(world.ids[np.argsort(world.vectors @ query)[:300]])
    assert len(index.search(query, 100, far).ids) == 100
    assert set(index.search(query, 100, far).ids.tolist()) <= set(far.tolist())


def test_the_search_widens_until_k_are_found(lists):
    world = World(4_000)
    index, _ = world.build()
    index._state.base.nprobe = 1
    query = world.query()
    far = np.sort(world.ids[np.argsort(world.vectors @ query)[:2_500]])
    assert len(index.search(query, 2_400, far).ids) == 2_400


def test_allowed_ids_that_nobody_knows():
    world = World(50)
    index, _ = world.build()
    assert index.search(world.query(), 5, np.array([1, 2], np.int64)).ids.tolist() == []
    assert index.search(world.query(), 5, np.empty(0, np.int64)).ids.tolist() == []
    assert index.search(world.query(), 0).ids.tolist() == []


def test_ties_are_broken_by_id_wherever_the_vectors_lie():
    same = np.tile(np.eye(D, dtype=np.float32)[0], (60, 1))
    ids = np.arange(1, 61, dtype=np.int64)
    order = np.random.default_rng(0).permutation(60)
    index = FaissIndex.build(
        D, lambda some: VectorBatch(some, same[: len(some)]), [VectorBatch(ids[order[:40]], same[:40])]
    )
    index.add(ids[order[40:]], same[:20])
    assert index.search(same[0], 5).ids.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("count", [0, 300, 2_000])
def test_saved_and_loaded(lists, tmp_path, count):
    world = World(max(count, 1))
    index, _ = world.build(count)
    index.remove(world.ids[:count:10])
    index.save(tmp_path / "file")
    loaded = FaissIndex.from_bytes((tmp_path / "file").read_bytes(), D, world.fetch)
    assert len(loaded) == len(index)
    query = world.query()
    if count == 300:
        assert_equal(loaded.search(query, 10), index.search(query, 10))
    assert loaded.missing(world.ids).tolist() == index.missing(world.ids).tolist()


def test_bytes_that_are_no_index():
    world = World(10)
    with pytest.raises(ValueError, match="not a FAISS index"):
        FaissIndex.from_bytes(b"nothing of the kind", D, world.fetch)


def test_another_number_of_dimensions(tmp_path):
    world = World(10)
    world.build()[0].save(tmp_path / "file")
    with pytest.raises(ValueError, match="16 dimensions instead of 8"):
        FaissIndex.from_bytes((tmp_path / "file").read_bytes(), 8, world.fetch)


def test_rows_that_vanished_are_left_out_of_a_new_base(lists):
    world = World(2_000)
    index, _ = world.build()
    index.remove(world.ids[:1_500])
    gone = world.ids[1_501::2]
    index._fetch = lambda ids: world.fetch(ids[~np.isin(ids, gone)])
    folded = index.compacted()
    assert (len(folded), folded.factory) == (250, "Flat")
    assert not set(folded.search(world.query(), 20).ids.tolist()) & set(gone.tolist())


def test_no_faiss_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match=r"ragindex\[cpu\]"):
        faiss_base.load_faiss()


def test_two_builds_of_faiss_are_refused(monkeypatch):
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1" if name.startswith("faiss-") else real(name))
    with pytest.raises(MissingDependencyError, match="faiss-cpu and faiss-gpu"):
        faiss_base.load_faiss()

"""Searching on a graphics card: the same hits, or a sentence. FAISS's own clone in main memory stands in for the card's
copy, since FAISS's build for processors knows no cards; everything around it is what a card would meet.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest
from dense_kit import D, World, assert_equal
from index_kit import SMALL, answers, corpus, open_index, write

from ragindex.config import Settings, Storage
from ragindex.errors import MissingDependencyError, StoreError, UsageError
from ragindex.store.faiss_index import FaissIndex
from ragindex.store.gpu import Gpu
from ragindex.store.schemes import SCHEMES


class Copy:
    """What is said to be in a card's memory. It counts how often it is asked, and refuses what cards refuse."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self.asked = 0

    def search(self, queries: Any, count: int, *, params: Any = None) -> Any:
        assert count <= 2048
        assert params is None or (params.sel is None and params.nprobe <= 2048)
        self.asked += len(queries)
        return self._index.search(queries, count, params=params)


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[Copy]:
    """A FAISS that finds a card; the copies that are made there."""
    made: list[Copy] = []

    def copied(resources: object, device: int, index: Any) -> Copy:
        made.append(Copy(faiss.clone_index(index)))
        return made[-1]

    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", copied, raising=False)
    return made


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_is_found_through_adds_removes_and_filters(scheme: str, copies: list[Copy]) -> None:
    world = World(2_400)
    plain, _ = world.build(2_000, scheme)
    fast = FaissIndex(D, world.fetch, SCHEMES[scheme], base=plain._state.base)
    fast.run_on(Gpu())
    fast.run_on(Gpu())  # which makes no second copy
    assert len(copies) == (scheme in ("flat", "ivf-fp16", "ivf-sq8"))
    compared = [copy.asked for copy in copies]
    for _ in range(5):
        query = world.query()
        for k in (10, 3_000):
            assert_equal(fast.search(query, k), plain.search(query, k))
        assert_equal(fast.search(query, 10, world.ids[::9]), plain.search(query, 10, world.ids[::9]))
    assert all(copy.asked >= before + 5 for copy, before in zip(copies, compared, strict=True))
    for index in (plain, fast):
        index.add(world.ids[2_000:], world.vectors[2_000:])
        index.remove(world.ids[:200:7])
    query = world.query()
    assert_equal(fast.search(query, 20), plain.search(query, 20))
    folded = fast.compacted()
    assert folded is not None
    folded.run_on(Gpu())
    assert_equal(folded.search(query, 20), plain.search(query, 20))


@pytest.mark.parametrize("scheme", ["flat", "ivf-fp16"])
def test_a_copy_that_finds_something_else_is_refused(
    scheme: str, copies: list[Copy], monkeypatch: pytest.MonkeyPatch
) -> None:
    index, _ = World(2_000).build(None, scheme)
    other = World(2_000, seed=1).build(None, scheme)[0]._state.base
    monkeypatch.setattr(Copy, "search", lambda _self, *given, **options: wrong.search(*given, **options))
    wrong = faiss.downcast_index(other._index.index) if scheme == "flat" else other._index
    with pytest.raises(StoreError, match=r"The GPU finds .* set index.search_on to 'cpu'"):
        index.run_on(Gpu())
    assert copies


def test_scores_must_be_the_same_too(copies: list[Copy], monkeypatch: pytest.MonkeyPatch) -> None:
    index, _ = World(500).build()
    honest = Copy.search

    def rough(self: Copy, *given: Any, **options: Any) -> Any:
        scores, ids = honest(self, *given, **options)
        return scores * np.float32(0.9), ids

    monkeypatch.setattr(Copy, "search", rough)
    with pytest.raises(StoreError, match="scores it otherwise"):
        index.run_on(Gpu())


def test_a_card_without_room_is_told(copies: list[Copy], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("cudaMalloc error out of memory")

    monkeypatch.setattr(faiss, "index_cpu_to_gpu", full)
    index, _ = World(500).build()
    with pytest.raises(StoreError, match="cannot hold the dense index"):
        index.run_on(Gpu())
    assert index.search(World(500).query(), 5).ids.size == 5  # it stays where it was


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'ragindex\[gpu\]'"):
        Gpu()
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0, raising=False)
    with pytest.raises(MissingDependencyError, match="finds no GPU"):
        Gpu()


def test_a_setting_decides_where_an_index_is_searched(tmp_path: Any, tiny_encoder_dir: Any, copies: list[Copy]) -> None:
    write(tmp_path, corpus(12))
    with open_index(tmp_path, tiny_encoder_dir) as index:
        index.add(tmp_path)
        expected = answers(index)
    chosen = Settings(chunk_tokens=SMALL.chunk_tokens, overlap=SMALL.overlap, index=Storage(search_on="gpu"))
    with open_index(tmp_path, tiny_encoder_dir, settings=chosen) as index:
        index.search("nothing dense", mode="lexical")
        assert copies == []
        assert answers(index) == expected
        assert len(copies) == 1
        write(tmp_path, {"more.txt": "Another note about kettles.\n"})
        index.add(tmp_path)
        assert "more.txt" in {hit.path for hit in index.search("Another note about kettles.", k=3, mode="dense")}
    with pytest.raises(UsageError, match="cpu or gpu, not on 'tpu'"):
        Storage(search_on="tpu")

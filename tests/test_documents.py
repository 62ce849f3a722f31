"""Chunks to documents."""

from __future__ import annotations

from ragindex.search.documents import ranked_documents

CHUNKS = [("a", 10.0), ("b", 9.5), ("b", 9.0), ("c", 2.0)]


def test_the_best_chunk_decides() -> None:
    assert ranked_documents(CHUNKS, additive=False) == ["a", "b", "c"]


def test_further_chunks_add_up_where_scores_do() -> None:
    assert ranked_documents(CHUNKS, additive=True) == ["b", "a", "c"]


def test_one_strong_chunk_beats_many_weak_ones() -> None:
    weak = [("b", 4.0)] * 50
    assert ranked_documents([("a", 10.0), *weak, ("c", 1.0)], additive=True)[0] == "a"


def test_nothing_gives_nothing() -> None:
    assert ranked_documents([], additive=True) == []

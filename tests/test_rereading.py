"""Hybrid search reads its best candidates again: sentences, answers to words, words in order, and their like."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from index_kit import open_index, write
from tiny import SENTENCES, tiny_encoder

from ragindex.encoder import Encoder
from ragindex.search import rereading
from ragindex.search.fusion import fuse
from ragindex.search.regularisation import regularised
from ragindex.search.rereading import Passage, Reading, fuse_and_read, read_passages
from ragindex.search.sentences import Sentences
from ragindex.store.catalog import Catalog
from ragindex.store.rows import TextEntry, VectorBatch
from ragindex.store.tantivy_index import TantivyIndex
from ragindex.store.text_index import MemoryTextIndex, TextIndex
from ragindex.store.vector_index import Scored

LONG = "The kettle in the kitchen of the old mill was mended in the spring."


def listed(scores: Sequence[float], ids: Sequence[int] | None = None) -> Scored:
    found = np.arange(1, len(scores) + 1) if ids is None else np.asarray(ids)
    return Scored(found.astype(np.int64), np.asarray(scores, np.float32))


DENSE = listed(np.linspace(0.9, 0.5, 60))
LEXICAL = listed(np.linspace(9.0, 2.0, 60), np.arange(1, 61))


def reading(**gains: tuple[float, ...]) -> Reading:
    """Of passages by id, as in `p3=(nearer, ordered, answered)`, all of them equally alike."""
    values = np.array([(*some, 0.0)[:3] for some in gains.values()], np.float32).reshape(-1, 3)
    ids = np.array([int(name[1:]) for name in gains], np.int64)
    return Reading(ids, values[:, 0], values[:, 2], values[:, 1], np.eye(len(ids), dtype=np.float32), [""] * len(ids))


def ranked(found: Reading, dense: Scored = DENSE, lexical: Scored = LEXICAL) -> list[int]:
    fused, told = fuse_and_read(dense, lexical, lambda _: found, ceiling=30.0)
    assert told is found
    assert (np.diff(fused.scores) <= 0).all()
    return fused.ids.tolist()


def test_what_reads_better_rises_and_what_reads_worse_falls() -> None:
    plain = list(range(1, 61))
    assert ranked(reading()) == ranked(reading(p1=(0, 0), p9=(0, 0))) == plain
    assert ranked(reading(p1=(0, 0), p2=(0, 0), p9=(0.3, 0)))[0] == 9
    assert ranked(reading(p1=(0, 0), p2=(0, 0), p9=(0, 9)))[0] == 9
    assert ranked(reading(p1=(-0.3, 0), p2=(0, 0)))[0] == 2
    assert ranked(reading(p1=(0, 0, 0.1), p2=(0, 0, 0.1), p9=(0, 0, 0.9)))[0] == 9


def test_what_is_not_read_gains_as_much_as_what_is_on_average() -> None:
    """So that where everything reads alike nothing changes, however few are read."""
    assert ranked(reading(p1=(0.2, 1), p2=(0.2, 1), p3=(0.2, 1))) == list(range(1, 61))
    order = ranked(reading(p1=(0.2, 0), p2=(0, 0)))
    assert order[0] == 1
    assert order.index(2) > order.index(3)


def test_a_list_gains_only_for_what_it_has() -> None:
    apart = listed(np.linspace(9.0, 2.0, 60), np.arange(101, 161))
    assert ranked(reading(p101=(5.0, 0)), lexical=apart) == ranked(reading(), lexical=apart)
    assert ranked(reading(p101=(0, 9.0), p102=(0, 0)), lexical=apart)[0] == 101


def test_the_best_few_are_read() -> None:
    asked: list[list[int]] = []

    def read(ids: np.ndarray) -> Reading:
        asked.append(ids.tolist())
        return reading()

    fuse_and_read(DENSE, LEXICAL, read, ceiling=30.0)
    (ids,) = asked
    assert ids == fuse(DENSE, LEXICAL, ceiling=30.0).ids[: len(ids)].tolist()
    assert 10 < len(ids) < 60
    empty = listed([])
    assert ranked(reading(), dense=empty) == ranked(reading(), lexical=empty) == list(range(1, 61))
    assert ranked(reading(), dense=empty, lexical=empty) == []


@pytest.mark.parametrize("kind", [TantivyIndex, MemoryTextIndex])
def test_words_in_the_order_of_the_query_count_once_as_much_as_the_commoner(kind: type[TextIndex]) -> None:
    index = kind()
    texts = ["signing key", "key signing", "signing of a key", "key tide", "tide tide"]
    index.add([TextEntry(place, text, "", (), "") for place, text in enumerate(texts, 1)])
    in_order, reverse, apart = index.order_gains(
        "signing key", ["a signing key, signing key", "key signing", "signing tide key"]
    )
    assert (reverse, apart) == (0, 0)
    assert in_order == pytest.approx(index.order_gains("signing key", ["signing key"])[0])
    (rare,) = index.order_gains("signing whelk", ["signing whelk"])
    (common,) = index.order_gains("key tide", ["key tide"])
    assert rare > common > 0
    assert in_order == pytest.approx(index.order_gains("key whelk", ["key whelk"])[0])  # both count as "key" does
    assert index.order_gains("signing key tide", ["signing key tide"])[0] > in_order
    for query in ("key", "", "key key"):
        assert index.order_gains(query, texts).tolist() == [0] * 5
    assert index.order_gains("signing key", []).shape == (0,)


def test_stop_words_are_no_gap_and_function_words_count_less() -> None:
    index = TantivyIndex()
    index.add([TextEntry(place, text, "", (), "") for place, text in enumerate(["signing keys", "you", "tide"], 1)])
    (whole,) = index.order_gains("sign the keys", ["Signing of the key"])
    assert whole > 0
    (less,) = index.order_gains("you sign", ["you sign"])
    assert less == pytest.approx(0.4 * index.order_gains("tide sign", ["tide sign"])[0])


def test_the_sentence_that_answers_is_found() -> None:
    """The passage speaks of something else for the most part."""
    encoder = Encoder.load("bundled")
    assert encoder.reader is not None
    other = "The harvest was brought in late because of the rain, and the mill stood still for weeks on end."
    answer = "Passwords must be changed every ninety days by everybody who works here."
    texts = [f"{other} {answer} {other}", f"{other} {other.replace('rain', 'snow')}"]
    vector = encoder.encode_queries(["how often do I change my password"])[0]
    vectors = encoder.encode_documents(texts)
    index = TantivyIndex()
    index.add([TextEntry(place, text, "", (), "") for place, text in enumerate(texts)])
    passages = [Passage(place, "", text, vectors[place]) for place, text in enumerate(texts)]
    ask = {"query": "change password", "vector": vector, "words": index}
    told = read_passages(passages, known=Sentences(encoder.reader), **ask)
    assert told.ids.tolist() == [0, 1]
    assert told.sentences[0] == answer
    best = (encoder.encode_documents([answer]) @ vector)[0]
    assert told.nearer[0] == pytest.approx(best - vectors[0] @ vector, abs=1e-5)
    assert told.nearer[0] > 0.1 > abs(told.nearer[1])
    assert told.answered[0] > told.answered[1] + 0.1
    np.testing.assert_array_equal(told.vectors, vectors)
    # Without such an encoder nothing is looked for but words in order.
    blind = read_passages(passages, known=None, **ask)
    assert (blind.nearer.any(), blind.answered.any(), blind.sentences) == (False, False, ["", ""])
    np.testing.assert_array_equal(blind.ordered, told.ordered)
    assert read_passages([], known=Sentences(encoder.reader), **ask).vectors.shape == (0, len(vector))


def test_of_a_book_the_beginning_is_read() -> None:
    """Other programs may bring records of any length, with titles of any length."""
    encoder = Encoder.load("bundled")
    assert encoder.reader is not None
    vector = encoder.encode_queries(["whelk"])[0]
    index = MemoryTextIndex()
    for title, text in (("", f"{LONG} " * 150 + "A whelk is a snail."), ("mill " * 100 + "whelk", f"{LONG} {LONG}")):
        passage = Passage(1, title, text, vector)
        told = read_passages([passage], query="whelk", vector=vector, words=index, known=Sentences(encoder.reader))
        assert told.answered[0] < 0.9
        assert told.sentences[0] in LONG


def test_a_passage_among_its_like_rises() -> None:
    """Four passages; the second stands alone, the others say nearly the same."""
    vectors = np.array([[1, 0, 0], [0, 1, 0], [1, 0.1, 0], [1, 0, 0.1]], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.array([4.0, 3.0, 2.9, 2.8], np.float32)
    found = regularised(scores, vectors, share=0.3)
    assert found[2] > found[1]
    # By hand: the others of the third are 1, 2 and 4, of cosines 0.995, 0.0995 and 0.990.
    cosines = np.delete(vectors @ vectors[2], 2)
    weights = np.exp(1.5 * (cosines - cosines.mean()) / cosines.std())
    assert found[2] == pytest.approx(0.7 * 2.9 + 0.3 * (weights @ [4.0, 3.0, 2.8]) / weights.sum(), abs=1e-5)
    np.testing.assert_allclose(regularised(scores * 7 + 2, vectors, share=0.3), found * 7 + 2, rtol=1e-5)
    np.testing.assert_allclose(regularised(scores[::-1], vectors[::-1], share=0.3), found[::-1], rtol=1e-6)


def test_likeness_that_says_nothing_changes_no_order() -> None:
    scores = np.array([4.0, 3.0, 2.0], np.float32)
    for vectors in (np.eye(3, dtype=np.float32), np.zeros((3, 3), np.float32), np.ones((3, 1), np.float32)):
        found = regularised(scores, vectors, share=0.3)
        np.testing.assert_allclose(found, 0.7 * scores + 0.3 * np.array([2.5, 3.0, 3.5]), rtol=1e-5)
    for count in range(3):  # too few to be more or less alike
        assert regularised(scores[:count], np.eye(count, dtype=np.float32), share=0.3).tolist() == [4.0, 3.0][:count]
    assert regularised(scores, np.eye(3, dtype=np.float32), share=0.0).tolist() == scores.tolist()


def test_those_that_are_like_the_best_rise_in_the_fused_list() -> None:
    found = reading(p1=(0, 0), p5=(0, 0), p6=(0, 0), p20=(0, 0))
    alike = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]  # 6 is like 1, and 5 like 20
    order = ranked(found._replace(vectors=alike))
    assert order.index(1) < order.index(6) < order.index(5) < order.index(20)
    fused, _ = fuse_and_read(DENSE, LEXICAL, lambda _: found._replace(vectors=alike), ceiling=30.0, share=0.0)
    assert fused.ids.tolist() == list(range(1, 61))  # vectors were to have no say


def test_only_encoders_without_layers_read_sentences(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    static = tiny_encoder(tmp_path / "static", layers=0)
    assert Encoder.load(static).reader is not None
    assert Encoder.load(tiny_encoder_dir).reader is None
    home = tmp_path / "home"
    write(home, {f"{number}.txt": f"{LONG} {sentence}" for number, sentence in enumerate(SENTENCES)})
    for number, (encoder, reads) in enumerate(((static, True), (tiny_encoder_dir, False))):
        store = tmp_path / f"store{number}"
        store.mkdir()
        with open_index(store, encoder) as index:
            index.add(home)
            for mode in ("hybrid", "dense", "lexical"):
                hits = index.search(SENTENCES[0], k=3, mode=mode, explain=True)
                told = [hit.explanation.sentence for hit in hits if hit.explanation is not None]
                assert len(told) == 3
                assert all(sentence is not None for sentence in told) == (reads and mode == "hybrid")
                assert all(sentence is None or sentence in hit.text for hit, sentence in zip(hits, told, strict=True))
            # What a hit says of its lists is theirs, however it was read.
            dense = {hit.chunk_id: hit.score for hit in index.search(SENTENCES[0], k=10, mode="dense")}
            for hit in index.search(SENTENCES[0], k=10):
                assert hit.scores.dense == pytest.approx(dense[hit.chunk_id], abs=1e-5)


def test_a_passage_that_goes_while_it_is_read_is_left_out(
    tmp_path: Path, tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text is still found, its vector is not."""
    home = tmp_path / "home"
    write(home, {f"{number}.txt": sentence for number, sentence in enumerate(SENTENCES)})
    with open_index(tmp_path, tiny_encoder_dir) as index:
        index.add(home)
        every = Catalog.present_vectors

        def fewer(self: Catalog, encoder: int, ids: Sequence[int]) -> VectorBatch:
            held = every(self, encoder, ids)
            return VectorBatch(held.ids[1:], held.vectors[1:])

        monkeypatch.setattr(Catalog, "present_vectors", fewer)
        assert len(index.search(SENTENCES[0], k=5)) == 5


def test_hybrid_search_prefers_the_order_of_the_query(
    tmp_path: Path, tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    filler = {f"{number}.txt": sentence for number, sentence in enumerate(SENTENCES)}
    write(home, {**filler, "a.txt": "a tank of water for the fish", "b.txt": "a fish of water for the tank"})
    with open_index(tmp_path, tiny_encoder_dir) as index:
        index.add(home)

        def lead(query: str) -> float:
            """How far b is above a."""
            scores = {hit.path: hit.score for hit in index.search(query, k=12)}
            return scores["home/b.txt"] - scores["home/a.txt"]

        fish, tank = lead("fish water"), lead("tank water")
        monkeypatch.setattr(rereading, "_ORDER", 0.0)
        assert fish > lead("fish water")
        assert tank < lead("tank water")

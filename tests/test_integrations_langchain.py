"""LangChain: its own test suites in full, then what they do not ask."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_kit import open_index, write
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)
from tiny import SENTENCES

from ragindex import Encoder, Index
from ragindex.errors import EncoderError, EncoderMismatchError, RagIndexError, StoreError, UsageError
from ragindex.filters import Eq
from ragindex.integrations.langchain import RagIndexEmbeddings, RagIndexRetriever, RagIndexVectorStore


@pytest.fixture
def small(tmp_path: Path, tiny_encoder_dir: Path) -> Iterator[RagIndexVectorStore]:
    """Ten sentences under the tiny encoder of the store."""
    with Index.open(tmp_path / "small", encoder=str(tiny_encoder_dir)) as opened:
        store = RagIndexVectorStore(opened)
        metadatas = [{"n": number, "lang": "en" if number % 2 else "de"} for number in range(10)]
        store.add_texts(list(SENTENCES), metadatas, ids=[str(number) for number in range(10)])
        yield store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_dir: Path) -> Path:
    """The store of a folder that was indexed from its files."""
    home = tmp_path_factory.mktemp("folder")
    write(home, {f"docs/{number}.md": f"# Note {number}\n\n{text}\n" for number, text in enumerate(SENTENCES)})
    with open_index(home, tiny_encoder_dir) as opened:
        opened.add(home / "docs")
    return home / ".ragindex"


class TestVectorStoreWithEmbeddings(VectorStoreIntegrationTests):
    """The vectors come from LangChain's embeddings."""

    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[RagIndexVectorStore]:
        store = RagIndexVectorStore(tmp_path / "store", self.get_embeddings())
        yield store
        store.close()


class TestVectorStoreWithItsOwnEncoder(VectorStoreIntegrationTests):
    """The vectors come from the store's encoder."""

    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[RagIndexVectorStore]:
        store = RagIndexVectorStore(tmp_path / "store")
        yield store
        store.close()


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[Embeddings]:
        return RagIndexEmbeddings


class _Retrievers(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _store(self, small: RagIndexVectorStore, folder: Path) -> None:
        self.small, self.folder = small, folder

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return RagIndexRetriever

    @property
    def retriever_query_example(self) -> str:
        return "how do I restore a backup of the service?"


class TestRetrieverOfRecords(_Retrievers):
    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self.small}


class TestRetrieverOfAFolder(_Retrievers):
    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self.folder}


def ids(documents: list[Document]) -> list[str]:
    return [document.id or "" for document in documents]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("n >= 8", ["8", "9"]),
        ({"n": 3}, ["3"]),
        ({"n": {"$gt": 2, "$lte": 4}}, ["3", "4"]),
        ({"n": {"$lt": 1}}, ["0"]),
        ({"n": {"$gte": 9}}, ["9"]),
        ({"n": {"$in": [1, 5, "7"]}}, ["1", "5"]),
        ({"n": {"$nin": list(range(1, 10))}}, ["0"]),
        ({"lang": {"$ne": "en"}, "n": {"$lt": 4}}, ["0", "2"]),
        ({"$or": [{"n": 1}, {"$and": [{"lang": "de"}, {"n": 2}]}]}, ["1", "2"]),
        ({"$not": {"n": {"$lt": 8}}}, ["8", "9"]),
        ({"missing": None, "n": {"$exists": True, "$eq": 7}}, ["7"]),
        ({"missing": {"$exists": True}}, []),
        ({"lang": {"$like": "e%"}, "n": {"$lt": 3}}, ["1"]),
        ({"lang": {"$contains": "d"}, "n": {"$lt": 3}}, ["0", "2"]),
        (Eq("n", 6), ["6"]),
    ],
)
def test_filters(small: RagIndexVectorStore, asked: Any, expected: list[str]) -> None:
    assert sorted(ids(small.similarity_search("service", k=20, filter=asked))) == expected


@pytest.mark.parametrize(
    "asked",
    [
        {"n": {"$near": 1}},
        {"$xor": []},
        {"$and": {"n": 1}},
        {"$not": 3},
        {"n": [1]},
        {"n": {"$in": "abc"}},
        {"n": {"$gt": None}},
        {"n": {"$exists": 1}},
        {"n": {"$contains": None}},
        "n ==",
        lambda document: True,
    ],
)
def test_filters_that_are_none_are_refused_in_one_sentence(small: RagIndexVectorStore, asked: Any) -> None:
    with pytest.raises(UsageError) as caught:
        small.similarity_search("service", filter=asked)
    assert "\n" not in str(caught.value)


def test_metadata_comes_back_whole_and_passes_for_no_column(tmp_path: Path) -> None:
    store = RagIndexVectorStore(tmp_path / "s", DeterministicFakeEmbedding(size=4))
    metadata = {"page": "7", "path": "x", "tags": ["a", 2], "deep": {"er": [1.5, None, True]}, "none": None}
    store.add_documents([Document("text", metadata=metadata), Document("", metadata={"page": 7})], ids=["a", "b"])
    assert store.get_by_ids(["a"]) == [Document(id="a", page_content="text", metadata=metadata)]
    assert ids(store.similarity_search("q", filter={"page": "7"})) == ["a"]
    assert ids(store.similarity_search("q", filter={"tags": {"$contains": 2}})) == ["a"]
    assert ids(store.similarity_search("q", filter={"deep.er": {"$contains": 1.5}})) == ["a"]
    assert ids(store.get_by_ids(["b"])) == ["b"]
    assert ids(store.similarity_search("q")) == ["a"]  # an empty text has no vector
    for wrong in ({"when": {1, 2}}, {"_ragindex": 1}, {"big": 1 << 70}):
        with pytest.raises(UsageError, match="metadata"):
            store.add_texts(["x"], [wrong])
    store.close()


def test_scores_are_cosines_and_relevance_keeps_their_order(small: RagIndexVectorStore) -> None:
    scored = small.similarity_search_with_score(SENTENCES[4], k=10)
    scores = [score for _, score in scored]
    assert scored[0][0].id == "4"
    assert scores[0] == pytest.approx(1.0, abs=1e-3)
    assert scores == sorted(scores, reverse=True)
    relevant = small.similarity_search_with_relevance_scores(SENTENCES[4], k=10, score_threshold=0.5)
    assert ids([document for document, _ in relevant])[0] == "4"
    assert all(0.5 <= score <= 1.0 for _, score in relevant)


def test_search_by_vector_is_search_by_text(small: RagIndexVectorStore) -> None:
    vector = small.embeddings.embed_query("how to restore a backup")
    assert small.similarity_search_by_vector(vector, k=5) == small.similarity_search("how to restore a backup", k=5)
    by_text = small.max_marginal_relevance_search("backup", k=3, fetch_k=6, lambda_mult=0.3)
    by_vector = small.max_marginal_relevance_search_by_vector(
        small.embeddings.embed_query("backup"), k=3, fetch_k=6, lambda_mult=0.3
    )
    assert by_text == by_vector
    with pytest.raises(UsageError, match="24 values"):
        small.similarity_search_by_vector([1.0, 2.0])


def test_marginal_relevance_leaves_out_what_repeats(tmp_path: Path) -> None:
    store = RagIndexVectorStore(tmp_path / "s", _Directions())
    store.add_texts(["0", "1", "80"], ids=["0", "1", "80"])
    assert ids(store.max_marginal_relevance_search("0", k=2, lambda_mult=1.0)) == ["0", "1"]
    assert ids(store.max_marginal_relevance_search("0", k=2, lambda_mult=0.1)) == ["0", "80"]
    assert ids(store.max_marginal_relevance_search("0", k=2, fetch_k=2, lambda_mult=0.1)) == ["0", "1"]
    store.close()


def test_marginal_relevance_is_langchains(tmp_path: Path) -> None:
    embedding = DeterministicFakeEmbedding(size=5)
    store = RagIndexVectorStore(tmp_path / "s", embedding)
    texts = [f"text {number}" for number in range(12)]
    store.add_texts(texts, ids=texts)
    for query in ("one", "two", "three"):
        asked = np.array(embedding.embed_query(query))
        for weight in (0.0, 0.2, 0.5, 0.9, 1.0):
            right = maximal_marginal_relevance(asked, embedding.embed_documents(texts), weight, k=6)
            found = store.max_marginal_relevance_search(query, k=6, fetch_k=12, lambda_mult=weight)
            assert ids(found) == [texts[place] for place in right]
    store.close()


def test_modes(small: RagIndexVectorStore) -> None:
    assert ids(small.similarity_search("photosynthesis", k=3, mode="lexical")) == ["4"]
    assert len(small.similarity_search("photosynthesis", k=3, mode="hybrid")) == 3
    with pytest.raises(UsageError, match="mode"):
        small.similarity_search("x", mode="fuzzy")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'fetch'"):
        small.similarity_search("x", fetch=3)


def test_equal_texts_under_two_ids_both_come_back(small: RagIndexVectorStore) -> None:
    small.add_texts([SENTENCES[4], SENTENCES[4]], ids=["a", "b"])
    assert set(ids(small.similarity_search(SENTENCES[4], k=3))) == {"4", "a", "b"}


def test_deleting_nothing_named_deletes_all_that_was_added(small: RagIndexVectorStore) -> None:
    assert small.delete(["1", "unknown"]) is True
    assert small.index.records.count() == 9
    small.delete()
    assert small.similarity_search("x") == []


def test_a_folder_is_read_with_its_places(folder: Path) -> None:
    retriever = RagIndexRetriever(store=folder, k=1)
    (document,) = retriever.invoke("restore a backup of the service")
    place = document.metadata
    assert (place["path"], place["source"], place["line_start"]) == ("docs/5.md", "docs/5.md", 1)
    assert document.id == f"docs/5.md#char={place['char_start']},{place['char_end']}"
    store = RagIndexVectorStore(folder)
    assert store.get_by_ids([document.id, "docs/5.md#char=3,9999", "docs/none.md#char=0,3"]) == [document]
    assert store.index.text("docs/5.md")[place["char_start"] : place["char_end"]] == document.page_content
    assert ids(retriever.invoke("backup", k=5, filter={"path": "docs/5.md"})) == [document.id]
    for identifier in (document.id, "docs/5.md"):
        with pytest.raises(UsageError, match="indexed from a folder"):
            store.delete([identifier])
    with pytest.raises(UsageError, match="another id"):
        store.add_texts(["mine"], ids=["docs/5.md"])
    retriever.close()
    store.close()


def test_indexing_a_folder_leaves_added_documents_alone(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    write(tmp_path, {"a.txt": SENTENCES[0], "b.txt": SENTENCES[1]})
    with open_index(tmp_path, tiny_encoder_dir) as opened:
        opened.add(tmp_path)
        store = RagIndexVectorStore(opened)
        store.add_texts([SENTENCES[2]], ids=["c.txt"])
        (tmp_path / "b.txt").unlink()
        assert opened.add(tmp_path).deleted == 1
        assert ids(store.get_by_ids(["c.txt"])) == ["c.txt"]
        assert opened.search("leave next year", mode="lexical")[0].path == "c.txt"
        store.delete()
        assert opened.add(tmp_path).unchanged == 1
        assert opened.verify().ok


def test_a_retriever_makes_no_store(tmp_path: Path) -> None:
    retriever = RagIndexRetriever(store=tmp_path / "typo")
    with pytest.raises(StoreError, match="no store"):
        retriever.invoke("x")
    assert not (tmp_path / "typo").exists()
    with pytest.raises(UsageError, match="a path, an Index"):
        RagIndexRetriever(store=3)


class _Directions(Embeddings):
    """Text is an angle in degrees. `turned` makes it another embedding of the same length."""

    def __init__(self, turned: float = 0.0) -> None:
        self.turned = turned
        self.model = "compass"
        self.embedded: list[str] = []

    def embed_query(self, text: str) -> list[float]:
        import math

        angle = math.radians(float(text) if text.isdigit() else 30.0) + self.turned
        return [math.cos(angle), math.sin(angle)]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.embedded += texts
        return [self.embed_query(text) for text in texts]


def test_a_store_is_refused_with_another_embedding(tmp_path: Path) -> None:
    embedding = _Directions()
    first = RagIndexVectorStore(tmp_path / "s", embedding)
    first.add_texts(["10", "20"], ids=["a", "b"])
    first.close()
    again = RagIndexVectorStore(tmp_path / "s", _Directions())
    assert ids(again.similarity_search("12", k=1)) == ["a"]
    again.close()
    for other in (_Directions(turned=1.0), DeterministicFakeEmbedding(size=2), DeterministicFakeEmbedding(size=3)):
        store = RagIndexVectorStore(tmp_path / "s", other)
        with pytest.raises(EncoderMismatchError, match="_Directions compass"):
            store.similarity_search("12")
        with pytest.raises(EncoderMismatchError, match="_Directions compass"):
            store.add_texts(["1"])
        assert ids(store.get_by_ids(["a"])) == ["a"]  # what needs no vector goes on working
        assert ids(store.similarity_search("20", mode="lexical")) == ["b"]
        store.close()
    bare = RagIndexVectorStore(tmp_path / "s")
    with pytest.raises(EncoderError, match="_Directions compass"):
        bare.similarity_search("12")
    bare.close()


def test_no_text_is_embedded_twice(tmp_path: Path) -> None:
    embedding = _Directions()
    store = RagIndexVectorStore(tmp_path / "s", embedding)
    store.add_texts(["10", "20", "10"])
    store.add_texts(["20", "30"], [{"new": True}, {}])
    store.close()
    assert sorted(text for text in embedding.embedded if text.isdigit()) == ["10", "20", "30"]


def test_a_long_text_is_stored_whole(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    long = " ".join(SENTENCES * 20)
    embeddings = RagIndexEmbeddings(tiny_encoder_dir)
    store = RagIndexVectorStore(tmp_path / "s", embeddings)
    store.add_texts([long, SENTENCES[0]], ids=["long", "short"])
    assert store.get_by_ids(["long"])[0].page_content == long
    (found,) = [hit for hit in store.similarity_search_with_score(SENTENCES[4]) if hit[0].id == "long"]
    vector, asked = embeddings.embed_documents([long])[0], embeddings.embed_query(SENTENCES[4])
    assert found[1] == pytest.approx(sum(a * b for a, b in zip(vector, asked, strict=True)), abs=1e-2)
    store.close()
    by_itself = RagIndexVectorStore(tmp_path / "s")  # the store's own encoder by now
    assert ids(by_itself.similarity_search(SENTENCES[0], k=1)) == ["short"]
    by_itself.close()


def test_embeddings_are_those_of_the_encoder(tiny_encoder_dir: Path) -> None:
    embeddings, encoder = RagIndexEmbeddings(tiny_encoder_dir), Encoder.load(tiny_encoder_dir)
    assert embeddings.embed_documents(["a key"]) == encoder.encode_documents(["a key"]).tolist()
    assert embeddings.embed_query("a key") == pytest.approx(encoder.encode_queries(["a key"])[0].tolist())
    assert embeddings.embed_documents([]) == []


def test_from_texts_and_from_documents(tmp_path: Path) -> None:
    embedding = DeterministicFakeEmbedding(size=4)
    store = RagIndexVectorStore.from_texts(
        ["a", "b"], embedding, [{"n": 1}, {"n": 2}], ids=["1", "2"], store=tmp_path / "s"
    )
    more = RagIndexVectorStore.from_documents([Document("c", id="3")], embedding, store=tmp_path / "s")
    assert ids(store.similarity_search("c", k=1)) == ["3"]  # a store sees what another one wrote
    assert ids(more.get_by_ids(["2", "1"])) == ["2", "1"]
    for wrong in ({"metadatas": [{}]}, {"ids": ["1", "2", "3"]}):
        with pytest.raises(UsageError, match="2 texts"):
            store.add_texts(["a", "b"], **wrong)
    store.close()
    more.close()


def test_langchain_indexing_keeps_a_store_level(tmp_path: Path) -> None:
    store = RagIndexVectorStore(tmp_path / "s", DeterministicFakeEmbedding(size=4))
    manager = InMemoryRecordManager("test")
    manager.create_schema()
    first = [Document("one", metadata={"source": "a"}), Document("two", metadata={"source": "b"})]
    options: dict[str, Any] = {"cleanup": "full", "source_id_key": "source", "key_encoder": "sha256"}
    assert index(first, manager, store, **options)["num_added"] == 2
    assert index(first, manager, store, **options)["num_skipped"] == 2
    assert index(first[:1], manager, store, **options)["num_deleted"] == 1
    assert [document.page_content for document in store.similarity_search("one")] == ["one"]
    store.close()


def test_threads_write_and_read_at_once(tmp_path: Path) -> None:
    store = RagIndexVectorStore(tmp_path / "s", DeterministicFakeEmbedding(size=4))

    def work(number: int) -> list[str]:
        store.add_texts([f"text {number}"], ids=[str(number)])
        return ids(store.similarity_search(f"text {number}", k=1))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(12))) == [[str(number)] for number in range(12)]
    other = RagIndexVectorStore(tmp_path / "s", DeterministicFakeEmbedding(size=4))
    other.add_texts(["held by nobody"])  # the first one keeps no lease
    store.close()
    other.close()


async def test_async_equals_sync(small: RagIndexVectorStore) -> None:
    assert await small.aadd_texts(["new text"], [{"n": 11}], ids=["x"]) == ["x"]
    assert await small.aget_by_ids(["x"]) == small.get_by_ids(["x"])
    pairs = [
        (
            small.asimilarity_search("key", k=3, filter={"n": {"$lt": 5}}),
            small.similarity_search("key", k=3, filter="n < 5"),
        ),
        (small.asimilarity_search_with_score("key"), small.similarity_search_with_score("key")),
        (small.amax_marginal_relevance_search("key", k=3), small.max_marginal_relevance_search("key", k=3)),
        (small.embeddings.aembed_query("key"), small.embeddings.embed_query("key")),
        (RagIndexRetriever(store=small).ainvoke("key", k=2), RagIndexRetriever(store=small).invoke("key", k=2)),
    ]
    assert await asyncio.gather(*(coming for coming, _ in pairs)) == [there for _, there in pairs]
    assert await small.adelete(["x"]) is True


def test_errors_are_ragindex_errors(small: RagIndexVectorStore) -> None:
    with pytest.raises(RagIndexError):
        small.similarity_search("", k=3)
    with pytest.raises(RagIndexError):
        small.similarity_search("x", k=0)
    with pytest.raises(RagIndexError):
        small.max_marginal_relevance_search("x", lambda_mult=2.0)

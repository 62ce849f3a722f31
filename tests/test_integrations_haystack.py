"""Haystack: its own test suites in full, then what they do not ask."""

from __future__ import annotations

import os

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read when haystack is imported

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.writers import DocumentWriter
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.testing import document_store as suite
from haystack.testing import document_store_async as async_suite
from index_kit import open_index, write
from tiny import SENTENCES

from haystack_integrations.components.embedders.ragindex import RagIndexDocumentEmbedder, RagIndexTextEmbedder
from haystack_integrations.components.retrievers.ragindex import RagIndexRetriever
from haystack_integrations.document_stores.ragindex import RagIndexDocumentStore
from ragindex import Encoder
from ragindex.errors import EncoderMismatchError, UsageError


@pytest.fixture
def document_store(brought: RagIndexDocumentStore) -> RagIndexDocumentStore:
    """For the suites; their base class hides it."""
    return brought


@pytest.fixture
def brought(tmp_path: Path) -> Iterator[RagIndexDocumentStore]:
    """A store of vectors that documents bring, some of them."""
    store = RagIndexDocumentStore(tmp_path / "store", "random numbers", dimensions=768)
    yield store
    store.close()


@pytest.fixture
def small(tmp_path: Path, tiny_encoder_dir: Path) -> Iterator[RagIndexDocumentStore]:
    """Ten sentences under the tiny encoder of the store."""
    store = RagIndexDocumentStore(tmp_path / "small", encoder=str(tiny_encoder_dir))
    store.write_documents([Document(id=str(n), content=text, meta={"n": n}) for n, text in enumerate(SENTENCES)])
    yield store
    store.close()


class _Received:
    """Vectors come back in half precision; all else exactly."""

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        assert [one.id for one in received] == [one.id for one in expected]
        for one, other in zip(received, expected, strict=True):
            table, wanted = one.to_dict(flatten=False), other.to_dict(flatten=False)
            vector, given = table.pop("embedding"), wanted.pop("embedding")
            assert table == wanted
            assert (vector is None) == (given is None)
            if given is not None:
                assert np.allclose(vector, given, atol=2e-3 * np.linalg.norm(given))


class _Written:
    """Without a policy, a known id is an error."""

    def test_write_documents(self, document_store: RagIndexDocumentStore) -> None:
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document])
        assert document_store.count_documents() == 1


class TestDocumentStore(
    _Received,
    _Written,
    suite.DocumentStoreBaseExtendedTests,
    suite.CountDocumentsByFilterTest,
    suite.CountUniqueMetadataByFilterTest,
    suite.GetMetadataFieldsInfoTest,
    suite.GetMetadataFieldMinMaxTest,
    suite.GetMetadataFieldUniqueValuesTest,
):
    """Everything that Haystack asks of a document store."""

    @pytest.fixture
    def document_store(self, brought: RagIndexDocumentStore) -> RagIndexDocumentStore:
        return brought


class TestDocumentStoreAsync(
    _Received,
    async_suite.CountDocumentsAsyncTest,
    async_suite.WriteDocumentsAsyncTest,
    async_suite.DeleteDocumentsAsyncTest,
    async_suite.FilterDocumentsAsyncTest,
    async_suite.DeleteAllAsyncTest,
    async_suite.DeleteByFilterAsyncTest,
    async_suite.UpdateByFilterAsyncTest,
    async_suite.CountDocumentsByFilterAsyncTest,
    async_suite.CountUniqueMetadataByFilterAsyncTest,
    async_suite.GetMetadataFieldsInfoAsyncTest,
    async_suite.GetMetadataFieldMinMaxAsyncTest,
    async_suite.GetMetadataFieldUniqueValuesAsyncTest,
):
    """And of its methods that do not block."""

    async def test_write_documents_async(self, document_store: RagIndexDocumentStore) -> None:
        document = Document(content="test doc")
        assert await document_store.write_documents_async([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([document])


class TestDocumentStoreWithItsOwnEncoder(_Received, _Written, suite.CountDocumentsTest, suite.WriteDocumentsTest):
    """The parts of the suite that bring no vectors."""

    @pytest.fixture
    def document_store(self, tmp_path: Path, tiny_encoder_dir: Path) -> Iterator[RagIndexDocumentStore]:
        store = RagIndexDocumentStore(tmp_path / "own", encoder=str(tiny_encoder_dir))
        yield store
        store.close()


def test_every_test_of_the_suites_is_there() -> None:
    """A mix-in that a later Haystack adds must be added above."""
    for module, ours in ((suite, TestDocumentStore), (async_suite, TestDocumentStoreAsync)):
        theirs = {
            name
            for kind in vars(module).values()
            if isinstance(kind, type) and kind.__module__ == module.__name__
            for name in vars(kind)
            if name.startswith("test_")
        }
        assert theirs <= set(dir(ours)), theirs - set(dir(ours))


def ids(documents: list[Document]) -> list[str]:
    return [document.id for document in documents]


def condition(field: str, operator: str, value: Any) -> dict[str, Any]:
    return {"field": field, "operator": operator, "value": value}


def test_a_document_comes_back_whole(document_store: RagIndexDocumentStore) -> None:
    whole = Document(
        id="whole",
        blob=ByteStream(b"\x00\xff", mime_type="image/png"),
        meta={"deep": {"er": [1, None, {"x": True}]}, "page": 3},
        sparse_embedding=SparseEmbedding([1, 5], [0.5, 0.25]),
    )
    document_store.write_documents([whole, Document(id="empty", content="")])
    assert document_store.filter_documents(condition("id", "==", "whole")) == [whole]
    assert document_store.filter_documents(condition("meta.deep.er", "!=", None)) == [whole]
    assert document_store.filter_documents(condition("id", "in", ["empty", "x"]))[0].content == ""


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (condition("content", "==", SENTENCES[3]), ["3"]),
        (condition("content", "!=", SENTENCES[3]), [str(n) for n in range(10) if n != 3]),
        (condition("n", ">", 7), ["8", "9"]),
        (condition("meta.n", "in", [1, None]), ["1"]),
        (condition("meta.n", "not in", [0, 1, 2, 3, 4, 5, 6, 7]), ["8", "9"]),
        ({"operator": "NOT", "conditions": [condition("meta.n", ">", 0), condition("meta.n", "<", 9)]}, ["0", "9"]),
        ({"operator": "OR", "conditions": []}, []),
    ],
)
def test_filters(small: RagIndexDocumentStore, filters: dict[str, Any], expected: list[str]) -> None:
    assert ids(small.filter_documents(filters)) == expected


@pytest.mark.parametrize(
    "filters",
    [
        condition("meta.n", "~", 1),
        condition("meta.n", "in", "abc"),
        condition("meta.n", ">", [1]),
        condition("meta.n", "==", [1]),
        condition("content", ">", "2020-01-01"),
        condition("embedding", "==", 1),
        {"operator": "XOR", "conditions": []},
        {"operator": "AND"},
        {"field": "meta.n", "operator": "=="},
        {"conditions": []},
        {"operator": "AND", "conditions": ["n > 1"]},
    ],
)
def test_filters_that_are_none_are_refused_in_one_sentence(small: RagIndexDocumentStore, filters: Any) -> None:
    with pytest.raises(FilterError) as caught:
        small.filter_documents(filters)
    assert "\n" not in str(caught.value)


def test_the_store_embeds_what_brings_no_vector(small: RagIndexDocumentStore, tiny_encoder_dir: Path) -> None:
    retriever = RagIndexRetriever(small, top_k=3)
    (first, *_) = retriever.run("how to restore a backup")["documents"]
    assert (first.id, first.content, first.meta) == ("5", SENTENCES[5], {"n": 5})
    assert first.score is not None
    vector = RagIndexTextEmbedder(str(tiny_encoder_dir)).run("how to restore a backup")["embedding"]
    by_vector = retriever.run(query_embedding=vector)["documents"]
    scores = [one.score for one in by_vector if one.score is not None]
    assert len(by_vector) == 3
    assert scores == sorted(scores, reverse=True)
    assert all(-1.01 < score < 1.01 for score in scores)
    assert ids(retriever.run("photosynthesis", filters=condition("meta.n", "==", 9), top_k=1)["documents"]) == ["9"]
    with pytest.raises(UsageError, match="query_embedding"):
        retriever.run()


def test_vectors_of_another_embedding_are_refused(small: RagIndexDocumentStore, tiny_encoder_dir: Path) -> None:
    embedder = RagIndexDocumentEmbedder(str(tiny_encoder_dir))
    embedded = embedder.run([Document(id="new", content="the kettle again")])["documents"]
    assert small.write_documents(embedded) == 1
    assert small.filter_documents(condition("id", "==", "new"))[0].embedding == pytest.approx(
        embedded[0].embedding, abs=1e-3
    )
    noise = np.random.default_rng(0).standard_normal(24).tolist()
    for vector in (noise, [1.0, 2.0]):
        with pytest.raises(EncoderMismatchError):
            small.write_documents([Document(content="something else", embedding=vector)])
    assert small.count_documents() == 11


def test_vectors_that_documents_bring(document_store: RagIndexDocumentStore) -> None:
    east, north = np.eye(768)[:2].tolist()
    document_store.write_documents(
        [
            Document(id="east", content="sunrise", embedding=east),
            Document(id="north", content="ice", embedding=north),
            Document(id="mute", content="sunrise over ice"),
        ]
    )
    retriever = RagIndexRetriever(document_store)
    assert ids(retriever.run(query_embedding=east)["documents"]) == ["east", "north"]
    assert ids(retriever.run("ice", query_embedding=north)["documents"])[0] == "north"
    assert set(ids(retriever.run("ice", query_embedding=north)["documents"])) == {"east", "north", "mute"}
    assert ids(RagIndexRetriever(document_store, mode="lexical").run("sunrise")["documents"]) == ["east", "mute"]
    with pytest.raises(UsageError, match="'lexical'"):
        retriever.run("ice")
    with pytest.raises(UsageError, match="768"):
        document_store.write_documents([Document(content="short", embedding=[1.0])])


def test_a_named_embedding_is_held_to_its_name(tmp_path: Path) -> None:
    first = RagIndexDocumentStore(tmp_path / "s", "model-a")
    with pytest.raises(UsageError, match="dimensions"):
        first.write_documents([Document(content="no vector yet")])
    first.write_documents([Document(content="text", embedding=[1.0, 2.0])])
    first.close()
    other = RagIndexDocumentStore(tmp_path / "s", "model-b")
    with pytest.raises(EncoderMismatchError, match="model-a"):
        other.write_documents([Document(content="another", embedding=[1.0, 2.0])])
    other.close()
    with pytest.raises(UsageError, match="give its name"):
        RagIndexDocumentStore(tmp_path / "s", embedding=print)  # type: ignore[arg-type]


def test_a_refused_batch_writes_nothing(small: RagIndexDocumentStore) -> None:
    many = [Document(id=f"new{n}", content=f"text {n}") for n in range(600)] + [Document(id="3", content="known")]
    with pytest.raises(DuplicateDocumentError, match="'3'"):
        small.write_documents(many, policy=DuplicatePolicy.FAIL)
    assert small.count_documents() == 10


def test_a_folder_is_read(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    write(tmp_path, {f"{n}.md": f"# Note {n}\n\n{text}\n" for n, text in enumerate(SENTENCES)})
    with open_index(tmp_path, tiny_encoder_dir) as opened:
        opened.add(tmp_path)
        store = RagIndexDocumentStore(opened)
        (found,) = RagIndexRetriever(store, top_k=1).run("restore a backup")["documents"]
        assert (found.meta["path"], found.meta["line_start"]) == ("5.md", 1)
        assert ids(store.filter_documents(condition("meta.path", "==", "5.md"))) == [found.id]
        with pytest.raises(UsageError, match="indexed from a folder"):
            store.delete_documents([found.id])
        store.write_documents([Document(id="mine", content="a document of my own")])
        store.delete_all_documents()
        assert store.count_documents() == 10


def test_pipelines_are_written_and_read_back(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    name = str(tiny_encoder_dir)
    store = RagIndexDocumentStore(tmp_path / "s", encoder=name)
    writing = Pipeline()
    writing.add_component("embedder", RagIndexDocumentEmbedder(name))
    writing.add_component("writer", DocumentWriter(store, policy=DuplicatePolicy.OVERWRITE))
    writing.connect("embedder.documents", "writer.documents")
    documents = [Document(id=str(n), content=text) for n, text in enumerate(SENTENCES)]
    assert writing.run({"embedder": {"documents": documents}})["writer"]["documents_written"] == 10
    asking = Pipeline()
    asking.add_component("embedder", RagIndexTextEmbedder(name, instruction=None))
    asking.add_component(
        "retriever", RagIndexRetriever(store, top_k=2, mode="dense", filters=condition("n", "==", None))
    )
    asking.connect("embedder.embedding", "retriever.query_embedding")
    before = asking.run({"embedder": {"text": SENTENCES[7]}})["retriever"]["documents"]
    assert ids(before)[0] == "7"
    store.close()
    again = Pipeline.loads(asking.dumps())
    assert again.run({"embedder": {"text": SENTENCES[7]}})["retriever"]["documents"] == before
    assert again.to_dict() == asking.to_dict()
    again.get_component("retriever").document_store.close()
    assert Pipeline.loads(writing.dumps()).to_dict() == writing.to_dict()


async def test_components_without_blocking(small: RagIndexDocumentStore, tiny_encoder_dir: Path) -> None:
    retriever, query = RagIndexRetriever(small, top_k=2), RagIndexTextEmbedder(str(tiny_encoder_dir))
    assert await retriever.run_async("leave") == retriever.run("leave")
    assert await query.run_async("leave") == query.run("leave")
    embedder = RagIndexDocumentEmbedder(str(tiny_encoder_dir))
    documents = [Document(content="leave"), Document(content=None)]
    assert await embedder.run_async(documents) == embedder.run(documents)
    embedded = embedder.run(documents)["documents"]
    assert embedded[0].embedding == pytest.approx(
        Encoder.load(tiny_encoder_dir).encode_documents(["leave"])[0].tolist(), abs=1e-6
    )
    assert embedded[1].embedding is None
    assert documents[0].embedding is None  # a copy was embedded


def test_wrong_input_is_refused(small: RagIndexDocumentStore, tiny_encoder_dir: Path) -> None:
    with pytest.raises(TypeError, match="RagIndexDocumentEmbedder"):
        RagIndexTextEmbedder(str(tiny_encoder_dir)).run([Document(content="x")])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="RagIndexTextEmbedder"):
        RagIndexDocumentEmbedder(str(tiny_encoder_dir)).run("x")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="RagIndexDocumentStore"):
        RagIndexRetriever("path")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="datetime"):
        small.write_documents([Document(content="x", meta={"when": datetime.now(UTC)})])

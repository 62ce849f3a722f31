"""LlamaIndex publishes no suite for vector stores: its own `SimpleVectorStore` says here what is right."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_kit import open_index, write
from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import (
    Document,
    ImageNode,
    IndexNode,
    MetadataMode,
    NodeRelationship,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.simple import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from tiny import SENTENCES

from ragindex import Encoder
from ragindex.errors import EncoderMismatchError, StoreError, UsageError
from ragindex.integrations.llama_index import RagIndexEmbedding, RagIndexRetriever, RagIndexVectorStore

METADATA: list[dict[str, Any]] = [
    {"n": 0, "lang": "en", "tags": ["a", "b"], "title": "Keys"},
    {"n": 1, "lang": "de", "tags": ["b"], "title": "keys and locks"},
    {"n": 2, "lang": "en", "tags": [], "title": ""},
    {"n": 3.5, "tags": ["a"], "page": 7},
    {"n": -4, "lang": None, "tags": ["c", "d"], "page": 12},
]


def node(number: int, vector: list[float] | None = None, ref: str | None = None) -> TextNode:
    made = TextNode(id_=f"node-{number}", text=SENTENCES[number], metadata=METADATA[number], embedding=vector)
    if ref is not None:
        made.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=ref)
    return made


def vectors(count: int = 5) -> list[list[float]]:
    return np.random.default_rng(3).standard_normal((count, 8)).tolist()


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[RagIndexVectorStore, SimpleVectorStore]]:
    """Ours and theirs with the same nodes."""
    nodes = [node(number, vector, f"doc-{number % 2}") for number, vector in enumerate(vectors())]
    ours, theirs = RagIndexVectorStore(tmp_path / "store", "random numbers"), SimpleVectorStore()
    for store in (ours, theirs):
        assert store.add(nodes) == [f"node-{number}" for number in range(5)]
    yield ours, theirs
    ours.close()


def where(key: str, operator: str, value: Any) -> MetadataFilter:
    return MetadataFilter(key=key, value=value, operator=FilterOperator(operator))


CONDITIONS = [
    where("n", "==", 1),
    where("n", "!=", 1),
    where("lang", "!=", "en"),
    where("n", ">", 1),
    where("n", ">=", 1),
    where("n", "<", 1),
    where("n", "<=", 1),
    where("n", "in", [0, 1]),
    where("lang", "nin", ["en"]),
    where("tags", "any", ["a", "c"]),
    where("tags", "all", ["a", "b"]),
    where("tags", "contains", "b"),
    where("title", "contains", "and"),
    where("title", "is_empty", None),
    where("tags", "is_empty", None),
    where("lang", "is_empty", None),
    where("page", ">", 7),
    where("page", "is_empty", None),
    where("nothing", "!=", 1),
    where("nothing", "is_empty", None),
]


@pytest.mark.parametrize("condition", FilterCondition)
def test_filters_select_what_llama_index_selects(stores: Any, condition: FilterCondition) -> None:
    ours, theirs = stores
    groups = [[one] for one in CONDITIONS] + [list(pair) for pair in pairwise(CONDITIONS)]
    for group in groups:
        filters = MetadataFilters(filters=group, condition=condition)
        query = VectorStoreQuery(query_embedding=vectors()[2], similarity_top_k=5, filters=filters)
        assert ours.query(query).ids == theirs.query(query).ids, filters


@pytest.mark.parametrize(("operator", "expected"), [("text_match", {"1"}), ("text_match_insensitive", {"0", "1"})])
def test_text_matches(stores: Any, operator: str, expected: set[str]) -> None:
    found = stores[0].get_nodes(filters=MetadataFilters(filters=[where("title", operator, "keys")]))
    assert {one.node_id.removeprefix("node-") for one in found} == expected
    assert stores[0].get_nodes(filters=MetadataFilters(filters=[where("title", operator, "%")])) == []


def test_nested_filters(stores: Any) -> None:
    inner = MetadataFilters(filters=[where("n", "==", 0), where("n", "==", 1)], condition=FilterCondition.OR)
    outer = MetadataFilters(filters=[inner, where("lang", "==", "de")])
    assert [one.node_id for one in stores[0].get_nodes(filters=outer)] == ["node-1"]
    none_of = MetadataFilters(filters=[inner, where("lang", "==", "en")], condition=FilterCondition.NOT)
    assert [one.node_id for one in stores[0].get_nodes(filters=none_of)] == ["node-3", "node-4"]


@pytest.mark.parametrize(
    "wrong",
    [
        where("n", ">", None),
        where("n", "in", "abc"),
        where("n", "any", "abc"),
        where("n", "==", [1]),
        where("n", "text_match", 3),
        where("n", "contains", None),
    ],
)
def test_filters_without_a_sense_are_refused_in_one_sentence(stores: Any, wrong: MetadataFilter) -> None:
    with pytest.raises(UsageError) as caught:
        stores[0].get_nodes(filters=MetadataFilters(filters=[wrong]))
    assert "\n" not in str(caught.value)


def test_queries_give_what_llama_index_gives(stores: Any) -> None:
    ours, theirs = stores
    for top_k in (1, 3, 9):
        for vector in vectors(8):
            query = VectorStoreQuery(query_embedding=vector, similarity_top_k=top_k)
            mine, right = ours.query(query), theirs.query(query)
            assert mine.ids == right.ids
            assert mine.similarities == pytest.approx(right.similarities, abs=2e-3)
            assert [one.node_id for one in mine.nodes] == mine.ids
    for threshold in (0.1, 0.5, 1.0):  # theirs looks back at the latest choice alone, so with two the rules are one
        query = VectorStoreQuery(
            query_embedding=vectors()[1],
            similarity_top_k=2,
            mode=VectorStoreQueryMode.MMR,
            mmr_threshold=threshold,
        )
        assert ours.query(query).ids == theirs.query(query, mmr_threshold=threshold).ids


def test_queries_by_words_and_by_both(stores: Any) -> None:
    ours = stores[0]
    by_words = VectorStoreQuery(query_str="photosynthesis", similarity_top_k=5, mode=VectorStoreQueryMode.TEXT_SEARCH)
    assert ours.query(by_words).ids == ["node-4"]
    both = VectorStoreQuery(
        query_str="photosynthesis", query_embedding=vectors()[0], similarity_top_k=5, mode=VectorStoreQueryMode.HYBRID
    )
    assert set(ours.query(both).ids) == {f"node-{number}" for number in range(5)}
    both.alpha = 1.0
    assert ours.query(both).ids[0] == "node-0"
    both.alpha = 0.0
    assert ours.query(both).ids[0] == "node-4"
    both.alpha = 2.0
    with pytest.raises(UsageError, match="between 0 and 1"):
        ours.query(both)
    with pytest.raises(UsageError, match="'svm'"):
        ours.query(VectorStoreQuery(query_embedding=vectors()[0], mode=VectorStoreQueryMode.SVM))


def test_ids_and_documents_narrow_a_query(stores: Any) -> None:
    ours = stores[0]
    by_id = VectorStoreQuery(query_embedding=vectors()[0], similarity_top_k=5, node_ids=["node-3", "node-1", "x"])
    assert set(ours.query(by_id).ids) == {"node-3", "node-1"}
    by_document = VectorStoreQuery(query_embedding=vectors()[0], similarity_top_k=5, doc_ids=["doc-1"])
    assert set(ours.query(by_document).ids) == {"node-3", "node-1"}


def test_nodes_come_back_whole(tmp_path: Path) -> None:
    text = TextNode(
        id_="text",
        text="Rotate the key.",
        metadata={"deep": {"er": [1, None]}, "doc_id": "the user's own"},
        start_char_idx=17,
        end_char_idx=32,
        excluded_llm_metadata_keys=["deep"],
        relationships={NodeRelationship.NEXT: RelatedNodeInfo(node_id="next", metadata={"x": 1})},
        embedding=[0.0, 3.0],
    )
    image = ImageNode(id_="image", text="a picture", image_url="http://localhost/a.png", embedding=[1.0, 0.0])
    link = IndexNode(id_="link", text="a table", index_id="table", embedding=[-1.0, 0.0])
    store = RagIndexVectorStore(tmp_path / "s", "by hand")
    store.add([text, image, link])
    for made in (text, image, link):
        (again,) = store.get_nodes([made.node_id])
        assert type(again) is type(made)
        assert again.embedding == pytest.approx(made.embedding, abs=1e-3)
        again.embedding = made.embedding
        assert again.to_dict() == made.to_dict()
    assert [one.node_id for one in store.get_nodes(["link", "nobody", "text"])] == ["link", "text"]
    assert len(store.get_nodes()) == 3
    store.close()


def test_deleting(stores: Any) -> None:
    ours = stores[0]
    ours.delete("doc-1")
    ours.delete("nobody")
    ours.delete_nodes(["node-0", "nobody"])
    ours.delete_nodes()
    assert [one.node_id for one in ours.get_nodes()] == ["node-2", "node-4"]
    ours.delete_nodes(["node-2"], MetadataFilters(filters=[where("n", "==", -4)]))
    ours.delete_nodes(filters=MetadataFilters(filters=[where("n", "==", -4)]))
    assert [one.node_id for one in ours.get_nodes()] == ["node-2"]
    ours.clear()
    assert ours.get_nodes() == []
    assert ours.query(VectorStoreQuery(query_embedding=vectors()[0])).ids == []


def test_adding_again_replaces(stores: Any) -> None:
    ours = stores[0]
    ours.add([node(2, vectors()[0])])
    assert len(ours.get_nodes()) == 5
    query = VectorStoreQuery(query_embedding=vectors()[0], similarity_top_k=2)
    assert set(ours.query(query).ids) == {"node-0", "node-2"}


def test_an_index_over_the_store(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    embedding = RagIndexEmbedding(tiny_encoder_dir)
    store = RagIndexVectorStore(tmp_path / "s", embedding)
    documents = [Document(doc_id=f"doc{n}", text=text, metadata={"n": n}) for n, text in enumerate(SENTENCES)]
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex.from_documents(documents, storage_context=context, embed_model=embedding)
    (found,) = index.as_retriever(similarity_top_k=1).retrieve(SENTENCES[5])
    assert found.node.get_content() == SENTENCES[5]
    assert isinstance(found.node, TextNode)
    assert (found.node.start_char_idx, found.node.end_char_idx) == (0, len(SENTENCES[5]))
    assert found.node.ref_doc_id == "doc5"
    index.delete_ref_doc("doc5", delete_from_docstore=True)
    store.close()
    again = VectorStoreIndex.from_vector_store(RagIndexVectorStore(tmp_path / "s"), embed_model=embedding)
    best = again.as_retriever(similarity_top_k=9).retrieve(SENTENCES[5])
    assert len(best) == 9
    assert "doc5" not in {one.node.ref_doc_id for one in best}
    again.vector_store.close()


class _Turned(BaseEmbedding):
    """Letters are directions; `by` tells two embeddings apart that are equal in all else."""

    by: int = 0

    def _get_text_embedding(self, text: str) -> list[float]:
        return np.roll(np.bincount(list(text.encode()), minlength=256)[32:128] + 0.01, self.by).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def test_a_store_is_refused_with_another_embedding(tmp_path: Path) -> None:
    first = RagIndexVectorStore(tmp_path / "s", _Turned(model_name="turned"))
    made = node(0)
    first.add([made])  # brings no vector, so the object is asked
    made.embedding = _Turned().get_text_embedding(made.get_content(metadata_mode=MetadataMode.EMBED))
    first.add([made])
    first.close()
    same = RagIndexVectorStore(tmp_path / "s", _Turned())
    assert same.query(VectorStoreQuery(query_str="signing key")).ids == ["node-0"]
    foreign = node(1)
    foreign.embedding = _Turned(by=7).get_text_embedding(foreign.get_content(metadata_mode=MetadataMode.EMBED))
    with pytest.raises(EncoderMismatchError, match="_Turned"):
        same.add([foreign])
    same.close()
    for other in (_Turned(by=7), MockEmbedding(embed_dim=96), MockEmbedding(embed_dim=5), "turned"):
        store = RagIndexVectorStore(tmp_path / "s", other)
        with pytest.raises(EncoderMismatchError, match="turned"):
            store.add([node(3, vectors(12)[0] * 12)])
        store.close()


def test_a_folder_is_read_with_its_places(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    write(tmp_path, {f"{n}.md": f"# Note {n}\n\n{text}\n" for n, text in enumerate(SENTENCES)})
    with open_index(tmp_path, tiny_encoder_dir) as opened:
        opened.add(tmp_path)
    retriever = RagIndexRetriever(tmp_path / ".ragindex", similarity_top_k=1)
    (found,) = retriever.retrieve("restore a backup")
    assert isinstance(found.node, TextNode)
    start, end = found.node.start_char_idx, found.node.end_char_idx
    store = RagIndexVectorStore(tmp_path / ".ragindex")
    assert store.client.text("5.md")[start:end] == found.node.text
    assert (found.node.node_id, found.node.ref_doc_id) == (f"5.md#char={start},{end}", "5.md")
    assert found.node.metadata["line_start"] == 1
    assert "char_start" not in found.node.get_content(metadata_mode=MetadataMode.LLM)
    only = RagIndexRetriever(store, filters=MetadataFilters(filters=[where("path", "==", "3.md")]))
    assert [one.node.ref_doc_id for one in only.retrieve("anything at all")] == ["3.md"]
    with pytest.raises(UsageError, match="indexed from a folder"):
        store.delete_nodes([found.node.node_id])
    store.clear()
    assert len(store.get_nodes()) == 10
    retriever.close()
    store.close()
    with pytest.raises(StoreError, match="no store"):
        RagIndexRetriever(tmp_path / "typo").retrieve("x")


def test_the_embedding_is_the_encoders(tiny_encoder_dir: Path) -> None:
    embedding, encoder = RagIndexEmbedding(tiny_encoder_dir), Encoder.load(tiny_encoder_dir)
    assert embedding.get_text_embedding_batch(["a key", "leave"]) == [
        pytest.approx(vector, abs=1e-6) for vector in encoder.encode_documents(["a key", "leave"]).tolist()
    ]
    assert embedding.get_query_embedding("a key") == pytest.approx(encoder.encode_queries(["a key"])[0].tolist())
    instructed = RagIndexEmbedding(encoder, instruction="Find the note")
    expected = encoder.encode_queries(["a key"], instruction="Find the note")[0].tolist()
    assert instructed.get_query_embedding("a key") == pytest.approx(expected, abs=1e-6)
    assert instructed.model_name == str(tiny_encoder_dir)


async def test_async_equals_sync(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    embedding = RagIndexEmbedding(tiny_encoder_dir)
    store = RagIndexVectorStore(tmp_path / "s", embedding)
    assert await store.async_add([node(number, ref="doc") for number in range(5)]) == [f"node-{n}" for n in range(5)]
    query = VectorStoreQuery(query_embedding=await embedding.aget_query_embedding("key"), similarity_top_k=3)
    assert await store.aquery(query) == store.query(query)
    assert await store.aget_nodes(["node-1"]) == store.get_nodes(["node-1"])
    retriever = RagIndexRetriever(store, similarity_top_k=2)
    assert await retriever.aretrieve("key") == retriever.retrieve(QueryBundle("key"))
    assert await embedding.aget_text_embedding("key") == embedding.get_text_embedding("key")
    await store.adelete_nodes(["node-1"])
    assert len(await store.aget_nodes()) == 4
    await store.adelete("doc")
    await store.aclear()
    assert await store.aget_nodes() == []
    store.close()

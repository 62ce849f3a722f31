"""`RagIndexVectorStore`: LlamaIndex's nodes in a ragindex store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from ragindex.errors import UsageError
from ragindex.filters import And, Filter, In
from ragindex.index import Index
from ragindex.integrations.conditions import equal, within
from ragindex.integrations.llama_index.embedding import embedder
from ragindex.integrations.llama_index.filters import translated
from ragindex.integrations.llama_index.nodes import as_node, as_record
from ragindex.integrations.opening import Opening, Source
from ragindex.types import Mode

__all__ = ["RagIndexVectorStore"]

_MODES: dict[VectorStoreQueryMode, Mode] = {
    VectorStoreQueryMode.DEFAULT: "dense",
    VectorStoreQueryMode.MMR: "dense",
    VectorStoreQueryMode.SPARSE: "lexical",
    VectorStoreQueryMode.TEXT_SEARCH: "lexical",
    VectorStoreQueryMode.HYBRID: "hybrid",
    VectorStoreQueryMode.SEMANTIC_HYBRID: "hybrid",
}


class RagIndexVectorStore(BasePydanticVectorStore):
    """Nodes in a ragindex store, each whole and under its id.

    store: a path, made at the first use if it is not there, or an open `Index`, which stays the caller's.
    embedding: what made the nodes' vectors. None is the store's own encoder (`RagIndexEmbedding` of the same one),
    which also embeds nodes that bring no vector; any other embedding object is remembered by what it does, and
    vectors of another one are refused; a text names a model whose vectors, of `dimensions` values, are taken as
    they come. The passages of files that `ragindex index` has read can be queried here too, but only added nodes
    can be deleted.
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    store: str = ".ragindex"
    collection: str = "default"
    _opening: Opening = PrivateAttr()

    def __init__(
        self,
        store: Source = ".ragindex",
        embedding: BaseEmbedding | str | None = None,
        *,
        dimensions: int | None = None,
        collection: str = "default",
        **kwargs: Any,
    ) -> None:
        path = store.store if isinstance(store, Index) else store
        super().__init__(**{"stores_text": True, "store": str(path), "collection": collection, **kwargs})
        self._opening = Opening(store, embedder=lambda: embedder(embedding, dimensions), collection=collection)

    @classmethod
    def class_name(cls) -> str:
        """The name under which it is serialised."""
        return "RagIndexVectorStore"

    @property
    def client(self) -> Index:
        """The index behind it, opened."""
        return self._opening.index

    @property
    def opening(self) -> Opening:
        """The index behind it, opened or not."""
        return self._opening

    def close(self) -> None:
        """Let go of the store's files; a later use opens them again. An index that was given stays open."""
        self._opening.close()

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:  # noqa: ARG002 - nothing is known there
        """Add nodes or replace those whose id is known; returns their ids."""
        self._opening.records.put(map(as_record, nodes))
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """`add` in a thread."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:  # noqa: ARG002
        """Delete the nodes of a document."""
        self._opening.records.delete_where(equal("ref_doc_id", ref_doc_id))

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """`delete` in a thread."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Delete nodes by id, by a filter, or by both; unknown ids are ignored, and without either nothing happens."""
        if node_ids is not None and filters is None:
            self._opening.records.delete(node_ids)
        elif filters is not None:
            self._opening.records.delete_where(_all(_named(node_ids), translated(filters)))

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """`delete_nodes` in a thread."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    def clear(self) -> None:
        """Delete every node that was added; passages of files stay."""
        self._opening.records.delete_where()

    async def aclear(self) -> None:
        """`clear` in a thread."""
        await asyncio.to_thread(self.clear)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes by id, by a filter, by both, or all; with the vectors that they brought, in half precision."""
        records = self._opening.records
        if node_ids is not None and filters is None:
            return [as_node(entry) for entry in records.get(node_ids, vectors="brought")]
        entries = records.find(_all(_named(node_ids), translated(filters)), vectors="brought")
        return [as_node(entry) for entry in entries]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """`get_nodes` in a thread."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The best nodes with their similarities: cosines, BM25 or fused scores, by mode.

        Modes are default, mmr (`mmr_threshold`: 1 looks at the query alone), sparse and text_search (by words), hybrid
        and semantic_hybrid (`alpha`: the share of the vectors; by default what their evidence says).
        """
        mode = _MODES.get(query.mode)
        if mode is None:
            raise UsageError(f"The query mode {query.mode.value!r} is not offered; take one of {_offered()}.")
        threshold = query.mmr_threshold if query.mmr_threshold is not None else kwargs.get("mmr_threshold", 0.5)
        found = self._opening.records.search(
            query.query_str or "",
            vector=query.query_embedding,
            k=_wanted(query, mode),
            mode=mode,
            # An index over a store that holds its texts gives no ids, as an empty list.
            filter=_all(_named(query.node_ids or None), _of_documents(query.doc_ids), translated(query.filters)),
            diversity=1.0 - threshold if query.mode == VectorStoreQueryMode.MMR else 0.0,
            share=query.alpha,
        )
        return VectorStoreQueryResult(
            nodes=[as_node(entry) for entry in found],
            similarities=[float(entry.score or 0.0) for entry in found],
            ids=[entry.id for entry in found],
        )

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """`query` in a thread."""
        return await asyncio.to_thread(self.query, query, **kwargs)


def _named(node_ids: list[str] | None) -> Filter | None:
    return None if node_ids is None else In("path", tuple(node_ids))


def _of_documents(doc_ids: list[str] | None) -> Filter | None:
    return within("ref_doc_id", doc_ids) if doc_ids else None


def _all(*parts: Filter | None) -> Filter | None:
    several = tuple(part for part in parts if part is not None)
    return And(several) if several else None


def _wanted(query: VectorStoreQuery, mode: Mode) -> int:
    own = {"hybrid": query.hybrid_top_k, "lexical": query.sparse_top_k, "dense": None}[mode]
    return query.similarity_top_k if own is None else own


def _offered() -> str:
    return ", ".join(mode.value for mode in _MODES)

"""`RagIndexRetriever`: LlamaIndex's retriever over a ragindex store."""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters

from ragindex.filters import Filter
from ragindex.integrations.conditions import given
from ragindex.integrations.llama_index.embedding import embedder
from ragindex.integrations.llama_index.filters import translated
from ragindex.integrations.llama_index.nodes import as_node
from ragindex.integrations.llama_index.vector_store import RagIndexVectorStore
from ragindex.integrations.opening import Opening, Source
from ragindex.types import Mode

__all__ = ["RagIndexRetriever"]


class RagIndexRetriever(BaseRetriever):
    """Answers from a ragindex store the way `ragindex query` does: hybrid by default, repeats and overlaps folded.

    store: the path of a store that exists, an open `Index`, or a `RagIndexVectorStore`. embedding: as for
    `RagIndexVectorStore`, where such an object made the store's vectors. filters: LlamaIndex's, or an expression such
    as "path like 'ops/%'". The other arguments are those of `Index.search`.
    """

    def __init__(
        self,
        store: Source | RagIndexVectorStore = ".ragindex",
        *,
        similarity_top_k: int = 10,
        mode: Mode = "hybrid",
        filters: MetadataFilters | Filter | str | None = None,
        diversity: float = 0.0,
        instruction: str | None = None,
        embedding: BaseEmbedding | str | None = None,
        collection: str = "default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._top_k = similarity_top_k
        self._mode = mode
        self._filter = translated(filters) if isinstance(filters, MetadataFilters) else given(filters)
        self._diversity = diversity
        self._instruction = instruction
        if isinstance(store, RagIndexVectorStore):
            self._opening = store.opening
        else:
            self._opening = Opening(store, embedder=lambda: embedder(embedding), collection=collection, create=False)

    def close(self) -> None:
        """Let go of the store's files; a later query opens them again."""
        self._opening.close()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self._opening.records.retrieve(
            query_bundle.query_str,
            vector=query_bundle.embedding,
            k=self._top_k,
            mode=self._mode,
            filter=self._filter,
            diversity=self._diversity,
            instruction=self._instruction,
        )
        return [NodeWithScore(node=as_node(entry), score=float(entry.score or 0.0)) for entry in found]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

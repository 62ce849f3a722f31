"""`RagIndexRetriever`: by words, by vector, or both, out of a `RagIndexDocumentStore`."""

from __future__ import annotations

import asyncio
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.document_stores.types import FilterPolicy
from haystack.document_stores.types.filter_policy import apply_filter_policy

from haystack_integrations.document_stores.ragindex import RagIndexDocumentStore
from ragindex.errors import UsageError
from ragindex.types import Mode

__all__ = ["RagIndexRetriever"]


@component
class RagIndexRetriever:
    """Answers the way `ragindex query` does: hybrid by default, repeats and overlaps folded.

    With the store's own encoder a query is enough; where documents brought their vectors, connect the query's to
    `query_embedding`, and the query itself too if words are to count. mode: "hybrid", "dense" or "lexical"; a vector
    alone is always dense. diversity: 0 ranks by score alone, towards 1 the documents differ more. Scores are fused
    scores, cosines or BM25, by mode; higher is better.
    """

    def __init__(
        self,
        document_store: RagIndexDocumentStore,
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        mode: Mode = "hybrid",
        diversity: float = 0.0,
        instruction: str | None = None,
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        if not isinstance(document_store, RagIndexDocumentStore):
            raise UsageError(f"The retriever needs a RagIndexDocumentStore, not {type(document_store).__name__}.")
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k
        self.mode = mode
        self.diversity = diversity
        self.instruction = instruction
        self.filter_policy = FilterPolicy.from_str(filter_policy) if isinstance(filter_policy, str) else filter_policy

    def to_dict(self) -> dict[str, Any]:
        """The arguments it was made with."""
        return default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            filters=self.filters,
            top_k=self.top_k,
            mode=self.mode,
            diversity=self.diversity,
            instruction=self.instruction,
            filter_policy=self.filter_policy.value,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RagIndexRetriever:
        """The inverse of `to_dict`."""
        given = dict(data["init_parameters"])
        if isinstance(given["document_store"], dict):
            given["document_store"] = RagIndexDocumentStore.from_dict(given["document_store"])
        return default_from_dict(cls, {**data, "init_parameters": given})

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str | None = None,
        query_embedding: list[float] | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """The best documents, best first. Raises UsageError without a query and a vector."""
        found = self.document_store.search(
            query,
            query_embedding=query_embedding,
            filters=apply_filter_policy(self.filter_policy, self.filters, filters),
            top_k=self.top_k if top_k is None else top_k,
            mode=self.mode,
            diversity=self.diversity,
            instruction=self.instruction,
        )
        return {"documents": found}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str | None = None,
        query_embedding: list[float] | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """`run` in a thread."""
        return await asyncio.to_thread(self.run, query, query_embedding, filters, top_k)

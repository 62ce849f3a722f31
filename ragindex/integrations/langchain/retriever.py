"""`RagIndexRetriever`: LangChain's retriever over a ragindex store."""

# ruff: noqa: A002 - `filter` is LangChain's word for it
from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from pydantic import PrivateAttr

from ragindex.errors import UsageError
from ragindex.index import Index
from ragindex.integrations.conditions import given
from ragindex.integrations.langchain.embeddings import embedder
from ragindex.integrations.langchain.vector_store import RagIndexVectorStore, as_document
from ragindex.integrations.opening import Opening
from ragindex.types import Mode

__all__ = ["RagIndexRetriever"]


class RagIndexRetriever(BaseRetriever):
    """Answers from a ragindex store the way `ragindex query` does: hybrid by default, repeats and overlaps folded.

    store: the path of a store that exists, an open `Index`, or a `RagIndexVectorStore`. embedding: needed where such an
    object made the store's vectors. The other fields are those of `Index.search`; `k` and `filter` can be given with
    each call too.
    """

    store: Any = ".ragindex"
    k: int = 10
    mode: Mode = "hybrid"
    filter: Any = None
    diversity: float = 0.0
    instruction: str | None = None
    embedding: Embeddings | None = None
    collection: str = "default"

    _opening: Opening = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Point at the store; it is opened by the first query."""
        super().model_post_init(context)
        if isinstance(self.store, RagIndexVectorStore):
            self._opening = self.store.opening
        elif isinstance(self.store, str | Path | Index):
            embedding = self.embedding
            self._opening = Opening(
                self.store, embedder=lambda: embedder(embedding), collection=self.collection, create=False
            )
        else:
            raise UsageError(
                f"The store of a retriever is a path, an Index or a RagIndexVectorStore, not {self.store!r}."
            )

    def close(self) -> None:
        """Let go of the store's files; a later query opens them again."""
        self._opening.close()

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun | None = None,  # noqa: ARG002
        k: int | None = None,
        filter: Any = None,
    ) -> list[Document]:
        found = self._opening.records.retrieve(
            query,
            k=self.k if k is None else k,
            mode=self.mode,
            filter=given(self.filter if filter is None else filter),
            diversity=self.diversity,
            instruction=self.instruction,
        )
        return [as_document(entry) for entry in found]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun | None = None,  # noqa: ARG002
        k: int | None = None,
        filter: Any = None,
    ) -> list[Document]:
        return await asyncio.to_thread(self._get_relevant_documents, query, k=k, filter=filter)

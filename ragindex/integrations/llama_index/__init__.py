"""LlamaIndex: embedding, vector store and retriever over a ragindex store; `pip install "ragindex[llama-index]"`.

    store = RagIndexVectorStore("notes.ragindex")                # vectors from RagIndexEmbedding, or made by the store
    store = RagIndexVectorStore("notes.ragindex", OpenAIEmbedding())
    index = VectorStoreIndex.from_vector_store(store, embed_model=RagIndexEmbedding())
    retriever = RagIndexRetriever("docs/.ragindex")              # a folder that `ragindex index` has read

Similarities are cosines: higher is better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ragindex.integrations.extras import loaded

if TYPE_CHECKING:
    from ragindex.integrations.llama_index.embedding import RagIndexEmbedding
    from ragindex.integrations.llama_index.retriever import RagIndexRetriever
    from ragindex.integrations.llama_index.vector_store import RagIndexVectorStore

__all__ = ["RagIndexEmbedding", "RagIndexRetriever", "RagIndexVectorStore"]

_HOMES = {
    "RagIndexEmbedding": "embedding",
    "RagIndexRetriever": "retriever",
    "RagIndexVectorStore": "vector_store",
}


def __getattr__(name: str) -> Any:
    return loaded(__name__, _HOMES, name, framework="LlamaIndex", extra="llama-index")

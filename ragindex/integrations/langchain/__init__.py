"""LangChain: embeddings, a vector store and a retriever over a ragindex store; `pip install "ragindex[langchain]"`.

    store = RagIndexVectorStore("notes.ragindex")                 # the store's own encoder makes the vectors
    store = RagIndexVectorStore("notes.ragindex", OpenAIEmbeddings())
    retriever = RagIndexRetriever(store="docs/.ragindex", k=5)    # a folder that `ragindex index` has read

Filters are an expression ("lang = 'en' and size > 3"), a dictionary ({"lang": "en", "size": {"$gt": 3}}), or a value of
`ragindex.filters`. Scores are cosines: higher is better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ragindex.integrations.extras import loaded

if TYPE_CHECKING:
    from ragindex.integrations.langchain.embeddings import RagIndexEmbeddings
    from ragindex.integrations.langchain.retriever import RagIndexRetriever
    from ragindex.integrations.langchain.vector_store import RagIndexVectorStore

__all__ = ["RagIndexEmbeddings", "RagIndexRetriever", "RagIndexVectorStore"]

_HOMES = {
    "RagIndexEmbeddings": "embeddings",
    "RagIndexRetriever": "retriever",
    "RagIndexVectorStore": "vector_store",
}


def __getattr__(name: str) -> Any:
    return loaded(__name__, _HOMES, name, framework="LangChain", extra="langchain")

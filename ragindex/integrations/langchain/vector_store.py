"""`RagIndexVectorStore`: LangChain's documents in a ragindex store."""

# ruff: noqa: A002 - `filter` is LangChain's word for it
from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from ragindex.errors import UsageError
from ragindex.index import Index
from ragindex.integrations.conditions import given
from ragindex.integrations.langchain.embeddings import RagIndexEmbeddings, embedder
from ragindex.integrations.opening import Opening, Source
from ragindex.types import Entry, Mode, Record

__all__ = ["RagIndexVectorStore", "as_document"]


class RagIndexVectorStore(VectorStore):
    """Documents in a ragindex store, each whole and under its id.

    store: a path, made at the first use if it is not there, or an open `Index`, which stays the caller's.
    embedding: None leaves the vectors to the store's own encoder; any other object is remembered by what it does,
    and the store is refused with another one. The passages of files that `ragindex index` has read can be searched
    here too, but only added documents can be deleted. Safe for use from several threads.
    """

    def __init__(
        self, store: Source = ".ragindex", embedding: Embeddings | None = None, *, collection: str = "default"
    ) -> None:
        self._embedding = embedding
        self.opening = Opening(store, embedder=lambda: embedder(embedding), collection=collection)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        store: Source = ".ragindex",
        collection: str = "default",
        **kwargs: Any,
    ) -> RagIndexVectorStore:
        """A store with these texts added; what it holds already stays."""
        _refuse(kwargs)
        made = cls(store, embedding, collection=collection)
        made.add_texts(texts, metadatas, ids=ids)
        return made

    @property
    def index(self) -> Index:
        """The index behind it, opened."""
        return self.opening.index

    @property
    def embeddings(self) -> Embeddings:
        """What makes the vectors."""
        return RagIndexEmbeddings(self.index.encoder) if self._embedding is None else self._embedding

    def close(self) -> None:
        """Let go of the store's files; a later use opens them again. An index that was given stays open."""
        self.opening.close()

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,  # noqa: ARG002 - LangChain's `index` gives it; the store has batches of its own
        **kwargs: Any,
    ) -> list[str]:
        """Add texts or replace those whose id is known; returns their ids, new ones where none was given."""
        _refuse(kwargs)
        several = list(texts)
        for name, others in (("metadatas", metadatas), ("ids", ids)):
            if others is not None and len(others) != len(several):
                raise UsageError(f"There are {len(several)} texts but {len(others)} {name}; give one for each.")
        names = [identifier or str(uuid.uuid4()) for identifier in ids or [None] * len(several)]
        rows = zip(names, several, metadatas or [{}] * len(several), strict=True)
        self.opening.records.put(Record(name, text, metadata or {}) for name, text, metadata in rows)
        return names

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """`add_texts` in a thread; the inherited one would forget the ids."""
        return await asyncio.to_thread(self.add_texts, texts, metadatas, ids=ids, **kwargs)

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete documents; unknown ids are ignored. None deletes all that were added."""
        _refuse(kwargs)
        records = self.opening.records
        if ids is None:
            records.delete_where()
        else:
            records.delete(ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents in the order of the ids; unknown ones are left out."""
        return [as_document(entry) for entry in self.opening.records.get(ids)]

    def similarity_search(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Any = None,
        mode: Mode = "dense",
        **kwargs: Any,
    ) -> list[Document]:
        """The k best documents. mode: "dense", "lexical" or "hybrid"."""
        found = self.similarity_search_with_score(query, k, filter=filter, mode=mode, **kwargs)
        return [document for document, _ in found]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        *,
        filter: Any = None,
        mode: Mode = "dense",
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """As `similarity_search`, with cosines (BM25 and the fused score in the other modes); higher is better."""
        _refuse(kwargs)
        return _scored(self.opening.records.search(query, k=k, filter=given(filter), mode=mode))

    def similarity_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        *,
        filter: Any = None,
        **kwargs: Any,
    ) -> list[Document]:
        """The k documents nearest to a vector."""
        return [
            document
            for document, _ in self.similarity_search_by_vector_with_score(embedding, k, filter=filter, **kwargs)
        ]

    def similarity_search_by_vector_with_score(
        self,
        embedding: list[float],
        k: int = 4,
        *,
        filter: Any = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """As `similarity_search_by_vector`, with cosines."""
        _refuse(kwargs)
        return _scored(self.opening.records.search(vector=embedding, k=k, filter=given(filter)))

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Any = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Of the `fetch_k` best documents k that differ among themselves; lambda_mult: 1 looks at the query alone."""
        _refuse(kwargs)
        found = self.opening.records.search(
            query, k=k, pool=fetch_k, diversity=_diversity(lambda_mult), filter=given(filter)
        )
        return [as_document(entry) for entry in found]

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Any = None,
        **kwargs: Any,
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, for a vector."""
        _refuse(kwargs)
        found = self.opening.records.search(
            vector=embedding, k=k, pool=fetch_k, diversity=_diversity(lambda_mult), filter=given(filter)
        )
        return [as_document(entry) for entry in found]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        """The cosine, cut to [0, 1]. The inherited functions expect distances, and would turn the order around."""
        return lambda cosine: min(1.0, max(0.0, cosine))


def as_document(entry: Entry) -> Document:
    """An entry as LangChain sees it."""
    metadata: Mapping[str, Any] = entry.metadata
    if entry.span is not None:  # LangChain's chains cite `source`
        metadata = {"source": entry.metadata["path"], **metadata}
    return Document(id=entry.id, page_content=entry.text, metadata=dict(metadata))


def _scored(entries: Iterable[Entry]) -> list[tuple[Document, float]]:
    return [(as_document(entry), float(entry.score or 0.0)) for entry in entries]


def _diversity(lambda_mult: float) -> float:
    if not 0.0 <= lambda_mult <= 1.0:
        raise UsageError(f"lambda_mult is {lambda_mult}; it must lie between 0 and 1.")
    return 1.0 - lambda_mult


def _refuse(kwargs: Mapping[str, Any]) -> None:
    if kwargs:
        raise UsageError(f"RagIndexVectorStore knows no argument {min(kwargs)!r} here.")

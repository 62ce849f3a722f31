"""`RagIndexDocumentStore`: Haystack documents in a ragindex store, each whole and under its id."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from haystack import Document, default_from_dict, default_to_dict
from haystack.dataclasses import ByteStream, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy

from haystack_integrations.document_stores.ragindex.fields import count_unique, fields_info, min_max, unique_values
from haystack_integrations.document_stores.ragindex.filters import translated
from ragindex.encoder.brought import BroughtEncoder
from ragindex.errors import DuplicateError, UsageError
from ragindex.index import Index
from ragindex.index.record_writing import OnKnown
from ragindex.integrations.opening import Opening, Source
from ragindex.types import Entry, Mode, Record

__all__ = ["RagIndexDocumentStore"]

Filters = dict[str, Any] | None
_POLICIES: dict[DuplicatePolicy, OnKnown] = {
    DuplicatePolicy.NONE: "refuse",
    DuplicatePolicy.FAIL: "refuse",
    DuplicatePolicy.SKIP: "skip",
    DuplicatePolicy.OVERWRITE: "replace",
}


class RagIndexDocumentStore:
    """Documents in a ragindex store.

    store: a path, made at the first use if it is not there, or an open `Index`, which stays the caller's.
    embedding: None lets the store's own encoder embed the documents (those that bring a vector must have it from
    that encoder); the name of a model means that documents bring its vectors, of `dimensions` values, and that
    those without one are found by their words alone. encoder: for a new store, instead of the bundled one. Vectors
    come back in half precision.

    The passages of files that `ragindex index` has read can be searched and listed here too; only what was written as
    a document can be changed or deleted. Without a policy, a known id is an error.
    """

    def __init__(
        self,
        store: Source = ".ragindex",
        embedding: str | None = None,
        *,
        dimensions: int | None = None,
        encoder: str | None = None,
        collection: str = "default",
    ) -> None:
        if embedding is not None and not isinstance(embedding, str):
            raise UsageError("embedding names the model whose vectors the documents bring; give its name, or None.")
        self._settings = {"embedding": embedding, "dimensions": dimensions, "encoder": encoder}
        brought = None if embedding is None else BroughtEncoder(embedding, dimensions=dimensions)
        self._opening = Opening(store, embedder=lambda: brought or encoder, collection=collection)

    def to_dict(self) -> dict[str, Any]:
        """The arguments it was made with."""
        source = self._opening.source
        path = source.store if isinstance(source, Index) else Path(source)
        return default_to_dict(self, store=str(path), collection=self._opening.collection, **self._settings)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RagIndexDocumentStore:
        """The inverse of `to_dict`."""
        made: RagIndexDocumentStore = default_from_dict(cls, data)
        return made

    @property
    def index(self) -> Index:
        """The index behind it, opened."""
        return self._opening.index

    def close(self) -> None:
        """Let go of the store's files; a later use opens them again. An index that was given stays open."""
        self._opening.close()

    def count_documents(self) -> int:
        """How many documents and passages there are."""
        return self._opening.records.count()

    def filter_documents(self, filters: Filters = None) -> list[Document]:
        """The documents that match, in the order in which they were written."""
        return [as_document(entry) for entry in self._opening.records.find(translated(filters), vectors="brought")]

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Write documents; returns how many the store holds for it, which leaves out those that were skipped.

        Raises ValueError for what are no documents and DuplicateDocumentError for a known id, unless the policy says
        what to do with it; nothing is written then.
        """
        if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
            raise ValueError("write_documents takes a list of Documents.")
        try:
            return self._opening.records.put(map(_record, documents), known=_POLICIES[policy])
        except DuplicateError as error:
            raise DuplicateDocumentError(str(error)) from error

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete documents; unknown ids are ignored."""
        self._opening.records.delete(document_ids)

    def delete_all_documents(self) -> None:
        """Delete every document that was written; passages of files stay."""
        self._opening.records.delete_where()

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Delete the documents that match; returns how many."""
        return self._opening.records.delete_where(translated(filters))

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Set fields of the matching documents' meta; returns how many match. Nothing is embedded again."""
        return self._opening.records.describe(translated(filters), meta)

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """How many match."""
        return self._opening.records.count(translated(filters))

    def count_unique_metadata_by_filter(self, filters: dict[str, Any], metadata_fields: list[str]) -> dict[str, int]:
        """How many different values each field has among the documents that match."""
        return count_unique(self._metas(filters), metadata_fields)

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """The fields of all meta and the types of their values."""
        return fields_info(self._metas(None))

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """The least and the greatest value of a field; None where there is none."""
        return min_max(self._metas(None), metadata_field)

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int | None = 10,
        filters: Filters = None,
    ) -> tuple[list[Any], int]:
        """A page of a field's different values, in order, and how many there are in all."""
        found = unique_values(self._metas(filters), metadata_field, search_term)
        return found[from_ : None if size is None else from_ + size], len(found)

    def search(
        self,
        query: str | None,
        *,
        query_embedding: list[float] | None,
        filters: Filters,
        top_k: int,
        mode: Mode,
        diversity: float,
        instruction: str | None,
    ) -> list[Document]:
        """What `RagIndexRetriever` asks: by words, by vector, or both."""
        if query is None and query_embedding is None:
            raise UsageError("Give the retriever a query, a query_embedding, or both.")
        found = self._opening.records.retrieve(
            query or "",
            vector=query_embedding,
            k=top_k,
            mode="dense" if query is None else mode,
            filter=translated(filters),
            diversity=diversity,
            instruction=instruction,
        )
        return [as_document(entry) for entry in found]

    def _metas(self, filters: Filters) -> Iterable[dict[str, Any]]:
        return (dict(entry.metadata) for entry in self._opening.records.find(translated(filters)))

    async def count_documents_async(self) -> int:
        """`count_documents` in a thread."""
        return await asyncio.to_thread(self.count_documents)

    async def filter_documents_async(self, filters: Filters = None) -> list[Document]:
        """`filter_documents` in a thread."""
        return await asyncio.to_thread(self.filter_documents, filters)

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """`write_documents` in a thread."""
        return await asyncio.to_thread(self.write_documents, documents, policy)

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """`delete_documents` in a thread."""
        await asyncio.to_thread(self.delete_documents, document_ids)

    async def delete_all_documents_async(self) -> None:
        """`delete_all_documents` in a thread."""
        await asyncio.to_thread(self.delete_all_documents)

    async def delete_by_filter_async(self, filters: dict[str, Any]) -> int:
        """`delete_by_filter` in a thread."""
        return await asyncio.to_thread(self.delete_by_filter, filters)

    async def update_by_filter_async(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """`update_by_filter` in a thread."""
        return await asyncio.to_thread(self.update_by_filter, filters, meta)

    async def count_documents_by_filter_async(self, filters: dict[str, Any]) -> int:
        """`count_documents_by_filter` in a thread."""
        return await asyncio.to_thread(self.count_documents_by_filter, filters)

    async def count_unique_metadata_by_filter_async(
        self, filters: dict[str, Any], metadata_fields: list[str]
    ) -> dict[str, int]:
        """`count_unique_metadata_by_filter` in a thread."""
        return await asyncio.to_thread(self.count_unique_metadata_by_filter, filters, metadata_fields)

    async def get_metadata_fields_info_async(self) -> dict[str, dict[str, str]]:
        """`get_metadata_fields_info` in a thread."""
        return await asyncio.to_thread(self.get_metadata_fields_info)

    async def get_metadata_field_min_max_async(self, metadata_field: str) -> dict[str, Any]:
        """`get_metadata_field_min_max` in a thread."""
        return await asyncio.to_thread(self.get_metadata_field_min_max, metadata_field)

    async def get_metadata_field_unique_values_async(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int | None = 10,
        filters: Filters = None,
    ) -> tuple[list[Any], int]:
        """`get_metadata_field_unique_values` in a thread."""
        return await asyncio.to_thread(
            self.get_metadata_field_unique_values, metadata_field, search_term, from_, size, filters
        )


def _record(document: Document) -> Record:
    beside: dict[str, Any] = {}
    if document.content is None:
        beside["content"] = None
    if document.blob is not None:
        beside["blob"] = document.blob.to_dict()
    if document.sparse_embedding is not None:
        beside["sparse_embedding"] = document.sparse_embedding.to_dict()
    return Record(document.id, document.content or "", document.meta, document.embedding, beside=beside)


def as_document(entry: Entry) -> Document:
    """An entry as Haystack sees it."""
    blob, sparse = entry.beside.get("blob"), entry.beside.get("sparse_embedding")
    return Document(
        id=entry.id,
        content=None if "content" in entry.beside else entry.text,
        blob=None if blob is None else ByteStream.from_dict(blob),
        meta=dict(entry.metadata),
        score=entry.score,
        embedding=None if entry.vector is None else list(entry.vector),
        sparse_embedding=None if sparse is None else SparseEmbedding.from_dict(sparse),
    )

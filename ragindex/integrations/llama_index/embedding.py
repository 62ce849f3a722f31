"""A ragindex encoder as LlamaIndex's embedding, and LlamaIndex's embeddings as what makes a store's vectors."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from ragindex.encoder import Encoder
from ragindex.encoder.brought import BroughtEncoder
from ragindex.integrations.opening import Embedder, TextVectors

__all__ = ["RagIndexEmbedding", "embedder"]


class RagIndexEmbedding(BaseEmbedding):
    """A ragindex encoder: "bundled", a directory, a hub id, or one that is loaded.

    instruction: put before queries, in place of the encoder's default. A text longer than the encoder reads is read in
    windows whose vectors are averaged.
    """

    instruction: str | None = Field(default=None, description="Put before queries.")
    _vectors: TextVectors = PrivateAttr()

    def __init__(
        self,
        encoder: str | Path | Encoder = "bundled",
        *,
        instruction: str | None = None,
        embed_batch_size: int = 64,
        **kwargs: Any,
    ) -> None:
        name = encoder.name if isinstance(encoder, Encoder) else str(encoder)
        fields = {"instruction": instruction, "embed_batch_size": embed_batch_size}
        super().__init__(**{"model_name": name, **fields, **kwargs})
        self._vectors = TextVectors(
            lambda: encoder if isinstance(encoder, Encoder) else Encoder.load(encoder), instruction=instruction
        )

    @classmethod
    def class_name(cls) -> str:
        """The name under which it is serialised."""
        return "RagIndexEmbedding"

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded when it is first needed."""
        return self._vectors.encoder

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._vectors.query(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._vectors.query, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._vectors.documents([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._vectors.documents(texts)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._vectors.documents, texts)


def embedder(embedding: BaseEmbedding | str | None, dimensions: int | None = None) -> Embedder | None:
    """What a store is opened with to have its vectors made by `embedding`, or named by it; None: by its own encoder."""
    if embedding is None or isinstance(embedding, RagIndexEmbedding):
        return None if embedding is None else embedding.encoder
    if isinstance(embedding, str):
        return BroughtEncoder(embedding, dimensions=dimensions)
    return BroughtEncoder(f"{type(embedding).__name__} {embedding.model_name}", _Embeds(embedding))


class _Embeds:
    """A LlamaIndex embedding, asked as `ragindex.encoder.brought` asks."""

    def __init__(self, embedding: BaseEmbedding) -> None:
        self._embedding = embedding

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._embedding.get_text_embedding_batch(texts)

    def embed_query(self, text: str) -> list[float]:
        return self._embedding.get_query_embedding(text)

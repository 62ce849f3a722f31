"""A ragindex encoder as LangChain's embeddings, and LangChain's embeddings as what makes a store's vectors."""

from __future__ import annotations

from pathlib import Path

from langchain_core.embeddings import Embeddings

from ragindex.encoder import Encoder
from ragindex.encoder.brought import BroughtEncoder
from ragindex.integrations.opening import TextVectors

__all__ = ["RagIndexEmbeddings", "embedder"]


class RagIndexEmbeddings(Embeddings):
    """A ragindex encoder by itself: "bundled", a directory, a hub id, or one that is loaded.

    instruction: put before queries, in place of the encoder's default. A text longer than the encoder reads is read in
    windows whose vectors are averaged.
    """

    def __init__(self, encoder: str | Path | Encoder = "bundled", *, instruction: str | None = None) -> None:
        self._vectors = TextVectors(
            lambda: encoder if isinstance(encoder, Encoder) else Encoder.load(encoder), instruction=instruction
        )

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded when it is first needed."""
        return self._vectors.encoder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Unit vectors of documents."""
        return self._vectors.documents(texts)

    def embed_query(self, text: str) -> list[float]:
        """The unit vector of a query."""
        return self._vectors.query(text)


def embedder(embedding: Embeddings | None) -> Encoder | BroughtEncoder | None:
    """What a store is opened with to have its vectors made by `embedding`; None: by its own encoder."""
    if embedding is None:
        return None
    if isinstance(embedding, RagIndexEmbeddings):
        return embedding.encoder
    named = (getattr(embedding, name, None) for name in ("model", "model_name", "model_id"))
    model = next((name for name in named if isinstance(name, str)), "")
    return BroughtEncoder(f"{type(embedding).__name__} {model}".strip(), embedding)

"""Queries and documents to vectors, with the prompts that each side has.

A `RagIndexDocumentStore` embeds by itself: these are for pipelines that keep vectors elsewhere, or ask by vector.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict

from ragindex.encoder import Encoder
from ragindex.integrations.opening import TextVectors

__all__ = ["RagIndexDocumentEmbedder", "RagIndexTextEmbedder"]


@component
class RagIndexTextEmbedder:
    """The vector of a query.

    encoder: "bundled", a directory, or a hub id; loaded at the first use or by `warm_up`. instruction: put before the
    query in place of the encoder's default.
    """

    def __init__(self, encoder: str = "bundled", *, instruction: str | None = None) -> None:
        self.encoder = encoder
        self.instruction = instruction
        self._vectors = TextVectors(lambda: Encoder.load(encoder), instruction=instruction)

    def warm_up(self) -> None:
        """Load the encoder."""
        _ = self._vectors.encoder

    def to_dict(self) -> dict[str, Any]:
        """The arguments it was made with."""
        return default_to_dict(self, encoder=self.encoder, instruction=self.instruction)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RagIndexTextEmbedder:
        """The inverse of `to_dict`."""
        return default_from_dict(cls, data)

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """The query's unit vector. Raises TypeError for anything but a text."""
        if not isinstance(text, str):
            raise TypeError("RagIndexTextEmbedder takes a text; for documents there is RagIndexDocumentEmbedder.")
        return {"embedding": self._vectors.query(text)}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, list[float]]:
        """`run` in a thread."""
        return await asyncio.to_thread(self.run, text)


@component
class RagIndexDocumentEmbedder:
    """The vectors of documents' content; a document without content gets none.

    encoder: as for `RagIndexTextEmbedder`. A text longer than it reads is read in windows whose vectors are averaged.
    """

    def __init__(self, encoder: str = "bundled") -> None:
        self.encoder = encoder
        self._vectors = TextVectors(lambda: Encoder.load(encoder))

    def warm_up(self) -> None:
        """Load the encoder."""
        _ = self._vectors.encoder

    def to_dict(self) -> dict[str, Any]:
        """The arguments it was made with."""
        return default_to_dict(self, encoder=self.encoder)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RagIndexDocumentEmbedder:
        """The inverse of `to_dict`."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Copies of the documents with their embeddings. Raises TypeError for anything but a list of documents."""
        if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
            raise TypeError(
                "RagIndexDocumentEmbedder takes a list of Documents; for a query there is RagIndexTextEmbedder."
            )
        spoken = [place for place, one in enumerate(documents) if (one.content or "").strip()]
        vectors = self._vectors.documents([documents[place].content or "" for place in spoken])
        embedded = dict(zip(spoken, vectors, strict=True))
        return {"documents": [replace(one, embedding=embedded.get(place)) for place, one in enumerate(documents)]}

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, list[Document]]:
        """`run` in a thread."""
        return await asyncio.to_thread(self.run, documents)

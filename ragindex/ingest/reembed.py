"""Embeds what a store already holds with another encoder, from the catalogue's own text; no file is read again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ragindex.config import Chunking
from ragindex.encoder import Encoder
from ragindex.ingest.context import ChunkContext
from ragindex.ingest.progress import Progress
from ragindex.store.catalog import Catalog
from ragindex.store.rows import EncoderRow, TextEntry

__all__ = ["reembed"]


def reembed(catalog: Catalog, encoder: Encoder, row: EncoderRow, chunking: Chunking, progress: Progress) -> int:
    """Give every chunk of every collection a vector of `encoder`; returns how many were embedded.

    Committed batch by batch, so an interrupted run goes on where it stopped. Chunks keep their spans: raises
    EncoderError when one is longer than the new encoder reads.
    """
    context = ChunkContext(encoder, budget=chunking.tokens)
    embedded = 0
    progress.start(0)
    try:
        for entries in _all_texts(catalog):
            wanted: dict[bytes, tuple[str, str]] = {}
            for entry in entries:
                # The key that the chunk refers to, not one made anew: keys depend on how the store was cut back then.
                wanted[entry.vector_key] = (entry.text, context.title(entry.title, entry.heading))
            fresh = _embed(encoder, {key: wanted[key] for key in catalog.missing_keys(row.id, wanted.keys())})
            catalog.add_vectors(row.id, fresh)
            embedded += len(fresh)
            progress.advance(chunks=len(fresh), tokens=sum(encoder.tokenizer.count(wanted[key][0]) for key in fresh))
    finally:
        progress.finish()
    return embedded


def _all_texts(catalog: Catalog) -> Iterator[list[TextEntry]]:
    for name in catalog.collections():
        yield from catalog.iter_texts(catalog.collection(name), batch=512)


def _embed(encoder: Encoder, wanted: Mapping[bytes, tuple[str, str]]) -> dict[bytes, np.ndarray]:
    if not wanted:
        return {}
    texts, titles = [item[0] for item in wanted.values()], [item[1] for item in wanted.values()]
    vectors = encoder.encode_documents(texts, titles=titles).astype(np.float16)
    return dict(zip(wanted, vectors, strict=True))

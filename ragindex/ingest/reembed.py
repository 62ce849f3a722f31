"""Embeds what a store already holds with another encoder, from the catalogue's own text; no file is read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from ragindex.config import Chunking
from ragindex.encoder import Encoder, SpanPlan
from ragindex.ingest.context import ChunkContext
from ragindex.ingest.late import encode_planned, is_late_key
from ragindex.ingest.progress import Progress
from ragindex.ingest.records import embed_whole, is_record_key
from ragindex.store.catalog import Catalog
from ragindex.store.rows import EncoderRow, TextEntry

__all__ = ["embed_missing"]


def embed_missing(
    catalog: Catalog, encoder: Encoder, row: EncoderRow, chunking: Chunking, progress: Progress, *, after: int = 0
) -> int:
    """Give every chunk of every collection a vector of `encoder`; returns how many texts were embedded.

    after: the id of a chunk; it and those before it are known to have one. Only what has none is embedded, batch by
    batch, each committed by itself: an interrupted run goes on where it stopped. Chunks keep their spans: raises
    EncoderError when one is longer than the encoder reads; a record is read in windows, as when it came.
    """
    context = ChunkContext(encoder, budget=chunking.tokens)
    documents = _Documents(catalog, encoder, chunking)
    embedded = 0
    for entries in catalog.iter_unembedded(row.id, after=after):
        # The key that the chunk refers to, not one made anew: keys depend on how the store was cut back then.
        texts: dict[bytes, str] = {}
        titles: dict[bytes, str] = {}
        places: dict[bytes, tuple[SpanPlan, int]] = {}
        records: set[bytes] = set()
        for entry, place in documents.places(entries):
            texts[entry.vector_key] = entry.text
            if is_record_key(entry.vector_key, entry.text):
                records.add(entry.vector_key)
            elif place is None:
                titles[entry.vector_key] = context.title(entry.title, entry.heading)
            else:
                places[entry.vector_key] = place
        fresh = _embed(encoder, {key: (texts[key], title) for key, title in titles.items()})
        fresh.update(encode_planned(encoder, places))
        whole = embed_whole(encoder, [texts[key] for key in records]).astype(np.float16)
        fresh.update(zip(records, whole, strict=True))
        catalog.add_vectors(row.id, fresh)
        embedded += len(fresh)
        progress.advance(chunks=len(fresh), tokens=sum(encoder.tokenizer.count(text) for text in texts.values()))
    return embedded


class _Documents:
    """Tells which chunks are embedded in the context of their document, and plans that for another encoder.

    The document that was asked for last is kept: chunks come in the order in which they were written.
    """

    def __init__(self, catalog: Catalog, encoder: Encoder, chunking: Chunking) -> None:
        self._catalog = catalog
        self._encoder = encoder
        self._context = ChunkContext(encoder, budget=chunking.tokens, late=True)
        self._needed = "late_chunking" in (catalog.setting("chunking") or {})
        self._places: Mapping[int, int] = {}  # by chunk
        self._plan: SpanPlan | None = None

    def places(self, entries: Iterable[TextEntry]) -> Iterator[tuple[TextEntry, tuple[SpanPlan, int] | None]]:
        """Each chunk with the plan of its document and its place there; with None where it is embedded by itself.

        In a store that may hold both, a chunk that went meanwhile is left out: nothing tells of which kind it was.
        """
        for entry in entries:
            if not self._needed:
                yield entry, None
                continue
            if entry.chunk_id not in self._places:
                self._read(entry)
            if entry.chunk_id in self._places:
                yield entry, None if self._plan is None else (self._plan, self._places[entry.chunk_id])

    def _read(self, entry: TextEntry) -> None:
        self._places, self._plan = {}, None
        document = self._catalog.document_spans(entry.chunk_id)
        if document is None:
            return
        self._places = {chunk: place for place, chunk in enumerate(document.spans)}
        if is_late_key(entry.vector_key, document.text):
            title, spans = self._context.title(document.title, ()), list(document.spans.values())
            self._plan = self._encoder.spans.plan(document.text, spans, title=title)


def _embed(encoder: Encoder, wanted: Mapping[bytes, tuple[str, str]]) -> dict[bytes, np.ndarray]:
    texts, titles = [item[0] for item in wanted.values()], [item[1] for item in wanted.values()]
    vectors = encoder.encode_documents(texts, titles=titles).astype(np.float16)
    return dict(zip(wanted, vectors, strict=True))

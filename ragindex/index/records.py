"""`Records`: a collection as other programs see it, texts under ids of their own, with vectors made here or brought.

A record is stored uncut and comes back as it was. Passages of documents that were indexed from a folder stand beside
the records, to be read: they can be searched, listed and got by id, but only `Index.add` and `Index.remove` change
them. Writing takes the lease for each batch, after its texts were embedded; reading needs none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ragindex import filters
from ragindex.errors import UsageError
from ragindex.index.record_writing import OnKnown, RecordWriting
from ragindex.ingest.records import described, own
from ragindex.store.rows import RECORD, Batch, ChunkRow, Float32Array
from ragindex.types import Entry, Hit, Mode, Record

if TYPE_CHECKING:
    from ragindex.index.serving import Serving
    from ragindex.search import Engine
    from ragindex.search.merging import Candidate
    from ragindex.store.catalog import Catalog

__all__ = ["Records"]

_PASSAGE = re.compile(r"(.+)#char=(\d+),(\d+)", re.DOTALL | re.ASCII)
_POOL = 4  # candidates per result, for diversity
Vectors = Literal["left", "brought"]


class Records:
    """Made by `Index.records`. Thread-safe for reads; one writer at a time, others wait for up to a minute.

    filter: an expression or a value, as for `Index.search`.
    """

    def __init__(
        self,
        catalog: Catalog,
        collection: int,
        serving: Serving,
        answer: Callable[[Callable[[Engine], Any]], Any],
    ) -> None:
        self._catalog = catalog
        self._collection = collection
        self._answer = answer
        self._writing = RecordWriting(catalog, collection, serving)

    def put(self, records: Iterable[Record], *, known: OnKnown = "replace") -> int:
        """Add records; returns how many of them the store holds for it now: all but those that were skipped.

        known: what becomes of one whose id is taken: "replace" it, "skip" the new one, or "refuse" them all. Nothing
        is embedded whose text was embedded before. Raises UsageError for what cannot be stored (nothing of its batch
        is then), and EncoderMismatchError for vectors that are not from this store's encoder; DuplicateError when one
        is refused.
        """
        return self._writing.put(list(records), known)

    def delete(self, ids: Iterable[str]) -> int:
        """Forget records; ids that are unknown are ignored. Returns how many went. Raises UsageError for the id of
        what was indexed from a folder.
        """
        wanted = list(dict.fromkeys(ids))
        if not self._removable(wanted):
            return 0
        with self._writing.lease("delete"):
            doomed = self._removable(wanted)
            self._writing.commit(Batch(removes=doomed))
        return len(doomed)

    def delete_where(self, filter: str | filters.Filter | None = None) -> int:  # noqa: A002
        """Forget the records that match; None is every record. Returns how many went."""
        with self._writing.lease("delete"):
            doomed = self._catalog.names(self._collection, _parsed(filter), loader=RECORD)
            self._writing.commit(Batch(removes=doomed))
        return len(doomed)

    def describe(self, filter: str | filters.Filter | None, changes: Mapping[str, Any]) -> int:  # noqa: A002
        """Replace some keys in the metadata of the records that match; nothing is embedded. Returns how many match."""
        with self._writing.lease("describe"):
            rows = self._rows(filter, loader=RECORD)
            states = self._catalog.states_of(self._collection, [row.path for row in rows])
            new = {row.path: described(row, states[row.path], changes) for row in rows}
            metadata = {path: item.metadata for path, item in new.items()}
            self._writing.commit(Batch(metadata=metadata, touches=[item.state for item in new.values()]))
        return len(rows)

    def get(self, ids: Sequence[str], *, vectors: Vectors = "left") -> list[Entry]:
        """Records and passages by their ids, in that order; unknown ones are left out.

        vectors: "brought" gives those that records came with.
        """
        named = self._catalog.chunks_named(self._collection, ids, loader=RECORD)
        stored = dict(zip(named, self._entries(named.values(), vectors), strict=True))
        found = (stored.get(identifier) or self._passage(identifier) for identifier in ids)
        return [entry for entry in found if entry is not None]

    def find(
        self,
        filter: str | filters.Filter | None = None,  # noqa: A002
        *,
        offset: int = 0,
        limit: int | None = None,
        vectors: Vectors = "left",
    ) -> list[Entry]:
        """Everything that matches, oldest first; vectors: as for `get`."""
        return self._entries(self._rows(filter, offset=offset, limit=limit), vectors)

    def count(self, filter: str | filters.Filter | None = None) -> int:  # noqa: A002
        """How many records and passages match."""
        return self._catalog.count(self._collection, _parsed(filter))

    def search(
        self,
        query: str = "",
        *,
        vector: Sequence[float] | None = None,
        k: int = 10,
        mode: Mode = "dense",
        filter: str | filters.Filter | None = None,  # noqa: A002
        diversity: float = 0.0,
        pool: int | None = None,
        instruction: str | None = None,
        share: float | None = None,
        vectors: Vectors = "left",
    ) -> list[Entry]:
        """The k best records and passages, best first, each for itself: k of them whenever k exist.

        vector: the query's, where the caller made it. diversity: above 0 they are chosen among the `pool` best
        (default: 4·k) by maximal marginal relevance. share: of the dense scores in hybrid search; None: by their
        evidence. The score is the cosine, BM25 or the fused score, by `mode`; higher is better. Raises UsageError for
        bad arguments.
        """
        from ragindex.search import Request

        request = Request(query, k, mode, instruction, _parsed(filter), diversity, vector=_numbers(vector), share=share)
        if self._catalog.encoder() is None:
            return []
        found: list[Candidate] = self._answer(lambda engine: engine.passages(request, pool=pool or _POOL * k))
        entries = self._entries([item.row for item in found], vectors)
        return [replace(entry, score=item.score) for entry, item in zip(entries, found, strict=True)]

    def retrieve(
        self,
        query: str = "",
        *,
        vector: Sequence[float] | None = None,
        k: int = 10,
        mode: Mode = "hybrid",
        filter: str | filters.Filter | None = None,  # noqa: A002
        diversity: float = 0.0,
        instruction: str | None = None,
    ) -> list[Entry]:
        """The hits of `Index.search`: repeats and overlaps are folded, so a passage may be longer than a chunk.
        vector: as for `search`.
        """
        from ragindex.search import Request

        request = Request(query, k, mode, instruction, _parsed(filter), diversity, vector=_numbers(vector))
        if self._catalog.encoder() is None:
            return []
        hits: list[Hit] = self._answer(lambda engine: engine.search(request))
        named = self._catalog.chunks_named(self._collection, [hit.path for hit in hits], loader=RECORD)
        return [
            replace(_record(named[hit.path]) if hit.path in named else _hit_passage(hit), score=hit.score)
            for hit in hits
        ]

    def _rows(self, filter: str | filters.Filter | None, **limits: Any) -> list[ChunkRow]:  # noqa: A002
        return self._catalog.find(self._collection, _parsed(filter), **limits)

    def _removable(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids that are records'. Raises UsageError for one of a document."""
        states = self._catalog.states_of(self._collection, [*ids, *(path for path in map(_path_of, ids) if path)])
        for identifier in ids:
            path = identifier if identifier in states else _path_of(identifier)
            if path in states and states[path].loader != RECORD:
                raise UsageError(
                    f"{identifier!r} is of a document that was indexed from a folder; `ragindex remove` forgets those."
                )
        return [identifier for identifier in ids if identifier in states]

    def _entries(self, rows: Iterable[ChunkRow], vectors: Vectors) -> list[Entry]:
        rows = list(rows)
        entries = [_record(row) if row.loader == RECORD else _chunk_passage(row) for row in rows]
        norms = {row.chunk_id: own(row.metadata).norm for row in rows} if vectors == "brought" else {}
        asked = [chunk_id for chunk_id, norm in norms.items() if norm is not None]
        encoder = self._catalog.encoder() if asked else None
        if encoder is None:
            return entries
        held = self._catalog.present_vectors(encoder.id, asked)
        brought = {
            chunk_id: (vector * np.float32(norms[chunk_id] or 0.0)).tolist()
            for chunk_id, vector in zip(held.ids.tolist(), held.vectors, strict=True)
        }
        return [replace(entry, vector=brought.get(row.chunk_id)) for entry, row in zip(entries, rows, strict=True)]

    def _passage(self, identifier: str) -> Entry | None:
        """What lies at the place in a document that an id names; None where there is no such place."""
        match = _PASSAGE.fullmatch(identifier)
        if match is None:
            return None
        start, end = int(match[2]), int(match[3])
        rows = [row for row in self._catalog.chunks_of(self._collection, match[1]) if row.loader != RECORD]
        inside = [row for row in rows if start <= row.start and row.end <= end]  # chunks overlap: these are the span's
        inside = inside or [row for row in rows if row.start < end and start < row.end]
        if not inside or start >= end or end > max(row.end for row in rows):
            return None
        text = self._catalog.document_text(self._collection, match[1])[start:end]
        place = replace(inside[0], start=start, end=end, text=text, line_end=inside[-1].line_end)
        return _chunk_passage(place)


def _parsed(given: str | filters.Filter | None) -> filters.Filter | None:
    return filters.parse(given) if isinstance(given, str) else given


def _numbers(vector: Sequence[float] | None) -> Float32Array | None:
    if vector is None:
        return None
    try:
        return np.asarray(vector, np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError("The query's vector is no list of numbers.") from error


def _path_of(identifier: str) -> str:
    match = _PASSAGE.fullmatch(identifier)
    return "" if match is None else match[1]


def _record(row: ChunkRow) -> Entry:
    metadata, beside, _ = own(row.metadata)
    return Entry(row.path, row.text, metadata, beside)


def _hit_passage(hit: Hit) -> Entry:
    return _passage_at(hit, hit.char_start, hit.char_end)


def _chunk_passage(row: ChunkRow) -> Entry:
    return _passage_at(row, row.start, row.end)


def _passage_at(found: ChunkRow | Hit, start: int, end: int) -> Entry:
    place = {
        "path": found.path,
        "title": found.title,
        "heading": list(found.heading),
        "page": found.page,
        "line_start": found.line_start,
        "line_end": found.line_end,
        "char_start": start,
        "char_end": end,
    }
    return Entry(f"{found.path}#char={start},{end}", found.text, {**found.metadata, **place}, span=(start, end))

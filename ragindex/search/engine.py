"""The query engine: filter, retrieve, fuse, fold duplicates, diversify, cite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from ragindex.chunking.titles import title_line
from ragindex.errors import StoreError, UsageError
from ragindex.filters import Filter
from ragindex.search.diversity import diversified
from ragindex.search.documents import ranked_documents
from ragindex.search.fusion import HEAD
from ragindex.search.merging import Candidate, merge
from ragindex.search.query_vectors import QueryVectors
from ragindex.search.rereading import Passage, Reading, fuse_and_read, read_passages
from ragindex.search.restricting import Restrictions
from ragindex.search.sentences import Sentences
from ragindex.store.catalog import Catalog
from ragindex.store.rows import BESIDE, ChunkRow, Float32Array, IdArray
from ragindex.store.snapshot import LiveIndexes
from ragindex.store.text_index import TextIndex
from ragindex.store.vector_index import Scored
from ragindex.types import Explanation, Hit, Mode, Scores

if TYPE_CHECKING:
    from ragindex.encoder import Encoder
    from ragindex.encoder.brought import BroughtEncoder

__all__ = ["Engine", "Ranking", "Request", "hit_of"]

_ATTEMPTS = 3
_EMPTY = Scored(np.empty(0, np.int64), np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class Request:
    """A query and how to answer it. instruction: None is the encoder's default; task: the name of one that the encoder
    knows, in place of an instruction; filter: None is everything; vector: the query's, of any length but zero, where
    the caller made it; share: what the dense list weighs in hybrid search, None: by its evidence.
    """

    query: str
    k: int = 10
    mode: Mode = "hybrid"
    instruction: str | None = None
    filter: Filter | None = None
    diversity: float = 0.0
    explain: bool = False
    vector: Float32Array | None = field(default=None, compare=False)
    share: float | None = None
    task: str | None = None

    def __post_init__(self) -> None:
        if not self.query.strip() and (self.vector is None or self.mode != "dense"):
            raise UsageError("The query is empty; say what you are looking for.")
        if self.k < 1:
            raise UsageError(f"k is {self.k}; it must be at least 1.")
        if self.mode not in ("hybrid", "dense", "lexical"):
            raise UsageError(f"Unknown mode {self.mode!r}; choose hybrid, dense or lexical.")
        if self.share is not None and not 0.0 <= self.share <= 1.0:
            raise UsageError(f"The share of dense search is {self.share}; it must lie between 0 and 1.")
        if not 0.0 <= self.diversity <= 1.0:
            raise UsageError(f"diversity is {self.diversity}; it must lie between 0 and 1.")


@dataclass(frozen=True, slots=True)
class Ranking:
    """Chunks best first before folding: ids (n,) and scores (n,), with the lists they were made from and what was read
    in the best of them (hybrid search alone reads).
    """

    ids: IdArray
    scores: Float32Array
    dense: Scored
    lexical: Scored
    dense_weight: float
    reading: Reading | None = None


class _GoneError(StoreError):
    """A chunk of the ranking is not there any more: somebody committed in between."""

    def __init__(self) -> None:
        super().__init__("Documents were replaced while they were read; ask again.")


class Engine:
    """Answers requests over one collection. Thread-safe.

    `encoder` is called when a query vector is first needed, so that a lexical query loads no encoder.
    """

    def __init__(
        self, catalog: Catalog, live: LiveIndexes, collection: int, encoder: Callable[[], Encoder | BroughtEncoder]
    ) -> None:
        self._catalog = catalog
        self._live = live
        self._collection = collection
        self._encoder = encoder
        self._vector = QueryVectors(encoder)
        self._restrictions = Restrictions(catalog, collection)
        self._sentences: Sentences | None = None

    def prepare(self, queries: Sequence[str], instruction: str | None) -> None:
        """Encode queries as one batch ahead of their searches. Raises UsageError for too long an instruction."""
        self._vector.prepare(queries, instruction)

    def search(self, request: Request) -> list[Hit]:
        """The hits of a request, best first: k of them whenever k distinct passages exist. Raises CorruptionError
        rather than show a text that is not the document's.
        """
        for _ in range(_ATTEMPTS):
            # A document that is replaced between ranking and reading would be found neither as it was nor as it is.
            with suppress(_GoneError):
                return self._search(request, lenient=False)
        return self._search(request, lenient=True)

    def _search(self, request: Request, *, lenient: bool) -> list[Hit]:
        depth = max(HEAD, 10 * request.k)
        while True:
            ranking = self.rank(request, depth=depth)
            pool = self._folded(ranking, 5 * request.k if request.diversity > 0 else request.k, lenient=lenient)
            if len(pool) >= request.k or max(len(ranking.dense.ids), len(ranking.lexical.ids)) < depth:
                break
            depth *= 8  # hundreds of copies of a few texts were folded into fewer than k hits
        if request.diversity > 0 and pool:
            vectors = self._vectors([item.row.chunk_id for item in pool])
            scores = np.array([item.score for item in pool], dtype=np.float32)
            picks = diversified(scores, vectors, diversity=request.diversity, count=request.k)
            chosen = [pool[index] for index in picks]
        else:
            chosen = pool
        return self._hits(request, ranking, chosen)

    def passages(self, request: Request, *, pool: int) -> list[Candidate]:
        """The k best chunks, best first, each for itself: nothing is folded away. With diversity, chosen among the
        `pool` best by maximal marginal relevance of cosines.
        """
        wanted = max(request.k, pool) if request.diversity > 0 else request.k
        ranking = self.rank(request, depth=max(HEAD, 10 * wanted))
        chosen = list(islice(self._candidates(ranking, page=wanted), wanted))
        if request.diversity > 0 and chosen:
            vectors = self._vectors([item.row.chunk_id for item in chosen])
            cosines = vectors @ self._asked(request)
            picks = diversified(cosines, vectors, diversity=request.diversity, count=request.k, scaled=False)
            chosen = [chosen[index] for index in picks]
        return chosen

    def _dense(self, vector: Float32Array, depth: int, allowed: IdArray | None) -> Scored:
        """The `depth` nearest chunks without those whose vectors are nothing but zeros: records without a vector."""
        wanted = depth
        while True:
            found = self._live.dense().search(vector, wanted, allowed)
            ids, scores = found
            doubtful = scores == 0
            if doubtful.any() and self._live.encoder is not None:
                held = self._catalog.present_vectors(self._live.encoder.id, ids[doubtful])
                void = held.ids[~held.vectors.any(axis=1)]
                kept = ~(doubtful & np.isin(ids, void))
                ids, scores = ids[kept][:depth], scores[kept][:depth]
            if len(ids) >= depth or len(found.ids) < wanted:
                return Scored(ids, scores)
            wanted *= 4

    def _asked(self, request: Request) -> Float32Array:
        """The unit vector of the query. Raises UsageError for one of another length than the store's."""
        if request.vector is None:
            return self._vector(request.query, request.instruction, task=request.task)
        vector = np.asarray(request.vector, np.float32)
        row = self._live.encoder
        if row is not None and vector.shape != (row.dimensions,):
            raise UsageError(
                f"The query's vector has the shape {vector.shape}; the store's have {row.dimensions} values."
            )
        length = float(np.linalg.norm(vector))
        if not 0 < length < np.inf:
            raise UsageError("The query's vector must be of finite numbers that are not all zero.")
        return vector / np.float32(length)

    def rank(self, request: Request, *, depth: int) -> Ranking:
        """The fused ranking of chunks; each retriever contributes its `depth` best."""
        restriction = self._restrictions.choose(request.filter, depth * (2 if request.mode == "hybrid" else 1))
        if restriction.is_void:
            return Ranking(_EMPTY.ids, _EMPTY.scores, _EMPTY, _EMPTY, 0.5)
        lexical = dense = _EMPTY
        if request.mode != "dense":
            texts = self._live.lexical()
            lexical = restriction.best(lambda count, allowed: texts.search(request.query, count, allowed), depth)
        if request.mode != "lexical":
            vector = self._asked(request)
            dense = restriction.best(lambda count, allowed: self._dense(vector, count, allowed), depth)
        if request.mode != "hybrid":
            only = dense if request.mode == "dense" else lexical
            return Ranking(only.ids, only.scores, dense, lexical, float(request.mode == "dense"))
        fused, reading = fuse_and_read(
            dense,
            lexical,
            lambda ids: self._read(ids, request.query, vector, texts),
            ceiling=texts.ceiling(request.query),
            depth=depth,
            trust=self._encoder().config.trust,
            share=request.share,
        )
        return Ranking(fused.ids, fused.scores, dense, lexical, fused.dense_weight, reading)

    def _read(self, ids: IdArray, query: str, vector: Float32Array, words: TextIndex) -> Reading:
        reader = self._encoder().reader
        if self._sentences is None and reader is not None:
            self._sentences = Sentences(reader)
        assert self._live.encoder is not None, "hybrid search without an encoder"
        held = self._catalog.present_vectors(self._live.encoder.id, ids)
        vectors = dict(zip(held.ids.tolist(), held.vectors, strict=True))
        passages = [
            Passage(entry.chunk_id, title_line(entry.title, entry.heading), entry.text, vectors[entry.chunk_id])
            for entry in self._catalog.texts(ids)
            if entry.chunk_id in vectors
        ]
        return read_passages(passages, query=query, vector=vector, words=words, known=self._sentences)

    def rank_documents(self, request: Request) -> list[str]:
        """Paths of the k best documents, best first; nothing is folded away."""
        ranking = self.rank(request, depth=max(HEAD, 10 * request.k))
        rows = self._catalog.hits(ranking.ids.tolist())
        scores = dict(zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True))
        scored = [(row.path, scores[row.chunk_id]) for row in rows]
        return ranked_documents(scored, additive=request.mode == "lexical")[: request.k]

    def _folded(self, ranking: Ranking, limit: int, *, lenient: bool) -> list[Candidate]:
        return merge(self._candidates(ranking, page=limit + max(6, limit // 2), lenient=lenient), limit)

    def _candidates(self, ranking: Ranking, *, page: int, lenient: bool = True) -> Iterator[Candidate]:
        ids, values = ranking.ids.tolist(), ranking.scores.tolist()
        scores = dict(zip(ids, values, strict=True))
        start = 0
        while start < len(ids):
            stop = min(start + page, len(ids))
            while stop < len(ids) and round(values[stop], 5) == round(values[stop - 1], 5):
                stop += 1
            rows = self._catalog.hits(ids[start:stop])
            if len(rows) < stop - start and not lenient:
                raise _GoneError
            # Ids tell in which order files arrived; equal scores are put in the order of paths instead.
            rows.sort(key=lambda row: (-round(scores[row.chunk_id], 5), row.path, row.ordinal))
            for row in rows:
                yield Candidate(row, scores[row.chunk_id])
            start = stop

    def _vectors(self, chunk_ids: Sequence[int]) -> Float32Array:
        encoder = self._live.encoder  # not the catalogue's: it may have switched since this query began
        if encoder is None or not chunk_ids:
            raise UsageError("Diversity needs dense vectors, and this store has none.")
        held = self._catalog.present_vectors(encoder.id, chunk_ids)
        if len(held.ids) == len(chunk_ids):
            return held.vectors
        if len(self._catalog.hits(chunk_ids)) < len(chunk_ids):
            raise _GoneError
        return self._catalog.vectors(encoder.id, chunk_ids)  # which says what is wrong

    def _hits(self, request: Request, ranking: Ranking, chosen: Sequence[Candidate]) -> list[Hit]:
        self._catalog.check_spans([item.row for item in chosen])
        dense = self._completed_dense(request, ranking, chosen)
        lexical = self._completed_lexical(request, ranking, chosen)
        hits = []
        for rank, item in enumerate(chosen, 1):
            chunk_id = item.row.chunk_id
            fused = item.score if request.mode == "hybrid" else None
            hit = hit_of(item.row, rank, item.score, Scores(dense.get(chunk_id), lexical.get(chunk_id), fused))
            hits.append(replace(hit, explanation=self._explain(request, ranking, item)) if request.explain else hit)
        return hits

    def _completed_dense(self, request: Request, ranking: Ranking, chosen: Sequence[Candidate]) -> dict[int, float]:
        """Cosines of the chosen; those that only the lexical list found are scored from their stored vectors."""
        known = dict(zip(ranking.dense.ids.tolist(), ranking.dense.scores.tolist(), strict=True))
        missing = [item.row.chunk_id for item in chosen if item.row.chunk_id not in known]
        if request.mode == "hybrid" and missing:
            assert self._live.encoder is not None, "hybrid search without an encoder"
            # One that was removed meanwhile has no vector any more.
            held = self._catalog.present_vectors(self._live.encoder.id, missing)
            known.update(zip(held.ids.tolist(), (held.vectors @ self._asked(request)).tolist(), strict=True))
        return known

    def _completed_lexical(self, request: Request, ranking: Ranking, chosen: Sequence[Candidate]) -> dict[int, float]:
        """BM25 of the chosen; 0 for one that shares no word with the query."""
        known = dict(zip(ranking.lexical.ids.tolist(), ranking.lexical.scores.tolist(), strict=True))
        missing = sorted({item.row.chunk_id for item in chosen} - known.keys())
        if request.mode == "hybrid" and missing:
            found = self._live.lexical().search(request.query, len(missing), np.array(missing, np.int64))
            known.update(dict.fromkeys(missing, 0.0))
            known.update(zip(found.ids.tolist(), found.scores.tolist(), strict=True))
        return known

    def _explain(self, request: Request, ranking: Ranking, item: Candidate) -> Explanation:
        from ragindex.store.highlight import matched_terms  # brings tantivy along, which a dense query does not need

        row = item.row
        words = " ".join([row.text, row.title, *row.heading, row.path])
        return Explanation(
            dense_rank=_rank_in(ranking.dense, row.chunk_id),
            lexical_rank=_rank_in(ranking.lexical, row.chunk_id),
            dense_weight=round(ranking.dense_weight, 4) if request.mode == "hybrid" else None,
            terms=matched_terms(request.query, words),
            merged=item.merged,
            sentence=_sentence_of(ranking, row.chunk_id),
        )


def _rank_in(result: Scored, chunk_id: int) -> int | None:
    places = np.flatnonzero(result.ids == chunk_id)
    return int(places[0]) + 1 if len(places) else None


def _sentence_of(ranking: Ranking, chunk_id: int) -> str | None:
    if ranking.reading is None:
        return None
    read = dict(zip(ranking.reading.ids.tolist(), ranking.reading.sentences, strict=True))
    return read.get(chunk_id) or None


def hit_of(row: ChunkRow, rank: int, score: float, scores: Scores) -> Hit:
    """A chunk as a hit."""
    return Hit(
        rank=rank,
        score=score,
        scores=scores,
        path=row.path,
        title=row.title,
        heading=row.heading,
        page=row.page,
        line_start=row.line_start,
        line_end=row.line_end,
        char_start=row.start,
        char_end=row.end,
        chunk_id=row.chunk_id,
        text=row.text,
        metadata={key: value for key, value in row.metadata.items() if key != BESIDE},
    )

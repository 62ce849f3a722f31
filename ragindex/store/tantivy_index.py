"""A TextIndex on tantivy: BM25 over a chunk's words, with the words of its title, headings and path as a lighter
side.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import zlib
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tantivy

from ragindex.store.analysis import ANALYSER_VERSION, words
from ragindex.store.question import weighed_terms
from ragindex.store.rows import Float32Array, IdArray, Mark, TextEntry
from ragindex.store.text_index import bm25_ceiling, rarity
from ragindex.store.vector_index import Scored, best, inside
from ragindex.store.word_order import order_gains

__all__ = ["TantivyIndex", "shared_analyser"]

_ANALYSER = f"ragindex{ANALYSER_VERSION}"
_BODY, _CONTEXT, _PATH = "body", "context", "path"
# Relative to the body; measured on twelve evaluation sets. More helps where titles say what the text does not, and
# hurts elsewhere.
_WEIGHTS = ((_BODY, 1.0), (_CONTEXT, 0.65), (_PATH, 0.2))
_MARKER = 0  # the id of the document that holds the mark; chunk ids start at 1
_HEAP_BYTES = 64 << 20
_MOST_PARTS = 1024  # of a query, a word in a field each; a pasted book chapter must not stall the search
_LISTED = 2  # results that are read in the time that it takes to make one number part of the query
_BLOCK = 3  # bits: chunks whose ids differ in these alone make a block; a document's chunks follow each other
_SLACK = 16  # results beyond k, so that a tie at the end is decided by id
_SUMMED = frozenset(
    {".fast", ".fieldnorm", ".idx", ".pos", ".store", ".term"}
)  # .del files carry it too but come and go
_KNOWN_TEXTS = 1_024  # whose terms are remembered: similar queries read the same ones
_EMPTY = Scored(np.empty(0, np.int64), np.empty(0, np.float32))


class TantivyIndex:
    """An index on disk (`path`, a directory) or, with None, in memory.

    Readers in other threads and processes keep their view until they `reload`. One writer at a time: the caller holds
    the lease. Opening raises what tantivy raises (ValueError, OSError) for a directory that is no index of this
    version.
    """

    def __init__(self, path: Path | None = None, *, create: bool = True) -> None:
        if path is not None and create:
            path.mkdir(parents=True, exist_ok=True)
        if path is not None and not create and not (path.is_dir() and tantivy.Index.exists(str(path))):
            raise FileNotFoundError(path)
        self._path = path
        self._schema = _schema()
        self._index = tantivy.Index(self._schema, None if path is None else str(path))
        self._analyser = word_analyser()
        self._index.register_tokenizer(_ANALYSER, self._analyser)
        self._index.config_reader(reload_policy="manual")
        self._index.reload()

    def add(self, entries: Sequence[TextEntry]) -> None:
        """Put chunks; one whose id is present is replaced."""
        self.apply(np.empty(0, np.int64), [entries], None)

    def remove(self, ids: IdArray) -> None:
        """Forget ids; unknown ones are ignored."""
        self.apply(ids, [], None)

    def apply(self, removed: IdArray, added: Iterable[Sequence[TextEntry]], mark: Mark | None) -> None:
        """Remove, put and set the mark (None: keep it) in one commit: all of it or nothing is on disk."""
        state = mark or self.mark() or Mark()
        writer = self._index.writer(heap_size=_HEAP_BYTES, num_threads=1)
        # By query: deletion by term takes a Python integer for a signed one and then matches nothing.
        writer.delete_documents_by_query(self._among([_MARKER, *removed.tolist()]))
        fresh = len(self) == 0
        for entries in added:
            if not fresh:
                writer.delete_documents_by_query(self._among([entry.chunk_id for entry in entries]))
            for entry in entries:
                writer.add_document(_document(entry))
        writer.add_document(_marker(state))
        writer.commit()
        writer.wait_merging_threads()
        self._index.reload()

    def reload(self) -> None:
        """See what was committed since."""
        self._index.reload()

    def mark(self) -> Mark | None:
        """The mark of the last commit; None when there is none of this analyser's version."""
        searcher = self._index.searcher()
        found = searcher.search(self._is(_MARKER), limit=1, count=False).hits
        if not found:
            return None
        state: dict[str, Any] = json.loads(searcher.doc(found[0][1])["state"][0])
        if state.get("analyser") != ANALYSER_VERSION:
            return None
        return Mark(int(state["generation"]), int(state["token"]))

    def search(self, query: str, k: int, allowed: IdArray | None = None, *, excluded: IdArray | None = None) -> Scored:
        """The k best chunks that share a word with `query` among `allowed` (ascending ids; None: all) and not
        `excluded`.
        """
        searcher = self._index.searcher()
        asked = self._query(searcher, query)
        if asked is None or k <= 0 or (allowed is not None and len(allowed) == 0):
            return _EMPTY
        # The k-th of the allowed is to be expected at this depth of the whole ranking.
        depth = k if allowed is None else int(2 * k * max(1.0, searcher.num_docs / len(allowed)))
        return _Search(searcher, self._schema, asked, k, allowed, excluded).deepened(depth)

    def ceiling(self, query: str) -> float:
        """What a chunk would score that held every word of `query` without end; 0 for no words."""
        searcher = self._index.searcher()
        terms = weighed_terms(query, self._analyser.analyze)
        holders = {term: max(searcher.doc_freq(field, term) for field, _ in _WEIGHTS) for term in terms}
        return bm25_ceiling(terms, holders, int(searcher.num_docs))

    def order_gains(self, query: str, texts: Sequence[str]) -> Float32Array:
        """What each text (n,) gains, on the scale of `search`, by holding words of `query` in the same order."""
        searcher = self._index.searcher()
        counts = weighed_terms(query, self._analyser.analyze)
        worth = {
            term: min(1.0, count) * rarity(searcher.doc_freq(_BODY, term), int(searcher.num_docs))
            for term, count in counts.items()
        }
        return order_gains(_terms(query), map(_terms, texts), worth, count=len(texts))

    def __len__(self) -> int:
        searcher = self._index.searcher()
        marked = bool(searcher.search(self._is(_MARKER), limit=1, count=False).hits)
        return int(searcher.num_docs) - marked

    def count(self, ids: IdArray) -> int:
        """How many of the ids the index holds."""
        return len(self._index.searcher().search(self._among(ids.tolist()), limit=max(len(ids), 1), count=False).hits)

    @staticmethod
    def damaged_files(path: Path) -> list[str]:
        """The names of committed files in `path` whose bytes contradict the checksum that tantivy wrote at their end.

        To be asked before opening: tantivy panics over a truncated file and reads past a flipped bit without a word.
        Raises OSError, ValueError, KeyError or TypeError when `path` holds no index.
        """
        segments = json.loads((path / "meta.json").read_bytes())["segments"]
        # Only files of committed segments: a writer's unfinished ones have no checksum yet.
        committed = {segment["segment_id"].replace("-", "") for segment in segments}
        damaged = []
        for file in sorted(path.iterdir()):
            if file.suffix in _SUMMED and file.stem in committed:
                # A merge by another process may take a file away at any moment.
                with contextlib.suppress(FileNotFoundError):
                    if not _is_sound(file):
                        damaged.append(file.name)
        return damaged

    def _is(self, chunk_id: int) -> Any:
        return tantivy.Query.term_query(self._schema, "id", chunk_id, index_option="basic")

    def _among(self, chunk_ids: list[int]) -> Any:
        return tantivy.Query.term_set_query(self._schema, "id", chunk_ids)

    def _query(self, searcher: Any, text: str) -> Any:
        counts = weighed_terms(text, self._analyser.analyze)
        known = [
            (searcher.doc_freq(field, term), order, _Part(field, term, weight * count))
            for order, (term, count) in enumerate(counts.items())
            for field, weight in _WEIGHTS
        ]
        # The rarest words say most.
        kept = sorted(item for item in known if item[0])[:_MOST_PARTS]
        parts = [(tantivy.Occur.Should, part.query(self._schema)) for _, _, part in kept]
        return tantivy.Query.boolean_query(parts) if parts else None


class _Part(NamedTuple):
    field: str
    term: str
    boost: float

    def query(self, schema: Any) -> Any:
        term = tantivy.Query.term_query(schema, self.field, self.term, index_option="freq")
        return tantivy.Query.boost_query(term, self.boost)


class _Within(NamedTuple):
    """Numbers of a field, one of which every allowed chunk has; `chunks` of all have one."""

    field: str
    numbers: IdArray
    chunks: int

    def narrowed(self, query: Any, schema: Any) -> Any:
        """The query where no other chunks are looked at; scores stay what they are."""
        among = tantivy.Query.term_set_query(schema, self.field, self.numbers.tolist())
        silent = tantivy.Query.const_score_query(among, 0.0)
        return tantivy.Query.boolean_query([(tantivy.Occur.Must, query), (tantivy.Occur.Must, silent)])


class _Search(NamedTuple):
    """A query for the k best among the allowed ids (ascending; None: all) without the excluded ones."""

    searcher: Any
    schema: Any
    query: Any
    k: int
    allowed: IdArray | None
    excluded: IdArray | None

    def deepened(self, depth: int, *, narrowed: bool = False) -> Scored:
        """Take `depth` results and ever more until k allowed ones are found whose last is not tied with the first one
        left out.

        What is allowed may lie at the very end of the ranking: where going on would cost more than to narrow the query
        to it, the query is narrowed.
        """
        limit = depth + _SLACK
        while True:
            within = None if narrowed or self.allowed is None else _within(self.allowed, int(limit / _LISTED))
            if within is not None and self.allowed is not None:
                query = within.narrowed(self.query, self.schema)
                depth = math.ceil(self.k * within.chunks / len(self.allowed))
                return self._replace(query=query).deepened(depth, narrowed=True)
            found = self.searcher.search(self.query, limit=limit, count=False).hits
            scores = np.array([score for score, _ in found], np.float32)
            ids = np.array(self.searcher.fast_field_values("id", [address for _, address in found]), np.int64)
            exhausted = len(found) < limit
            kept = self._mask(ids)
            result = best(ids[kept], scores[kept], self.k)
            if exhausted or (len(result.ids) == self.k and scores[-1] < result.scores[-1] - 1e-5):
                return result
            limit *= 4

    def _mask(self, ids: IdArray) -> npt.NDArray[np.bool_]:
        kept = np.ones(len(ids), bool) if self.allowed is None else inside(self.allowed, ids)
        return kept if self.excluded is None else kept & ~np.isin(ids, self.excluded)


def _within(allowed: IdArray, most: int) -> _Within | None:
    """What is allowed in at most so many numbers; None where it takes more. Blocks where they are much fewer than ids:
    a list is paid for by its length.
    """
    if len(allowed) >> _BLOCK > most:
        return None
    blocks = allowed >> _BLOCK
    blocks = blocks[np.diff(blocks, prepend=-1) > 0]
    if 2 * len(blocks) > len(allowed):
        return _Within("id", allowed, len(allowed)) if len(allowed) <= most else None
    return _Within("block", blocks, len(blocks) << _BLOCK) if len(blocks) <= most else None


def _is_sound(file: Path) -> bool:
    """Check the footer: the body, a JSON object with its CRC-32, the length of that JSON, and a magic number."""
    try:
        with (
            file.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as data,
            data[:-8] as front,
        ):
            length = int.from_bytes(data[-8:-4], "little")
            footer = json.loads(bytes(front[len(front) - length :]))
            with front[: len(front) - length] as body:
                return int(footer["crc"]) == zlib.crc32(body)
    except (ValueError, KeyError, TypeError):
        return False


def _schema() -> Any:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("id", indexed=True, fast=True)
    builder.add_unsigned_field("block", indexed=True)
    builder.add_text_field("state", stored=True, tokenizer_name="raw", index_option="basic")
    for field, _ in _WEIGHTS:
        builder.add_text_field(field, tokenizer_name=_ANALYSER, index_option="freq")
    return builder.build()


@lru_cache(maxsize=_KNOWN_TEXTS)
def _terms(text: str) -> tuple[str, ...]:
    """The terms of a text, as `body` holds them, in order."""
    return tuple(shared_analyser().analyze(" ".join(words(text))))


@cache
def shared_analyser() -> Any:
    """The analyser of all texts of this process that no index is asked about."""
    return word_analyser()


def word_analyser() -> Any:
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace())
    return builder.filter(tantivy.Filter.stopword("english")).filter(tantivy.Filter.stemmer("english")).build()


def _document(entry: TextEntry) -> Any:
    document = tantivy.Document()
    document.add_unsigned("id", entry.chunk_id)
    document.add_unsigned("block", entry.chunk_id >> _BLOCK)
    document.add_text(_BODY, " ".join(words(entry.text)))
    document.add_text(_CONTEXT, " ".join(words("\n".join((entry.title, *entry.heading)))))
    document.add_text(_PATH, " ".join(words(entry.path)))
    return document


def _marker(mark: Mark) -> Any:
    state = {"generation": mark.generation, "token": mark.token, "analyser": ANALYSER_VERSION}
    document = tantivy.Document()
    document.add_unsigned("id", _MARKER)
    document.add_text("state", json.dumps(state))
    return document

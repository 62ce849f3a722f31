"""Why a passage is not among the hits: follows it from the folder to the ranking and says where it was lost, and
the fix.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ragindex.loaders import ignored_reason, supported
from ragindex.search.engine import Engine, Ranking, Request
from ragindex.store.catalog import Catalog
from ragindex.store.rows import ChunkRow, IdArray
from ragindex.types import WhyNot

__all__ = ["Expectation", "explain_absence"]


@dataclass(frozen=True, slots=True)
class Expectation:
    """The passage that was expected. `name` is the document's identity, `file` where it should lie (None: it is
    indexed and no file); line None: anywhere in it.
    """

    name: str
    file: Path | None
    line: int | None = None
    roots: Sequence[Path] = ()
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()


def explain_absence(
    engine: Engine, catalog: Catalog, collection: int, request: Request, expected: Expectation
) -> WhyNot:
    """Follow the passage through walking, reading, indexing, filtering, retrieval and folding."""
    rows = catalog.chunks_of(collection, expected.name)
    if not rows:
        return _not_indexed(catalog, collection, expected)
    chosen = [row for row in rows if _holds(row, expected.line)]
    if not chosen:
        return WhyNot(
            expected.name,
            "not indexed",
            f"{expected.name} is indexed, but line {expected.line} holds no text of it "
            f"(its lines {rows[0].line_start} to {max(row.line_end for row in rows)} do).",
            "Name a line that holds text, or index again if the file has changed.",
        )
    stale = _stale(catalog, collection, expected)
    if stale is not None:
        return stale
    allowed = catalog.allowed(collection, request.filter)
    if allowed is not None and not np.isin([row.chunk_id for row in chosen], allowed).any():
        return WhyNot(
            expected.name,
            "filtered",
            "The filter excludes this document.",
            f"Loosen the filter; the document's fields are {_fields(chosen[0])}.",
            chunk_id=chosen[0].chunk_id,
        )
    return _ranked(engine, catalog, collection, request, expected, chosen)


def _not_indexed(catalog: Catalog, collection: int, expected: Expectation) -> WhyNot:
    if expected.file is None:
        return WhyNot(expected.name, "not indexed", "The document holds no text.", "Check that it is the one you mean.")
    command = f"ragindex index {shlex.quote(str(expected.file))}"
    for failure in catalog.failures(collection):
        if failure.path == expected.name:
            return WhyNot(
                expected.name,
                "failed",
                f"The file could not be read: {failure.reason}.",
                "Mend or convert the file; it is tried again when it changes.",
            )
    if not expected.file.exists():
        return WhyNot(expected.name, "missing", "There is no such file.", "Check the path.")
    root = next((root for root in expected.roots if expected.file.is_relative_to(root)), None)
    if root is None:
        return WhyNot(expected.name, "not indexed", "No indexed folder contains this file.", f"Run `{command}`.")
    reason = ignored_reason(root, expected.file, include=expected.include, exclude=expected.exclude)
    if reason is not None:
        return WhyNot(
            expected.name,
            "ignored",
            f"The walk skips it: {reason}.",
            f"Change the rule, or name the file: `{command}`.",
        )
    if not expected.file.is_dir() and not supported(expected.file):
        return WhyNot(
            expected.name,
            "unsupported",
            f"Files of type {expected.file.suffix or expected.file.name!r} are not read.",
            "Convert it to a supported format, such as .txt, .md or .pdf.",
        )
    if any(row.path == expected.name for row in catalog.documents(collection, expected.name)):
        return WhyNot(expected.name, "not indexed", "The file holds no text.", "Check that it is the file you mean.")
    return WhyNot(expected.name, "not indexed", "It was not there at the last index run.", f"Run `{command}`.")


def _stale(catalog: Catalog, collection: int, expected: Expectation) -> WhyNot | None:
    if expected.file is None:
        return None
    state = catalog.file_states(collection, expected.name).get(expected.name)
    try:
        info = expected.file.stat()
    except OSError:
        return WhyNot(
            expected.name,
            "stale",
            "The file is in the index but not on disk any more.",
            "Index its folder again to bring the index up to date.",
        )
    if state is None or (info.st_size, info.st_mtime_ns) == (state.size, state.mtime_ns):
        return None
    return WhyNot(
        expected.name,
        "stale",
        "The file has changed since it was indexed.",
        f"Run `ragindex index {shlex.quote(str(expected.file))}`.",
    )


def _ranked(
    engine: Engine,
    catalog: Catalog,
    collection: int,
    request: Request,
    expected: Expectation,
    chosen: Sequence[ChunkRow],
) -> WhyNot:
    wanted = np.array([row.chunk_id for row in chosen], dtype=np.int64)
    ranking = engine.rank(request, depth=max(1, catalog.counts(collection).chunks))
    ranks = _ranks(ranking, wanted)
    place = ranks.fused_rank
    verdict = replace(ranks, path=expected.name)
    for hit in engine.search(replace(request, explain=True)):
        folded = hit.explanation.merged if hit.explanation else ()
        if hit.chunk_id in wanted:
            return replace(verdict, stage="found", reason=f"It is hit {hit.rank}.", fix="Nothing to do.")
        if not wanted[np.isin(wanted, folded)].size:
            continue
        return replace(
            verdict,
            stage="merged",
            reason=f"It was folded into hit {hit.rank}, {hit.citation}, which says the same.",
            fix="Read that hit; the passages overlap or repeat each other.",
        )
    if place is None:
        reason = f"No retriever of mode {request.mode} returns it: it shares no word with the query."
        return replace(
            verdict, stage="outranked", reason=reason, fix="Use mode hybrid or dense, or words of the passage."
        )
    reason = f"It is at place {place} of {len(ranking.ids)}, behind the {request.k} hits shown."
    return replace(verdict, stage="outranked", reason=reason, fix=_advice(ranks, request))


def _advice(ranks: WhyNot, request: Request) -> str:
    single = {"lexical": ranks.lexical_rank, "dense": ranks.dense_rank}
    better = [mode for mode, rank in single.items() if rank is not None and rank <= request.k and mode != request.mode]
    if better:
        return f"Use --mode {better[0]}, which has it at place {single[better[0]]}, or ask for more hits with -k."
    return f"Ask for more hits (-k {ranks.fused_rank}), use words of the passage, or train the encoder on this text."


def _ranks(ranking: Ranking, wanted: IdArray) -> WhyNot:
    def first(ids: IdArray) -> int | None:
        places = np.flatnonzero(np.isin(ids, wanted))
        return int(places[0]) + 1 if len(places) else None

    place = first(ranking.ids)
    return WhyNot(
        path="",
        stage="",
        reason="",
        fix="",
        chunk_id=int(ranking.ids[place - 1]) if place is not None else int(wanted[0]),
        dense_rank=first(ranking.dense.ids),
        lexical_rank=first(ranking.lexical.ids),
        fused_rank=place,
    )


def _holds(row: ChunkRow, line: int | None) -> bool:
    return line is None or row.line_start <= line <= row.line_end


def _fields(row: ChunkRow) -> str:
    shown = {"path": row.path, **row.metadata}
    return ", ".join(f"{key}={value!r}" for key, value in shown.items() if value is not None)

"""Turns what the library returns into lines for people; knows nothing of options or streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragindex.cli.excerpt import excerpt, mark, query_terms
from ragindex.cli.terminal import Terminal, cells, one_line, shorten_left, wrap
from ragindex.types import Failure, Hit, IndexReport, Verification, WhyNot

if TYPE_CHECKING:
    from ragindex.search.context import Context

__all__ = [
    "context_json",
    "failure_lines",
    "field_lines",
    "hit_json",
    "hit_lines",
    "human_bytes",
    "human_seconds",
    "report_json",
    "report_lines",
    "verification_lines",
    "why_not_lines",
]

_LISTED_FAILURES = 20


def hit_json(hit: Hit, *, explain: bool = False) -> dict[str, Any]:
    """The object that `query --json` prints for a hit; with `explain` it has "explanation" and "flags" too."""
    value = {
        "rank": hit.rank,
        "score": hit.score,
        "scores": asdict(hit.scores),
        "path": hit.path,
        "title": hit.title,
        "heading": list(hit.heading),
        "page": hit.page,
        "line_start": hit.line_start,
        "line_end": hit.line_end,
        "char_start": hit.char_start,
        "char_end": hit.char_end,
        "chunk_id": hit.chunk_id,
        "text": hit.text,
        "metadata": dict(hit.metadata),
    }
    if explain:
        value["explanation"] = None if hit.explanation is None else asdict(hit.explanation)
        value["flags"] = list(_flags(hit))
    return value


def context_json(block: Context, *, tokens: int | None) -> dict[str, Any]:
    """What `query --context --json` adds: the block, and what stands in it."""
    passages = [
        {
            "numbers": list(passage.numbers),
            "citation": passage.hit.citation,
            "path": passage.hit.path,
            "char_start": passage.hit.char_start,
            "char_end": passage.hit.char_end,
            "cut": passage.cut,
            "flags": list(passage.flags),
        }
        for passage in block.passages
    ]
    counted = {"tokens": block.tokens, "limit": tokens, "tokenizer": block.tokenizer, "estimated": block.estimated}
    return {"context": block, "context_info": counted | {"passages": passages}}


def hit_lines(hit: Hit, *, query: str, base: Path, terminal: Terminal, rows: int = 4, indent: int = 4) -> list[str]:
    """A hit for people: rank, score and citation, the headings above it, the rows that answer best.

    The citation comes last in its line and is never cut: it must stay exact, and a long one may run over.
    """
    terms = query_terms(query) | frozenset(hit.explanation.terms if hit.explanation else ())
    margin, width = " " * indent, terminal.width - indent
    citation = terminal.link(terminal.bold(one_line(hit.citation)), base / hit.path)
    lines = [f"{hit.rank:>{indent - 2}}  {citation}  {terminal.dim(f'{hit.score:.3f}')}"]
    heading = " › ".join(filter(None, map(one_line, hit.heading))) or one_line(hit.title)
    if heading:
        lines.append(margin + terminal.dim(shorten_left(heading, width)))
    shown = excerpt(hit.text, terms, headings=(*hit.heading, hit.title), width=width - 2, rows=rows)
    for number, row in enumerate(shown.rows):
        text = mark(row, terms, before="\x1b[1m", after="\x1b[22m") if terminal.styled else row
        more = shown.after and number == len(shown.rows) - 1
        lines.append(margin + text + (terminal.dim(" …") if more else ""))
    if hit.explanation is not None:
        lines += _explanation_lines(hit, terminal, margin)
    return lines


def _explanation_lines(hit: Hit, terminal: Terminal, margin: str) -> list[str]:
    known = hit.explanation
    assert known is not None
    parts = [
        _retriever("dense", known.dense_rank, hit.scores.dense, "cosine"),
        _retriever("lexical", known.lexical_rank, hit.scores.lexical, "BM25"),
    ]
    if known.dense_weight is not None:
        parts.append(f"dense counts {known.dense_weight:.0%}")
    if known.terms:
        parts.append(f"words found: {', '.join(map(one_line, known.terms))}")
    if known.merged:
        parts.append(f"stands for {len(known.merged)} more that overlap or repeat it")
    if known.sentence and known.sentence != hit.text:
        parts.append(f"nearest sentence: {one_line(known.sentence)}")
    width = terminal.width - len(margin)
    rows = wrap("why: " + "; ".join(parts), width)
    if flags := _flags(hit):
        rows += wrap(f"caution: looks like text written for a model ({', '.join(flags)})", width)
    return [margin + terminal.dim(row) for row in rows]


def _flags(hit: Hit) -> tuple[str, ...]:
    from ragindex.search.suspicion import flag_kinds  # its many patterns are compiled when it is imported

    return flag_kinds(hit.text, hit.path, hit.title, *hit.heading)


def _retriever(name: str, rank: int | None, score: float | None, unit: str) -> str:
    if rank is None and score is None:
        return f"{name}: not among its candidates"
    figures = [f"#{rank}"] if rank is not None else []
    figures += [f"{unit} {score:.3f}"] if score is not None else []
    return f"{name} {', '.join(figures)}"


def report_json(report: IndexReport) -> dict[str, Any]:
    """The object that `index --json` prints."""
    value = asdict(report)
    value["failed"] = [asdict(failure) for failure in report.failed]
    value["seconds"] = round(report.seconds, 3)
    value["tokens_per_second"] = round(report.tokens_per_second, 1)
    return value


def report_lines(report: IndexReport, *, dry_run: bool = False) -> list[str]:
    """What an index run did, or with `dry_run` what it would do."""
    counts = {
        "added": report.added,
        "updated": report.updated,
        "moved": report.moved,
        "deleted": report.deleted,
        "unchanged": report.unchanged,
    }
    told = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    lines = [f"Documents: {told or 'none found'}." + (" Nothing was written (--dry-run)." if dry_run else "")]
    if report.chunks:
        lines.append(
            f"Chunks: {report.chunks:,}, of them {report.embedded_chunks:,} embedded, {report.reused_chunks:,} reused."
        )
    if report.tokens:
        speed = (
            f"{report.tokens:,} tokens in {human_seconds(report.seconds)} ({report.tokens_per_second:,.0f} a second)"
        )
        lines.append(f"Time: {speed}.")
    return lines


def failure_lines(failures: Sequence[Failure], *, limit: int | None = _LISTED_FAILURES) -> list[str]:
    """Files that could not be indexed with their reasons; at most `limit` of them, None for all."""
    if not failures:
        return []
    shown = failures[:limit]
    count = f"{len(failures):,} file{'s' if len(failures) > 1 else ''} could not be indexed:"
    lines = [count, *(f"  {one_line(failure.path)}: {one_line(failure.reason)}" for failure in shown)]
    if len(shown) < len(failures):
        lines.append(f"  … and {len(failures) - len(shown):,} more, see `ragindex failures`.")
    return lines


def verification_lines(found: Verification) -> list[str]:
    """The outcome of `verify` or `repair`."""
    counts = f"{found.documents:,} documents, {found.chunks:,} chunks, {found.vectors:,} vectors"
    if found.ok:
        return [f"{counts}: no problem found."]
    return [f"{counts}; problems: {len(found.problems):,}", *(f"  {one_line(problem)}" for problem in found.problems)]


def why_not_lines(answer: WhyNot, terminal: Terminal) -> list[str]:
    """Where an expected passage was lost and what to do about it."""
    ranks = {"dense": answer.dense_rank, "lexical": answer.lexical_rank, "fused": answer.fused_rank}
    lines = [f"{terminal.bold(one_line(answer.path))}: {answer.stage}", *wrap(one_line(answer.reason), terminal.width)]
    if any(rank is not None for rank in ranks.values()):
        told = (f"{name} {'not scored' if rank is None else f'#{rank:,}'}" for name, rank in ranks.items())
        lines.append(f"Ranks: {', '.join(told)}")
    return lines + (wrap(f"Fix: {one_line(answer.fix)}", terminal.width) if answer.fix else [])


def field_lines(fields: Mapping[str, Any], *, terminal: Terminal, indent: int = 0) -> list[str]:
    """Names and values in two columns; nested mappings are indented, sizes and counts written for people."""
    width = max((len(_label(name)) for name, value in fields.items() if not isinstance(value, Mapping)), default=0)
    lines: list[str] = []
    for name, value in fields.items():
        if isinstance(value, Mapping):
            lines += [" " * indent + _label(name), *field_lines(value, terminal=terminal, indent=indent + 2)]
            continue
        start = " " * indent + _label(name).ljust(width) + "  "
        lines += _hanging(start, _value(value), terminal.width)
    return lines


def human_bytes(size: float) -> str:
    """A size with a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def human_seconds(seconds: float) -> str:
    """A duration with one or two units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _label(name: str) -> str:
    return name.replace("_", " ")


def _value(value: Any) -> str:
    if value is None or value == "" or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return one_line(str(value))


def _hanging(start: str, text: str, width: int) -> list[str]:
    """`text` after `start`, further rows below it; a path or a digest is left whole, so that it can be copied."""
    if " " not in text or width - cells(start) < 20:
        return [start + text]
    rows = wrap(text, width - cells(start))
    return [start + rows[0], *(" " * cells(start) + row for row in rows[1:])]

"""`query` and `why-not`: what is asked of a store."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import click

from ragindex.cli import exit_codes
from ragindex.cli.options import (
    MODES,
    collection_option,
    filter_option,
    instruction_option,
    json_option,
    open_index,
)
from ragindex.cli.render import context_json, hit_json, hit_lines, why_not_lines
from ragindex.cli.terminal import emit, emit_json, neutral, note, terminal_for

if TYPE_CHECKING:
    from ragindex.index import Index
    from ragindex.types import Mode

__all__ = ["query", "why_not"]

_k_option = click.option("-k", type=click.IntRange(min=1), default=10, show_default=True, help="How many hits.")
_mode_option = click.option(
    "--mode", type=click.Choice(MODES), default="hybrid", show_default=True, help="Which retrievers answer."
)


@click.command(short_help="Find the passages that answer a question.")
@click.argument("words", metavar="TEXT...", nargs=-1)
@_k_option
@_mode_option
@instruction_option
@click.option(
    "--task", metavar="NAME", help="An instruction that the encoder knows by name; `encoder info` lists them."
)
@filter_option
@click.option(
    "--diversity",
    metavar="L",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="0 ranks by score alone; towards 1, hits differ more from each other.",
)
@click.option(
    "--context",
    "context_tokens",
    metavar="TOKENS",
    type=click.IntRange(min=1),
    help="Print a numbered, cited block of at most so many tokens, to paste into a prompt.",
)
@click.option(
    "--neighbours",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="With --context: show hits with N chunks before and after them, as far as the budget reaches.",
)
@click.option("--section", is_flag=True, help="With --context: show hits with their whole section where that fits.")
@click.option(
    "--tokenizer",
    metavar="FILE|DIR",
    help="With --context: count by this tokenizer.json instead of the encoder's; 'estimate' where you have none.",
)
@click.option("--explain", is_flag=True, help="Say for each hit how it came to its place.")
@collection_option
@json_option
@click.pass_context
def query(
    ctx: click.Context,
    *,
    words: tuple[str, ...],
    k: int,
    mode: str,
    instruction: str | None,
    task: str | None,
    filter_text: str | None,
    diversity: float,
    context_tokens: int | None,
    neighbours: int,
    section: bool,
    tokenizer: str | None,
    explain: bool,
    collection: str,
    as_json: bool,
) -> None:
    """Find the passages that answer TEXT; `-` reads it from standard input. Quotes around it are not needed.

    Exits with 1 when there is no hit.
    """
    text = _query_text(words)
    if context_tokens is None and (neighbours or section or tokenizer):
        raise click.UsageError("--neighbours, --section and --tokenizer shape the block of --context; add it.")
    with open_index(ctx, collection=collection) as index:
        hits = index.search(
            text,
            k=k,
            mode=cast("Mode", mode),
            instruction=instruction,
            filter=filter_text,
            diversity=diversity,
            explain=explain,
            task=task,
        )
        block = None
        if context_tokens is not None:
            block = index.context(
                hits, tokens=context_tokens, tokenizer=tokenizer, neighbours=neighbours, section=section
            )
        base = index.base
        if as_json:
            value: dict[str, Any] = {
                "query": text,
                "mode": mode,
                "instruction": _instruction(index, mode, instruction, task),
                "hits": [hit_json(hit, explain=explain) for hit in hits],
            }
            emit_json(value if block is None else value | context_json(block, tokens=context_tokens))
    if not as_json and hits:
        terminal = terminal_for(sys.stdout, os.environ)
        if block is not None:
            emit(neutral(block))
            if block.estimated:
                note("Tokens are estimated, rather too many than too few; --tokenizer FILE counts them.")
        else:
            blocks = ["\n".join(hit_lines(hit, query=text, base=base, terminal=terminal)) for hit in hits]
            emit("\n\n".join(blocks))
    if not hits:
        note("No hit.")
        ctx.exit(exit_codes.NO_HIT)


@click.command("why-not", short_help="Say why a passage is not among the hits, and the fix.")
@click.argument("words", metavar="QUERY...", nargs=-1)
@click.option(
    "--expect",
    metavar="PATH[:LINE]",
    required=True,
    help="The document, or a line of it, that should be a hit.",
)
@_k_option
@_mode_option
@instruction_option
@filter_option
@collection_option
@json_option
@click.pass_context
def why_not(
    ctx: click.Context,
    *,
    words: tuple[str, ...],
    expect: str,
    k: int,
    mode: str,
    instruction: str | None,
    filter_text: str | None,
    collection: str,
    as_json: bool,
) -> None:
    """Say why a passage is not among the hits of QUERY, and what would help."""
    text = _query_text(words)
    with open_index(ctx, collection=collection) as index:
        answer = index.why_not(text, expect, k=k, mode=cast("Mode", mode), instruction=instruction, filter=filter_text)
    if as_json:
        emit_json({"query": text, "expect": expect, **asdict(answer)})
    else:
        emit(why_not_lines(answer, terminal_for(sys.stdout, os.environ)))


def _instruction(index: Index, mode: str, given: str | None, task: str | None) -> str | None:
    """What the encoder was told; None where no encoder was asked."""
    if mode == "lexical":
        return None
    return index.instruction(task) if given is None else given


def _query_text(words: tuple[str, ...]) -> str:
    text = " ".join(words)
    if words == ("-",):
        text = sys.stdin.buffer.read().decode("utf-8", "replace")
    # Bytes of the command line that are no text come as lone surrogates, which no tokenizer takes.
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip()
    if not text:
        raise click.UsageError("The query is empty; say what to look for.")
    return text

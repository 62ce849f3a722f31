"""`encoder rollback`, and how a switch of encoders is told."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ragindex.cli import exit_codes
from ragindex.cli.options import debug_option, json_option, open_index, store_option
from ragindex.cli.progress import progress_bar
from ragindex.cli.render import human_seconds
from ragindex.cli.terminal import emit, emit_json, note_interrupt, one_line

if TYPE_CHECKING:
    from ragindex.index import Promotion

__all__ = ["promotion_json", "promotion_lines", "rollback"]


@click.command(short_help="Go back to the encoder that the store had before.")
@store_option
@debug_option
@json_option
@click.pass_context
def rollback(ctx: click.Context, *, as_json: bool) -> None:
    """Go back to the encoder that the store had before this one; a second time undoes the first.

    Its vectors are still there: only what was indexed since is embedded. `ragindex status` shows both encoders.
    """
    try:
        with open_index(ctx, collection="default") as index:
            result = index.rollback(note="ragindex encoder rollback", progress=progress_bar())
    except KeyboardInterrupt:
        note_interrupt("Interrupted; the store still has the encoder it had.")
        ctx.exit(exit_codes.INTERRUPTED)
    if as_json:
        emit_json(promotion_json(result))
    else:
        emit(promotion_lines(result))


def promotion_json(result: Promotion) -> dict[str, Any]:
    """The object that commands print for a switch of encoders."""
    value = asdict(result)
    value["embedded_chunks"] = value.pop("embedded")
    value["seconds"] = round(value.pop("seconds"), 3)
    return value


def promotion_lines(result: Promotion) -> list[str]:
    """A switch of encoders for people, with the way back."""
    work = "nothing had to be embedded"
    if result.embedded:
        chunks = "chunk was" if result.embedded == 1 else "chunks were"
        work = f"{result.embedded:,} {chunks} embedded anew in {human_seconds(result.seconds)}"
    lines = [f"The store now uses the encoder {_named(result.encoder, result.fingerprint)}; {work}."]
    if result.previous is not None and result.previous_fingerprint is not None:
        before = _named(result.previous, result.previous_fingerprint)
        lines.append(f"The one before is {before}; `ragindex encoder rollback` goes back to it.")
    return lines


def _named(name: str, fingerprint: str) -> str:
    return f"{one_line(name)} ({fingerprint[:8]})"

"""What the commands share that learn from plain text: where it is, what is trained, how a run is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ragindex.cli.options import locate, store_given
from ragindex.cli.terminal import emit, emit_json, note
from ragindex.errors import UsageError

if TYPE_CHECKING:
    from ragindex.train.data.texts import Texts
    from ragindex.train.session import Summary

__all__ = ["lora_options", "source_option", "sources", "text_option", "texts_from", "told"]

Function = TypeVar("Function", bound=Callable[..., Any])

source_option = click.option(
    "--encoder", metavar="DIR|HUB_ID", required=True, help="The decoder or encoder to start from."
)
text_option = click.option(
    "--text",
    "paths",
    metavar="PATH",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="A .jsonl file of records or pairs, a document, a folder of documents or a store; may be repeated.",
)


def lora_options(function: Function) -> Function:
    """--lora, --lora-alpha, --lora-dropout."""
    for option in (
        click.option(
            "--lora-dropout",
            type=click.FloatRange(min=0, max=1, max_open=True),
            default=0.05,
            show_default=True,
            help="Dropout before the adapter.",
        ),
        click.option(
            "--lora-alpha", type=click.IntRange(min=1), help="Scale of the adapter.  [default: twice its rank]"
        ),
        click.option(
            "--lora",
            metavar="RANK",
            type=click.IntRange(min=0),
            help="Train an adapter of this rank, 0: all weights.  [default: 16 above 100 million parameters, else 0]",
        ),
    ):
        function = option(function)
    return function


def sources(ctx: click.Context, paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """The paths of --text, or the store that --store names. Raises UsageError when neither is given."""
    if not paths and not store_given(ctx):
        raise UsageError("Say what to learn from: --text PATH (it may be repeated) or --store DIR.")
    return paths or (locate(ctx),)


def texts_from(paths: tuple[Path, ...], collection: str) -> Texts:
    """The texts of these sources; what cannot be read is named on stderr."""
    from ragindex.train.data.texts import read_texts

    return read_texts(
        paths, collection=collection, failed=lambda failure: note(f"Left out {failure.path}: {failure.reason}.")
    )


def told(summary: Summary, further: Mapping[str, Any], *, made: str, measure: str, as_json: bool) -> None:
    """Print how a run ended. made: "encoder" or "decoder"; measure: the one that a line of text has."""
    if as_json:
        emit_json(
            {
                made: str(summary.encoder),
                "steps": summary.steps,
                "seconds": summary.seconds,
                **further,
                "before": dict(summary.before),
                "after": dict(summary.after),
            }
        )
        return
    before, after = summary.before.get(measure), summary.after.get(measure)
    change = "" if before is None or after is None else f", {measure.replace('_', ' ')} {before:.4f} → {after:.4f}"
    emit(f"{summary.encoder}: {summary.steps} steps{change}")

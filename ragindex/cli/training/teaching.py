"""`train vectors`: a teacher's vectors of crops of text, for the commands that learn them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from ragindex.cli.options import debug_option, json_option, store_option
from ragindex.cli.progress import progress_bar
from ragindex.cli.terminal import emit, emit_json
from ragindex.cli.training import require_extra
from ragindex.ingest.progress import Silent

__all__ = ["SHARD", "command", "make_vectors"]

SHARD = 4096  # texts
_FILE = click.Path(exists=True, path_type=Path)
_EXAMPLE = """\b
ragindex train vectors --teacher MINILM --text notes.jsonl.gz \\
    --shards 50 --output cache
ragindex train distill --vectors cache --minutes 60 --output student
"""


@click.command("vectors", epilog=_EXAMPLE, short_help="Encode crops of text with a teacher, to learn its vectors.")
@click.option("--teacher", metavar="NAME|DIR|HUB_ID", required=True, help="The encoder whose vectors are wanted.")
@click.option(
    "--text", "texts", metavar="FILE", type=_FILE, multiple=True, required=True, help="Record files; may be repeated."
)
@click.option("--shards", type=click.IntRange(min=1), required=True, help="How many shards of 4,096 texts to have.")
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the shards; those it has are kept.",
)
@click.option("--seed", type=int, default=7, show_default=True, help="Seed of what is drawn.")
@store_option
@debug_option
@json_option
def command(*, teacher: str, texts: tuple[Path, ...], shards: int, output: Path, seed: int, as_json: bool) -> None:
    """Draw passages, sentences and short phrases from record files, and keep the teacher's vectors of them in shards.
    A run that was stopped goes on.
    """
    require_extra()
    make_vectors(teacher, texts, output, shards=shards, seed=seed)
    if as_json:
        emit_json({"vectors": str(output), "shards": shards, "texts": shards * SHARD})
    else:
        emit(f"{output}: {shards * SHARD:,} texts in {shards} shards")


def make_vectors(teacher: str, texts: Sequence[Path], output: Path, *, shards: int, seed: int) -> None:
    """Make the shards that are missing, with a progress bar. Of several processes one does it."""
    from ragindex.train.processes import in_turn
    from ragindex.train.teacher import make_shards

    bar = progress_bar("Encoding ", unit="shards") or Silent()
    bar.start(shards)
    try:
        in_turn(
            lambda: make_shards(
                teacher,
                texts,
                output,
                shards=shards,
                seed=seed,
                size=SHARD,
                advance=lambda count: bar.advance(files=count),
            )
        )
    finally:
        bar.finish()

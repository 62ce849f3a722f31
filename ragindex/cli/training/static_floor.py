"""`train static`: a static encoder from a teacher's vectors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ragindex.cli.options import debug_option, json_option, store_option
from ragindex.cli.terminal import emit, emit_json, note
from ragindex.cli.training import require_extra
from ragindex.cli.training.options import output_option

if TYPE_CHECKING:
    from ragindex.encoder.checkpoint import Pooling
    from ragindex.train.static_init import Stage

__all__ = ["command"]

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


_EXAMPLE = """\b
ragindex train vectors --teacher MINILM --text notes.jsonl.gz \\
    --shards 50 --output cache
ragindex train static --teacher MINILM --vectors cache --output floor
"""


@click.command(
    "static", epilog=_EXAMPLE, short_help="Make a static encoder, to start from, out of a teacher's vectors."
)
@click.option("--teacher", metavar="DIR", type=_FOLDER, required=True, help="Directory of the teacher (MiniLM-like).")
@click.option("--vectors", metavar="DIR", type=_FOLDER, required=True, help="Its vectors, made by `train vectors`.")
@output_option
@click.option(
    "--pairs",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Record files to contrast; may be repeated.",
)
@click.option("--layers", type=click.IntRange(min=0), default=4, show_default=True, help="Layers of the decoder.")
@click.option("--hidden", type=click.IntRange(min=8), default=256, show_default=True, help="Width of the decoder.")
@click.option(
    "--words",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Give so many words that the teacher's tokenizer cuts a token each.",
)
@click.option(
    "--saturation",
    metavar="K",
    type=click.FloatRange(min=0, min_open=True),
    help="Let repeated tokens count less, as in BM25.",
)
@click.option(
    "--lead",
    metavar="N",
    type=click.FloatRange(min=0, min_open=True),
    help="Let later tokens count less: 1 / sqrt(1 + place / N).",
)
@click.option(
    "--pooling",
    type=click.Choice(["mean", "mean-query"]),
    default="mean",
    show_default=True,
    help="How tokens are pooled.",
)
@click.option("--epochs", type=click.IntRange(min=0), default=1, show_default=True, help="Epochs of refinement.")
@click.option("--steps", type=click.IntRange(min=1), default=300, show_default=True, help="Steps on the pairs.")
@click.option("--trust", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Weight beside BM25.")
@click.option("--seed", type=int, default=7, show_default=True, help="Seed of everything random.")
@store_option
@debug_option
@json_option
def command(
    *,
    teacher: Path,
    vectors: Path,
    output: Path,
    pairs: tuple[Path, ...],
    layers: int,
    hidden: int,
    pooling: Pooling,
    words: int,
    saturation: float | None,
    lead: float | None,
    epochs: int,
    steps: int,
    trust: float,
    seed: int,
    as_json: bool,
) -> None:
    """Make a decoder that, as it stands, is a good bag of tokens: rows, weights and head from a teacher's vectors."""
    require_extra()
    from ragindex.encoder.checkpoint import Counting
    from ragindex.train.static_init import Shape, StaticOptions, make_static

    shape = Shape(hidden=hidden, layers=layers, pooling=pooling, counting=Counting(saturation, lead))
    options = StaticOptions(shape, words=words, epochs=epochs, steps=steps, trust=trust, seed=seed)
    stages = make_static(teacher, vectors, output, pairs=pairs, options=options, done=_shown)
    if as_json:
        emit_json({"encoder": str(output), "stages": [asdict(stage) for stage in stages]})
    else:
        emit(f"{output}: held-out cosine {stages[-1].held_out_cosine:.4f}")


def _shown(stage: Stage) -> None:
    note(f"{stage.step}: held-out cosine {stage.held_out_cosine:.4f}")

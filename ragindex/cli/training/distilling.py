"""`train distill`: an encoder learns another's vectors."""

from __future__ import annotations

from pathlib import Path

import click

from ragindex.cli.options import debug_option, json_option, store_option
from ragindex.cli.terminal import emit, emit_json
from ragindex.cli.training import require_extra
from ragindex.cli.training.options import ProgressBar, encoder_option, length_options, output_option, require_length

__all__ = ["command"]

_FILE = click.Path(exists=True, path_type=Path)


@click.command("distill", short_help="Learn a teacher's vectors of texts.")
@encoder_option
@output_option
@click.option("--teacher", metavar="DIR", type=_FILE, help="The teacher, to make the vectors that are missing.")
@click.option("--text", "texts", metavar="FILE", type=_FILE, multiple=True, help="Record files; may be repeated.")
@click.option(
    "--vectors",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Where the teacher's vectors are kept.",
)
@click.option("--shards", type=click.IntRange(min=1), help="How many shards of 4,096 texts the teacher shall encode.")
@length_options
@click.option("--tokens", type=int, default=8192, show_default=True, help="Padded tokens in a batch.")
@click.option("--similarity", type=float, default=0.0, show_default=True, help="Weight of the similarity-matrix term.")
@click.option("--matryoshka", default="", metavar="N,N", help="Shorter lengths to train beside the whole one.")
@store_option
@debug_option
@json_option
def command(
    *,
    encoder: str,
    output: Path,
    teacher: Path | None,
    texts: tuple[Path, ...],
    vectors: Path,
    shards: int | None,
    steps: int | None,
    minutes: float | None,
    rate: float | None,
    seed: int,
    tokens: int,
    similarity: float,
    matryoshka: str,
    as_json: bool,
) -> None:
    """Train an encoder against a teacher's vectors of crops of text, which are made once and kept in --vectors.

    \b
    ragindex train distill --teacher MINILM --text notes.jsonl.gz --vectors cache --shards 50 \\
        --output student --minutes 60
    """
    require_extra()
    require_length(steps, minutes)
    from ragindex.errors import UsageError
    from ragindex.train.distill import DistillOptions, VectorDistillation, read_corpus
    from ragindex.train.loop import LoopSettings
    from ragindex.train.model import TrainableEncoder
    from ragindex.train.session import Plan, run_objective
    from ragindex.train.teacher import make_shards

    if shards is not None:
        if teacher is None or not texts:
            raise UsageError("To make teacher vectors give --teacher DIR and --text FILE.")
        make_shards(teacher, texts, vectors, shards=shards, seed=seed)
    try:
        lengths = tuple(int(part) for part in matryoshka.split(",") if part)
    except ValueError as error:
        raise UsageError(f"--matryoshka is {matryoshka!r}; give numbers such as 64,128,256.") from error
    options = DistillOptions(tokens=tokens, similarity=similarity, matryoshka=lengths, seed=seed)
    model = TrainableEncoder.open(encoder)
    plan = Plan(
        command="distill",
        output=output,
        settings=LoopSettings(steps=steps, minutes=minutes, rate=rate or 1e-3, seed=seed),
        options={"encoder": encoder, "tokens": tokens, "similarity": similarity, "matryoshka": list(lengths)},
        data={"vectors": [vectors]},
    )
    objective = VectorDistillation(model, read_corpus(vectors, model), options)
    summary = run_objective(objective, model, plan, reporter=ProgressBar())
    if as_json:
        emit_json(
            {
                "encoder": str(summary.encoder),
                "steps": summary.steps,
                "seconds": summary.seconds,
                "before": dict(summary.before),
                "after": dict(summary.after),
            }
        )
    else:
        emit(
            f"{summary.encoder}: {summary.steps} steps, held-out cosine {summary.before['held_out_cosine']:.4f} → "
            f"{summary.after['held_out_cosine']:.4f}"
        )

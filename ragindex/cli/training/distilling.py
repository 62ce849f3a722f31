"""`train distill`: an encoder learns another's vectors, or its scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ragindex.cli.options import debug_option, json_option, store_option
from ragindex.cli.training.contrast_options import matryoshka_from, matryoshka_option
from ragindex.cli.training.language import told
from ragindex.cli.training.launching import ParallelCommand, footprint_from, parallel_options
from ragindex.cli.training.options import (
    ProgressBar,
    encoder_option,
    length_options,
    licence_option,
    licences_from,
    output_option,
    recorded,
    require_length,
)
from ragindex.cli.training.teaching import make_vectors
from ragindex.errors import UsageError

if TYPE_CHECKING:
    from ragindex.train.distill import VectorDistillation
    from ragindex.train.model import TrainableEncoder
    from ragindex.train.score_distill import ScoreDistillation

__all__ = ["command"]

_FILE = click.Path(exists=True, path_type=Path)
_OF_VECTORS = ("teacher", "texts", "vectors", "shards")
_EXAMPLE = """\b
ragindex train distill --teacher MINILM --text notes.jsonl.gz \\
    --vectors cache --shards 50 --output student --minutes 60
ragindex train distill --examples scored.jsonl --output student --steps 500
"""


@click.command(
    "distill",
    cls=ParallelCommand,
    epilog=_EXAMPLE,
    short_help="Learn a teacher's vectors of texts, or its scores of answers.",
)
@encoder_option
@output_option
@click.option("--teacher", metavar="NAME|DIR|HUB_ID", help="The teacher, to make the vectors that are missing.")
@click.option("--text", "texts", metavar="FILE", type=_FILE, multiple=True, help="Record files; may be repeated.")
@click.option(
    "--vectors",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the teacher's vectors are kept.",
)
@click.option("--shards", type=click.IntRange(min=1), help="How many shards of 4,096 texts the teacher shall encode.")
@click.option(
    "--examples",
    metavar="FILE",
    type=_FILE,
    multiple=True,
    help="Scored examples (`train mine --scores`), in place of vectors; may be repeated.",
)
@click.option(
    "--loss",
    type=click.Choice(["cosine", "margin-mse", "listwise-kl"]),
    help="cosine is for vectors, the others for scores.  [default: cosine, or listwise-kl]",
)
@length_options
@click.option("--tokens", type=click.IntRange(min=8), default=8192, show_default=True, help="Padded tokens at a time.")
@click.option(
    "--similarity",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Weight of the similarity-matrix term.",
)
@click.option(
    "--settled",
    metavar="SHARE",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="Learning rate of token rows, token weights and head, of the layers': below 1 where they are good.",
)
@matryoshka_option
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True, help="Examples in a step.")
@click.option("--negatives", type=click.IntRange(min=1), default=8, show_default=True, help="Of an example, at most.")
@click.option("--scale", type=float, default=1.0, show_default=True, help="Of cosines, to the range of the scores.")
@click.option(
    "--student-temperature",
    type=click.FloatRange(min=0, min_open=True),
    default=0.05,
    show_default=True,
    help="Of the student's softmax over a list.",
)
@click.option(
    "--teacher-temperature",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Of the teacher's.",
)
@click.option("--query-tokens", type=click.IntRange(min=4), default=64, show_default=True, help="Queries are cut here.")
@click.option(
    "--document-tokens", type=click.IntRange(min=4), default=256, show_default=True, help="Documents are cut here."
)
@licence_option
@parallel_options
@store_option
@debug_option
@json_option
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Train an encoder against a teacher: its vectors of crops of text, made once and kept in --vectors, or its scores
    of the documents of queries, which --examples hold.
    """
    require_length(given["steps"], given["minutes"])
    _check(given)
    from ragindex.train.model import TrainableEncoder
    from ragindex.train.schedule import LoopSettings
    from ragindex.train.session import Plan, run_objective

    if given["shards"] is not None:
        make_vectors(given["teacher"], given["texts"], given["vectors"], shards=given["shards"], seed=given["seed"])
    model = TrainableEncoder.open(given["encoder"])
    by_vectors = bool(given["vectors"])
    objective = _of_vectors(given, model) if by_vectors else _of_scores(given, model)
    plan = Plan(
        command="distill",
        output=given["output"],
        settings=LoopSettings(
            steps=given["steps"],
            minutes=given["minutes"],
            rate=given["rate"] or (1e-3 if by_vectors else 1e-4),
            seed=given["seed"],
        ),
        options=recorded(ctx, without=("examples", "licences", *_OF_VECTORS)),
        data={"vectors": [given["vectors"]]} if by_vectors else {"examples": given["examples"]},
        licences=licences_from(given["licences"]),
        footprint=footprint_from(ctx),
    )
    summary = run_objective(objective, model, plan, reporter=ProgressBar())
    measure = "held_out_cosine" if by_vectors else "held_out_agreement"
    told(summary, {}, made="encoder", measure=measure, as_json=given["as_json"])


def _check(given: dict[str, Any]) -> None:
    if bool(given["vectors"]) == bool(given["examples"]):
        raise UsageError("Say what to learn: a teacher's vectors (--vectors DIR) or its scores (--examples FILE).")
    mixed = next((name for name in _OF_VECTORS if given["examples"] and given[name]), None)
    if mixed is not None:
        raise UsageError(f"--{mixed.rstrip('s') if mixed == 'texts' else mixed} belongs to --vectors, not --examples.")
    if given["loss"] is not None and (given["loss"] == "cosine") != bool(given["vectors"]):
        raise UsageError("--loss cosine is for --vectors, margin-mse and listwise-kl are for --examples.")
    if given["examples"] and (given["similarity"] or given["matryoshka"] or given["settled"] != 1):
        raise UsageError("--similarity, --settled and --matryoshka belong to --vectors.")
    if given["shards"] is not None and (given["teacher"] is None or not given["texts"]):
        raise UsageError("To make teacher vectors give --teacher NAME and --text FILE.")


def _of_vectors(given: dict[str, Any], model: TrainableEncoder) -> VectorDistillation:
    from ragindex.train.distill import DistillOptions, VectorDistillation, read_corpus

    lengths = matryoshka_from(given["matryoshka"], model.dimensions)
    options = DistillOptions(
        tokens=given["tokens"],
        similarity=given["similarity"],
        matryoshka=lengths.dimensions if lengths else (),
        settled=given["settled"],
        seed=given["seed"],
    )
    return VectorDistillation(model, read_corpus(given["vectors"], model), options)


def _of_scores(given: dict[str, Any], model: TrainableEncoder) -> ScoreDistillation:
    from ragindex.train.contrast_batch import Limits
    from ragindex.train.data.examples import read_examples
    from ragindex.train.score_distill import ScoreDistillation, ScoreOptions

    options = ScoreOptions(
        loss=given["loss"] or "listwise-kl",
        batch=given["batch"],
        chunk=given["tokens"],
        limits=Limits(given["query_tokens"], given["document_tokens"], given["negatives"]),
        scale=given["scale"],
        student_temperature=given["student_temperature"],
        teacher_temperature=given["teacher_temperature"],
        seed=given["seed"],
    )
    return ScoreDistillation(model, [example for file in given["examples"] for example in read_examples(file)], options)

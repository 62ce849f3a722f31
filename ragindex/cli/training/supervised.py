"""`train contrastive`: an encoder learns which texts answer which queries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ragindex.cli.options import debug_option, json_option, store_option
from ragindex.cli.terminal import note
from ragindex.cli.training.contrast_options import loss_from, loss_options, matryoshka_from, matryoshka_option
from ragindex.cli.training.language import lora_options, told
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
from ragindex.errors import UsageError

if TYPE_CHECKING:
    from ragindex.train.contrastive import ContrastiveOptions
    from ragindex.train.supervision import Supervision

__all__ = ["command"]


_EXAMPLE = """\b
ragindex train mine pairs.jsonl --output mined.jsonl
ragindex train contrastive mined.jsonl --output better --steps 500
"""


@click.command(
    "contrastive",
    cls=ParallelCommand,
    epilog=_EXAMPLE,
    short_help="Learn from queries and their answers, with or without negatives.",
)
@click.argument(
    "examples", metavar="EXAMPLES...", type=click.Path(exists=True, path_type=Path), nargs=-1, required=True
)
@output_option
@encoder_option
@click.option("--batch", type=click.IntRange(min=2), default=64, show_default=True, help="Examples in a step.")
@click.option("--chunk", type=click.IntRange(min=8), default=8192, show_default=True, help="Tokens held at a time.")
@click.option("--negatives", type=click.IntRange(min=0), default=4, show_default=True, help="Of an example, at most.")
@click.option("--query-tokens", type=click.IntRange(min=4), default=64, show_default=True, help="Queries are cut here.")
@click.option(
    "--document-tokens", type=click.IntRange(min=4), default=256, show_default=True, help="Documents are cut here."
)
@click.option("--instruction", metavar="TEXT", help="For all queries, in place of the examples' own; '' for none.")
@loss_options
@click.option("--learn-temperature", is_flag=True, help="Train a temperature for each source (RzenEmbed).")
@click.option(
    "--hard-negatives-after",
    metavar="SHARE",
    type=click.FloatRange(min=0, max=1),
    default=1.0,
    show_default=True,
    help="Of the run, after which there are no in-batch negatives any more (NV-Embed's second stage).",
)
@matryoshka_option
@click.option("--guide", metavar="NAME|DIR|HUB_ID", help="An encoder that sees through false negatives (GISTEmbed).")
@click.option("--teacher", metavar="NAME|DIR|HUB_ID", help="An encoder whose vectors shall be kept or learnt.")
@click.option(
    "--teacher-weight",
    type=click.FloatRange(min=0),
    help="Of the distance to the teacher.  [default: 1 with --teacher]",
)
@click.option(
    "--spread",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    metavar="W",
    help="Weight of the term that spreads vectors out.",
)
@click.option(
    "--balance",
    type=click.FloatRange(min=0, max=1),
    default=1.0,
    show_default=True,
    help="Sources take part by their size to the power of this.",
)
@click.option(
    "--evaluation",
    "evaluations",
    metavar="DATASET_DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True,
    help="A judged data set: examples that hold one of its queries are refused; may be repeated.",
)
@click.option(
    "--held-out",
    metavar="SHARE",
    type=click.FloatRange(min=0, max=0.5),
    default=0.05,
    show_default=True,
    help="Of the examples, to measure on (1000 at most).",
)
@lora_options
@length_options
@licence_option
@parallel_options
@store_option
@debug_option
@json_option
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> None:
    """Train an encoder on EXAMPLES: .jsonl files of pairs or triples, BEIR folders, or folders of such.

    A step holds examples of one source and no text twice; what is too large for memory goes through cached gradients.
    """
    require_length(given["steps"], given["minutes"])
    if given["teacher"] is None and given["teacher_weight"] is not None:
        raise UsageError("--teacher-weight belongs to --teacher.")
    from ragindex.encoder import Encoder
    from ragindex.train.contrastive import ContrastiveTraining
    from ragindex.train.schedule import LoopSettings
    from ragindex.train.session import Plan, run_objective

    data = _supervision(given)
    model = _student(given)
    loaded = {name: None if given[name] is None else Encoder.load(given[name]) for name in ("teacher", "guide")}
    objective = ContrastiveTraining(
        model,
        data.learnt,
        _options(given, model.dimensions),
        held_out=data.held_out,
        teacher=loaded["teacher"],
        guide=loaded["guide"],
    )
    plan = Plan(
        command="contrastive",
        output=given["output"],
        settings=LoopSettings(
            steps=given["steps"],
            minutes=given["minutes"],
            rate=given["rate"] or (2e-4 if model.lora else 1e-4),
            warmup=0.1,
            seed=given["seed"],
        ),
        options=recorded(ctx, without=("examples", "evaluations", "licences")),
        data={"examples": given["examples"]},
        licences=licences_from(given["licences"]),
        footprint=footprint_from(ctx),
    )
    note(f"{len(data.learnt):,} examples of {data.sources} to learn from, {len(data.held_out):,} to measure on.")
    summary = run_objective(objective, model, plan, reporter=ProgressBar())
    further = {"examples": len(data.learnt), "held_out": len(data.held_out)}
    told(summary, further, made="encoder", measure="held_out_mrr", as_json=given["as_json"])


def _supervision(given: dict[str, Any]) -> Supervision:
    from ragindex.train.supervision import read_supervision

    return read_supervision(
        given["examples"],
        guarded=given["evaluations"],
        held_out=given["held_out"],
        instruction=given["instruction"],
        seed=given["seed"],
    )


def _student(given: dict[str, Any]) -> Any:
    import torch

    from ragindex.encoder.resolve import find_checkpoint
    from ragindex.train.model import TrainableEncoder
    from ragindex.train.tuning import tuning

    found = find_checkpoint(given["encoder"])
    lora = tuning(found, rank=given["lora"], alpha=given["lora_alpha"], dropout=given["lora_dropout"])
    torch.manual_seed(given["seed"])  # new weights, such as an adapter's, are random
    return TrainableEncoder.open(given["encoder"], lora=lora)


def _options(given: dict[str, Any], dimensions: int) -> ContrastiveOptions:
    from ragindex.train.contrastive import ContrastiveOptions

    weight = 1.0 if given["teacher_weight"] is None else given["teacher_weight"]
    return ContrastiveOptions(
        batch=given["batch"],
        chunk=given["chunk"],
        negatives=given["negatives"],
        query_tokens=given["query_tokens"],
        document_tokens=given["document_tokens"],
        loss=loss_from(given, guided=given["guide"] is not None),
        learn_temperature=given["learn_temperature"],
        matryoshka=matryoshka_from(given["matryoshka"], dimensions),
        teacher_weight=weight,
        spread=given["spread"],
        hard_negatives_after=given["hard_negatives_after"],
        balance=given["balance"],
        seed=given["seed"],
    )

"""`train simcse`: an encoder learns from sentences alone."""

from __future__ import annotations

from pathlib import Path

import click

from ragindex.cli.options import collection_option, json_option
from ragindex.cli.terminal import note
from ragindex.cli.training.language import lora_options, source_option, sources, text_option, texts_from, told
from ragindex.cli.training.launching import ParallelCommand, footprint_from, parallel_options
from ragindex.cli.training.options import ProgressBar, length_options, output_option, require_length

__all__ = ["command"]


_EXAMPLE = """\b
ragindex train simcse --encoder out --text notes/ --output better --steps 1000
"""


@click.command(
    "simcse",
    cls=ParallelCommand,
    epilog=_EXAMPLE,
    short_help="Learn from sentences alone, each its own positive (SimCSE).",
)
@source_option
@text_option
@output_option
@click.option("--batch", type=click.IntRange(min=2), default=128, show_default=True, help="Sentences in a step.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0, min_open=True),
    default=0.05,
    show_default=True,
    help="Of the softmax over a batch.",
)
@click.option(
    "--dropout",
    type=click.FloatRange(min=0, max=1, max_open=True),
    default=0.3,
    show_default=True,
    help="Of the attention: what tells the two views of a sentence apart.",
)
@click.option("--max-tokens", type=click.IntRange(min=8), default=128, show_default=True, help="Of a sentence.")
@click.option("--chunk", type=click.IntRange(min=8), default=8192, show_default=True, help="Tokens at a time.")
@click.option(
    "--sts",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Pairs to measure on: score, sentence, sentence, with tabs between.",
)
@lora_options
@length_options
@parallel_options
@collection_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    encoder: str,
    paths: tuple[Path, ...],
    output: Path,
    batch: int,
    temperature: float,
    dropout: float,
    max_tokens: int,
    chunk: int,
    sts: Path | None,
    lora: int | None,
    lora_alpha: int | None,
    lora_dropout: float,
    steps: int | None,
    minutes: float | None,
    rate: float | None,
    seed: int,
    collection: str,
    as_json: bool,
) -> None:
    """Pull together two views of a sentence, which differ by dropout, and push all other sentences away.

    The sentences are those of the text, each once.
    """
    require_length(steps, minutes)
    paths = sources(ctx, paths)
    from ragindex.encoder.resolve import find_checkpoint
    from ragindex.evaluation.sts import load_sts
    from ragindex.train.model import TrainableEncoder
    from ragindex.train.schedule import LoopSettings
    from ragindex.train.session import Plan, run_objective
    from ragindex.train.simcse import SimCseOptions, SimCseTraining, text_sentences
    from ragindex.train.tuning import tuning

    pairs = None if sts is None else load_sts(sts)
    tuned = tuning(find_checkpoint(encoder), rank=lora, alpha=lora_alpha, dropout=lora_dropout, seed=seed)
    texts = texts_from(paths, collection)
    sentences = text_sentences(texts)
    note(f"{len(sentences):,} sentences from {len(texts):,} texts.")
    model = TrainableEncoder.open(encoder, lora=tuned, dropout=dropout)
    options = SimCseOptions(batch=batch, chunk=chunk, max_tokens=max_tokens, temperature=temperature, seed=seed)
    names = ("encoder", "batch", "temperature", "dropout", "max_tokens", "chunk", "lora", "lora_alpha", "lora_dropout")
    plan = Plan(
        command="simcse",
        output=output,
        settings=LoopSettings(steps=steps, minutes=minutes, rate=rate or 3e-5, seed=seed),
        options={name: ctx.params[name] for name in names},
        data={"text": paths},
        fingerprints={"text": texts.fingerprint},
        footprint=footprint_from(ctx),
    )
    objective = SimCseTraining(model, sentences, options, sts=pairs)
    summary = run_objective(objective, model, plan, reporter=ProgressBar())
    measure = "held_out_uniformity" if sts is None else "sts_spearman"
    told(summary, {"sentences": len(sentences)}, made="encoder", measure=measure, as_json=as_json)

"""`train mntp`: a decoder becomes an encoder that reads both ways."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ragindex.cli.options import collection_option, json_option
from ragindex.cli.training.language import lora_options, source_option, sources, text_option, texts_from, told
from ragindex.cli.training.launching import ParallelCommand, footprint_from, parallel_options
from ragindex.cli.training.options import ProgressBar, length_options, output_option, require_length
from ragindex.errors import UsageError

if TYPE_CHECKING:
    from ragindex.train.blocks import Layout
    from ragindex.train.mntp import MaskToken, Scheme

__all__ = ["command"]


_EXAMPLE = """\b
ragindex train mntp --encoder decoder --text notes/ --output out --steps 1000
"""


@click.command(
    "mntp",
    cls=ParallelCommand,
    epilog=_EXAMPLE,
    short_help="Teach a decoder to read both ways (masked next-token prediction).",
)
@source_option
@text_option
@output_option
@click.option("--mask-rate", type=float, default=0.2, show_default=True, help="Share of the tokens that are hidden.")
@click.option(
    "--scheme",
    type=click.Choice(["bert", "all"]),
    default="bert",
    show_default=True,
    help="Masks for 80 % of the hidden tokens, other tokens for 10 %, or masks for all.",
)
@click.option(
    "--mask-token",
    type=click.Choice(["blank", "eos", "mask"]),
    help="What hides a token: an underscore, the end of a text, or a token <mask>.  [default: the tokenizer's own, or "
    "an underscore]",
)
@click.option(
    "--layout",
    type=click.Choice(["packed", "apart"]),
    default="packed",
    show_default=True,
    help="All texts in one row of blocks, or each text by itself.",
)
@click.option("--block", type=click.IntRange(min=8), help="Tokens read at once.  [default: 256, or what is read]")
@click.option("--tokens", type=click.IntRange(min=8), default=8192, show_default=True, help="Tokens in a step.")
@click.option("--chunk", type=click.IntRange(min=8), default=8192, show_default=True, help="Of those at a time.")
@click.option("--held-out", type=click.IntRange(min=1), default=128, show_default=True, help="Blocks to measure on.")
@lora_options
@click.option("--adapter", is_flag=True, help="Also keep the adapter, in OUTPUT/adapter, as LLM2Vec publishes its own.")
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
    mask_rate: float,
    scheme: Scheme,
    mask_token: MaskToken | None,
    layout: Layout,
    block: int | None,
    tokens: int,
    chunk: int,
    held_out: int,
    lora: int | None,
    lora_alpha: int | None,
    lora_dropout: float,
    adapter: bool,
    steps: int | None,
    minutes: float | None,
    rate: float | None,
    seed: int,
    collection: str,
    as_json: bool,
) -> None:
    """Let a decoder attend both ways, and train it to predict hidden tokens from what stands on both sides.

    The result is an encoder with mean pooling; `train simcse` or `train contrastive` makes it a good one. A head that
    is not the embedding table is kept beside it, so that mntp can go on.
    """
    require_length(steps, minutes)
    paths = sources(ctx, paths)
    from ragindex.encoder.resolve import find_checkpoint
    from ragindex.train.language import LanguageModel
    from ragindex.train.mntp import MaskedEncoder, MaskedOptions, masked_training
    from ragindex.train.prediction import PredictionOptions
    from ragindex.train.schedule import LoopSettings
    from ragindex.train.session import Plan, run_objective
    from ragindex.train.tuning import tuning

    found = find_checkpoint(encoder)
    tuned = tuning(found, rank=lora, alpha=lora_alpha, dropout=lora_dropout, seed=seed)
    if adapter and tuned is None:
        raise UsageError("--adapter needs --lora RANK: otherwise all weights are trained, and there is no adapter.")
    texts = texts_from(paths, collection)
    model = LanguageModel.open(encoder, attention="bidirectional")
    options = MaskedOptions(
        block=block or min(256, found.config.max_tokens),
        layout=layout,
        mask=mask_token,
        rate=mask_rate,
        scheme=scheme,
        held_out=held_out,
        lora=tuned,
        steps=PredictionOptions(tokens=tokens, chunk=min(chunk, tokens), seed=seed),
    )
    objective = masked_training(model, texts, options)
    names = ("encoder", "mask_rate", "scheme", "mask_token", "layout", "block", "tokens", "chunk", "held_out", "lora")
    plan = Plan(
        command="mntp",
        output=output,
        settings=LoopSettings(steps=steps, minutes=minutes, rate=rate or (5e-4 if tuned is None else 5e-5), seed=seed),
        options={name: ctx.params[name] for name in (*names, "lora_alpha", "lora_dropout")},
        data={"text": paths},
        fingerprints={"text": texts.fingerprint},
        footprint=footprint_from(ctx),
    )
    product = MaskedEncoder(model, output, with_adapter=adapter)
    summary = run_objective(objective, product, plan, reporter=ProgressBar())
    told(summary, {}, made="encoder", measure="held_out_accuracy", as_json=as_json)

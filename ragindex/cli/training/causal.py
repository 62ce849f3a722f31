"""`train clm`: a small decoder of one's own, from nothing or further on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from ragindex.cli.options import collection_option, json_option
from ragindex.cli.terminal import note
from ragindex.cli.training.language import sources, text_option, texts_from, told
from ragindex.cli.training.launching import ParallelCommand, footprint_from, parallel_options
from ragindex.cli.training.options import ProgressBar, length_options, output_option, require_length
from ragindex.errors import UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from ragindex.train.clm import Architecture
    from ragindex.train.data.texts import Texts
    from ragindex.train.language import LanguageModel
    from ragindex.train.vocabulary import Algorithm, VocabularyOptions

__all__ = ["command"]

_SIZES = ("nano", "tiny", "small", "medium", "base")  # ragindex.train.clm.SIZES, which would bring torch along
_NEW = ("tokenizer", "vocabulary", "algorithm", "lowercase", "size", "layers", "hidden", "heads", "intermediate")


_EXAMPLE = """\b
ragindex train clm --text notes/ --size small --output decoder --minutes 60
"""


@click.command("clm", cls=ParallelCommand, epilog=_EXAMPLE, short_help="Pre-train a small decoder on text.")
@text_option
@output_option
@click.option(
    "--from",
    "origin",
    metavar="DIR|HUB_ID",
    help="Go on with this decoder instead of making a new one.",
)
@click.option("--size", type=click.Choice(_SIZES), help="How large the new decoder is.  [default: tiny]")
@click.option("--layers", type=click.IntRange(min=1), help="In place of the size's.")
@click.option("--hidden", type=click.IntRange(min=2), help="Length of a state, in place of the size's.")
@click.option(
    "--heads", type=click.IntRange(min=1), help="Heads of the attention.  [default: one for each 64 of hidden]"
)
@click.option("--intermediate", type=click.IntRange(min=1), help="Width of the MLP.  [default: 8/3 of hidden]")
@click.option(
    "--tokenizer",
    metavar="DIR|FILE",
    type=click.Path(exists=True, path_type=Path),
    help="A tokenizer.json to use; by default one is made from the text.",
)
@click.option("--vocabulary", type=click.IntRange(min=300), help="Tokens of the new tokenizer.  [default: 16000]")
@click.option(
    "--algorithm", type=click.Choice(["bpe", "wordpiece", "unigram"]), help="Of the new tokenizer.  [default: bpe]"
)
@click.option("--lowercase", is_flag=True, help="The new tokenizer reads all letters as small ones.")
@click.option("--block", type=click.IntRange(min=8), default=256, show_default=True, help="Tokens read at once.")
@click.option("--tokens", type=click.IntRange(min=8), default=8192, show_default=True, help="Tokens in a step.")
@click.option("--chunk", type=click.IntRange(min=8), default=8192, show_default=True, help="Of those at a time.")
@click.option("--held-out", type=click.IntRange(min=1), default=128, show_default=True, help="Blocks to measure on.")
@length_options
@parallel_options
@collection_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    *,
    paths: tuple[Path, ...],
    output: Path,
    origin: str | None,
    size: str | None,
    layers: int | None,
    hidden: int | None,
    heads: int | None,
    intermediate: int | None,
    tokenizer: Path | None,
    vocabulary: int | None,
    algorithm: str | None,
    lowercase: bool,
    block: int,
    tokens: int,
    chunk: int,
    held_out: int,
    steps: int | None,
    minutes: float | None,
    rate: float | None,
    seed: int,
    collection: str,
    as_json: bool,
) -> None:
    """Train a decoder to predict the next token of text, packed into blocks; its tokenizer is made from the text.

    The result is a plain decoder that transformers reads; `train mntp` makes an encoder of it.
    """
    require_length(steps, minutes)
    paths = sources(ctx, paths)
    given = [f"--{name}" for name in _NEW if ctx.params.get(name)]
    if origin is not None and given:
        raise UsageError(f"{given[0]} is for a new decoder; the one given with --from stays as it is.")
    if tokenizer is not None and (vocabulary or algorithm or lowercase):
        raise UsageError("--vocabulary, --algorithm and --lowercase are for a tokenizer that is made; one was given.")
    from ragindex.train.clm import CausalOptions, TrainedDecoder, causal_training, fresh_decoder
    from ragindex.train.language import LanguageModel
    from ragindex.train.prediction import PredictionOptions
    from ragindex.train.schedule import LoopSettings
    from ragindex.train.session import Plan, run_objective
    from ragindex.train.vocabulary import VocabularyOptions

    texts = texts_from(paths, collection)
    if origin is not None:
        model = LanguageModel.open(origin)
    else:
        architecture = _architecture(size or "tiny", layers, hidden, heads, intermediate)
        options = VocabularyOptions(vocabulary or 16_000, cast("Algorithm", algorithm or "bpe"), lowercase)
        words = _tokenizer(texts, tokenizer or output / "run" / "tokenizer.json", options)
        model = fresh_decoder(architecture, words, positions=block, seed=seed)
    note(f"{len(texts):,} texts, {_size(model):,} parameters, a vocabulary of {model.rows:,}.")
    each_step = PredictionOptions(tokens=tokens, chunk=min(chunk, tokens), seed=seed)
    objective = causal_training(model, texts, CausalOptions(block=block, held_out=held_out, steps=each_step))
    names = ("origin", *_NEW, "block", "tokens", "chunk", "held_out")
    plan = Plan(
        command="clm",
        output=output,
        settings=LoopSettings(steps=steps, minutes=minutes, rate=rate or 1e-3, seed=seed),
        options={name.replace("origin", "from"): _plain(ctx.params[name]) for name in names},
        data={"text": paths},
        fingerprints={"text": texts.fingerprint},
        kept={"tokenizer.json": model.serialised},
        footprint=footprint_from(ctx),
    )
    summary = run_objective(objective, TrainedDecoder(model), plan, reporter=ProgressBar())
    further = {"parameters": _size(model), "vocabulary": model.rows}
    told(summary, further, made="decoder", measure="held_out_perplexity", as_json=as_json)


def _architecture(
    size: str, layers: int | None, hidden: int | None, heads: int | None, intermediate: int | None
) -> Architecture:
    """That of the size, with what was given in its place; heads follow a new length of states."""
    from ragindex.train.clm import SIZES

    known = SIZES[size]
    if hidden is not None and heads is None:
        heads = max(1, hidden // 64)
    return replace(
        known,
        layers=layers or known.layers,
        hidden=hidden or known.hidden,
        heads=heads or known.heads,
        intermediate=intermediate,
    )


def _tokenizer(texts: Texts, file: Path, options: VocabularyOptions) -> Tokenizer:
    """The one given, that of the run which is to go on, or a new one: another would be trained a second time."""
    from tokenizers import Tokenizer

    from ragindex.train.processes import from_main
    from ragindex.train.vocabulary import read_tokenizer, train_tokenizer

    if file.exists():
        return read_tokenizer(file)
    note(f"Making a tokenizer from {len(texts):,} texts.")
    return Tokenizer.from_str(from_main(lambda: train_tokenizer(texts, options).to_str().encode()).decode())


def _size(model: LanguageModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value

"""`encoder export`: an encoder copied to a folder of its own, with other settings where they are asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ragindex.cli.options import debug_option, json_option, store_option
from ragindex.cli.terminal import emit, emit_json

if TYPE_CHECKING:
    from ragindex.encoder import Prompts, RopeScaling
    from ragindex.encoder.checkpoint import Attention, Pooling

__all__ = ["ATTENTIONS", "POOLINGS", "STYLES", "export"]

# As in `ragindex.encoder`, which takes too long to import for a help page.
ATTENTIONS = ("bidirectional", "causal")
POOLINGS = (
    "mean",
    "weighted-mean",
    "last",
    "generalised-mean",
    "latent-attention",
    "multi-layer",
    "attention-set",
    "mean-query",
)
STYLES = ("plain", "llm2vec", "e5", "e5-instruct", "qwen3", "icl", "embeddinggemma")


@click.command(short_help="Copy an encoder to a folder, with other settings if you like.")
@click.argument("name", metavar="NAME")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--adapter", "adapters", multiple=True, metavar="DIR", help="Merge a LoRA adapter; may be repeated.")
@click.option("--attention", type=click.Choice(ATTENTIONS), help="Which way tokens read.")
@click.option("--dimensions", type=click.IntRange(min=1), metavar="N", help="Cut the vectors to their first N values.")
@click.option("--instruction", metavar="TEXT", help="Put before queries that come without one; '' for none.")
@click.option("--lead", type=float, metavar="N", help="Later tokens count less: 1 / sqrt(1 + place / N).")
@click.option("--max-tokens", type=click.IntRange(min=8), metavar="N", help="Longest text, in tokens, prompt included.")
@click.option(
    "--pooling", type=click.Choice(POOLINGS), metavar="KIND", help=f"How tokens are pooled: {', '.join(POOLINGS)}."
)
@click.option("--prompt-style", type=click.Choice(STYLES), metavar="STYLE", help=f"Templates: {', '.join(STYLES)}.")
@click.option(
    "--rope-scaling", metavar="[METHOD:]FACTOR", help="Longer texts, by ntk (the default) or linear, as in ntk:4."
)
@click.option("--saturation", type=float, metavar="K", help="Repeated tokens count less, as in BM25.")
@click.option("--temperature", type=float, metavar="T", help="Divide the attention logits; below 1 is sharper.")
@store_option
@debug_option
@json_option
def export(
    *,
    name: str,
    directory: Path,
    adapters: tuple[str, ...],
    attention: Attention | None,
    dimensions: int | None,
    instruction: str | None,
    max_tokens: int | None,
    pooling: Pooling | None,
    prompt_style: str | None,
    rope_scaling: str | None,
    saturation: float | None,
    lead: float | None,
    temperature: float | None,
    as_json: bool,
) -> None:
    """Copy an encoder to the folder DIR, which must be empty or not there yet.

    NAME is `bundled`, a folder or a hub id: an encoder, a plain decoder model, an LLM2Vec adapter or a
    sentence-transformers model. The copy is a sentence-transformers model too, where that knows its way of
    pooling. Other settings than NAME's own are stored with it; how its weights do with them is for
    `ragindex eval --encoder DIR` to say.
    """
    from ragindex.encoder import Encoder

    loaded = Encoder.load(
        name,
        adapters=adapters,
        attention=attention,
        pooling=pooling,
        prompts=_prompts(name, adapters, prompt_style, instruction),
        max_tokens=max_tokens,
        temperature=temperature,
        saturation=saturation,
        lead=lead,
        rope_scaling=_scaling(rope_scaling),
        dimensions=dimensions,
    )
    loaded.save(directory)
    copy = Encoder.load(directory)
    if as_json:
        emit_json(
            {
                "name": name,
                "directory": str(directory),
                "fingerprint": copy.fingerprint,
                "dimensions": copy.dimensions,
                "max_tokens": copy.max_tokens,
            }
        )
    else:
        emit(f"Saved to {directory}; use it with `ragindex index PATH --encoder {directory}`.")


def _prompts(name: str, adapters: tuple[str, ...], style: str | None, instruction: str | None) -> Prompts | None:
    """The templates of a style or, without one, of the encoder itself, with another default instruction."""
    from ragindex.encoder import PROMPT_STYLES, find_checkpoint

    if style is None and instruction is None:
        return None
    prompts = PROMPT_STYLES[style] if style else find_checkpoint(name, adapters=adapters).config.prompts
    if instruction is None or instruction == prompts.instruction:
        return prompts
    return replace(prompts, instruction=instruction, examples=())  # they were examples of the other one


def _scaling(text: str | None) -> RopeScaling | None:
    from ragindex.encoder import RopeScaling
    from ragindex.errors import EncoderError

    if text is None:
        return None
    method, _, factor = text.rpartition(":")
    try:
        if method in ("", "ntk"):
            return RopeScaling(float(factor))
        if method == "linear":
            return RopeScaling(float(factor), "linear")
    except (ValueError, EncoderError):
        pass
    raise click.BadParameter(f"{text!r} is neither a factor of 1 or more nor ntk:FACTOR or linear:FACTOR.")

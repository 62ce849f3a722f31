"""Options of the contrastive loss, and the value they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from ragindex.errors import UsageError

if TYPE_CHECKING:
    from ragindex.train.losses import InfoNCE, Matryoshka

__all__ = ["loss_from", "loss_options", "matryoshka_from", "matryoshka_option"]

Function = TypeVar("Function", bound=Callable[..., Any])

_SHARE = click.FloatRange(min=0)

matryoshka_option = click.option(
    "--matryoshka", default="", metavar="N,N,…", help="Lengths that shall work when cut, beside the whole one."
)

_OPTIONS = (
    click.option(
        "--temperature",
        type=click.FloatRange(min=0, min_open=True),
        default=0.05,
        show_default=True,
        help="Of the softmax.",
    ),
    click.option(
        "--directions",
        default="q-d",
        show_default=True,
        metavar="D,D,…",
        help="What is contrasted: q-d, and some of d-q, q-q, d-d.",
    ),
    click.option(
        "--partition",
        type=click.Choice(["joint", "separate"]),
        default="joint",
        show_default=True,
        help="All directions in one softmax (GTE), or the mean of one each.",
    ),
    click.option("--no-in-batch", is_flag=True, help="Contrast with an example's own negatives only (Nemotron)."),
    click.option(
        "--false-negative-margin",
        type=float,
        help="Leave out what scores above the positive by more than this (Qwen3: 0.1).",
    ),
    click.option("--near-positive", type=float, help="Leave out what is this near the positive (RzenEmbed: 0.95)."),
    click.option("--guide-margin", type=float, help="How far below the positive --guide must see a negative."),
    click.option(
        "--guide-relative", is_flag=True, help="--guide-margin is a share of the guide's score of the positive."
    ),
    click.option("--hardness", type=_SHARE, metavar="A", help="Weigh negatives by e^(A cosine) (LLaVE: 9)."),
    click.option(
        "--harden",
        type=click.Choice(["in-batch", "explicit", "all"]),
        default="all",
        show_default=True,
        help="Which negatives --hardness weighs.",
    ),
    click.option(
        "--focal",
        type=_SHARE,
        default=0.0,
        show_default=True,
        metavar="G",
        help="Weigh examples by (1 - p)^G (KaLM: 0.5).",
    ),
    click.option(
        "--mix-pairs",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        metavar="N",
        help="Negatives made of two of an example's own (KaLM).",
    ),
    click.option(
        "--mix-list",
        type=click.FloatRange(min=0, min_open=True),
        metavar="T",
        help="One more made of all of them, by a softmax of this temperature.",
    ),
)


def loss_options(function: Function) -> Function:
    """The options of `InfoNCE`, for `loss_from`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def loss_from(given: Mapping[str, Any], *, guided: bool) -> InfoNCE:
    """The loss that the options ask for. given: a command's parameters; guided: whether there is a guide."""
    from ragindex.train.losses import Direction, GuideMargin, Hardness, InfoNCE, Mixing

    if not guided and (given["guide_margin"] is not None or given["guide_relative"]):
        raise UsageError("--guide-margin and --guide-relative belong to --guide.")
    guide = GuideMargin(given["guide_margin"] or 0.0, "relative" if given["guide_relative"] else "absolute")
    mixes = given["mix_pairs"] or given["mix_list"] is not None
    return InfoNCE(
        temperature=given["temperature"],
        directions=cast("tuple[Direction, ...]", tuple(part.strip() for part in given["directions"].split(","))),
        partition=given["partition"],
        in_batch=not given["no_in_batch"],
        false_negative_margin=given["false_negative_margin"],
        near_positive=given["near_positive"],
        guide=guide if guided else None,
        hardness=None if given["hardness"] is None else Hardness(given["hardness"], given["harden"]),
        focal=given["focal"],
        mixing=Mixing(pairs=given["mix_pairs"], list_temperature=given["mix_list"]) if mixes else None,
    )


def matryoshka_from(text: str, dimensions: int) -> Matryoshka | None:
    """The lengths of --matryoshka with the whole one, `dimensions`; None when none are given."""
    from ragindex.train.losses import Matryoshka

    try:
        lengths = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise UsageError(f"--matryoshka is {text!r}; give numbers such as 64,128,256.") from error
    longest = max(lengths, default=0)
    if longest > dimensions:
        raise UsageError(f"--matryoshka asks for {longest} values, and the encoder's vectors have {dimensions}.")
    return Matryoshka((dimensions, *(length for length in lengths if length != dimensions))) if lengths else None

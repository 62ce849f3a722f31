"""--processes, --fsdp, --gradient-checkpointing: a training command that starts itself several times, and the memory
that each of them takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ragindex.cli.terminal import note
from ragindex.cli.training import require_extra

if TYPE_CHECKING:
    from ragindex.train.sharding import Footprint

__all__ = ["ParallelCommand", "footprint_from", "parallel_options"]

Function = TypeVar("Function", bound=Callable[..., Any])

_ARGUMENTS, _PROCESSES = "ragindex.train.arguments", "ragindex.train.processes"
_SHARDED, _RECOMPUTED = "ragindex.train.sharded", "ragindex.train.recomputed"


def _remembered(key: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def remember(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        ctx.meta[key] = value

    return remember


def parallel_options(function: Function) -> Function:
    """--processes, --fsdp and --gradient-checkpointing, for a `ParallelCommand`. They decide nothing of the result
    that a run would have to remember, so they are no parameters of the command.
    """
    for option in (
        click.option(
            "--gradient-checkpointing",
            is_flag=True,
            expose_value=False,
            callback=_remembered(_RECOMPUTED),
            help="Compute layers a second time instead of keeping what they computed: less memory, a third more time.",
        ),
        click.option(
            "--fsdp",
            is_flag=True,
            expose_value=False,
            callback=_remembered(_SHARDED),
            help="Spread the decoder over the processes (FSDP2): each holds a part of its weights, gradients and "
            "optimiser state.",
        ),
        click.option(
            "--processes",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            expose_value=False,
            callback=_remembered(_PROCESSES),
            help="Train in so many processes, one a GPU; a step takes a batch from each.",
        ),
    ):
        function = option(function)
    return function


def footprint_from(ctx: click.Context) -> Footprint:
    """The memory that the options of a `ParallelCommand` allow for."""
    from ragindex.train.sharding import Footprint

    return Footprint(
        weights="sharded" if ctx.meta[_SHARDED] else "whole",
        activations="recomputed" if ctx.meta[_RECOMPUTED] else "kept",
    )


class ParallelCommand(click.Command):
    """A command with `parallel_options`. With more than one, it runs itself in each and waits; under torchrun or
    `accelerate launch` it is one of several already.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remember the arguments as they were given."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, here or in several processes."""
        require_extra()
        from ragindex.train import processes

        if ctx.meta[_PROCESSES] > 1 and "WORLD_SIZE" not in os.environ:
            ending = processes.launch(["train", str(self.name), *ctx.meta[_ARGUMENTS]], processes=ctx.meta[_PROCESSES])
            if ending.message:
                note(ending.message)
            if ending.status:
                ctx.exit(ending.status)
            return None
        with processes.lost_peer():
            processes.join()
            return super().invoke(ctx)

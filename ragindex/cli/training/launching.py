"""--processes: a training command that starts itself several times."""

from __future__ import annotations

import os
from typing import Any

import click

from ragindex.cli.terminal import note
from ragindex.cli.training import require_extra

__all__ = ["ParallelCommand", "processes_option"]

_ARGUMENTS, _PROCESSES = "ragindex.train.arguments", "ragindex.train.processes"


def _remember(ctx: click.Context, _: click.Parameter, value: int) -> None:
    ctx.meta[_PROCESSES] = value


processes_option = click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    expose_value=False,
    callback=_remember,
    help="Train in so many processes, one a GPU, each with the whole model; a step takes a batch from each.",
)


class ParallelCommand(click.Command):
    """A command with `processes_option`. With more than one, it runs itself in each and waits; under torchrun or
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

"""`train`: one small module per command, imported when the command is used."""

from __future__ import annotations

import importlib
import importlib.util
from typing import cast

import click

from ragindex.cli.options import debug_option, store_option
from ragindex.errors import TrainingError

__all__ = ["require_extra", "train"]

_COMMANDS = {
    "adapt": "adapt_encoder",
    "clm": "causal",
    "mntp": "masked",
    "simcse": "unsupervised",
    "contrastive": "supervised",
    "vectors": "teaching",
    "distill": "distilling",
    "mine": "mining",
    "recipe": "recipes",
    "static": "static_floor",
    "rotate": "rotating",
}
_EXTRA = ("accelerate", "matplotlib", "peft", "sentence_transformers")


class _LazyGroup(click.Group):
    """Knows its commands by name; a command's module holds a click command called `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [name for name in _COMMANDS if importlib.util.find_spec(f"{__name__}.{_COMMANDS[name]}")]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{__name__}.{_COMMANDS[cmd_name]}")
        return cast("click.Command", module.command)


@click.group("train", cls=_LazyGroup, short_help="Train an encoder, on your own text or any other.")
@store_option
@debug_option
def train() -> None:
    """Train an encoder. `ragindex train adapt PATH` does it all for a folder: pairs, training, proof."""


def require_extra() -> None:
    """Raise TrainingError, naming the extra, when a package that training needs is missing."""
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainingError(f"Training needs {', '.join(missing)}; install them with `pip install 'ragindex[train]'`.")

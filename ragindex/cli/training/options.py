"""Options that several training commands share, and how a run is shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from tqdm import tqdm

from ragindex.cli.terminal import note
from ragindex.errors import UsageError

__all__ = [
    "EncoderFolder",
    "ProgressBar",
    "encoder_option",
    "length_options",
    "licence_option",
    "licences_from",
    "output_option",
    "recorded",
    "require_length",
]

Function = TypeVar("Function", bound=Callable[..., Any])

encoder_option = click.option(
    "--encoder", metavar="NAME|DIR|HUB_ID", default="bundled", show_default=True, help="The encoder to start from."
)


class EncoderFolder(click.Path):
    """The type of an --output that becomes an encoder: what the next stage of a recipe starts from."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)


output_option = click.option(
    "--output",
    metavar="DIR",
    type=EncoderFolder(),
    required=True,
    help="Directory of the trained encoder; its run/ holds log and checkpoints.",
)

licence_option = click.option(
    "--licence",
    "licences",
    metavar="DATA=TEXT",
    multiple=True,
    help="Licence of a file of the training data, for the card; may be repeated.",
)


def licences_from(given: Sequence[str]) -> dict[str, str]:
    """The licences by what they are of. Raises UsageError for one that is not DATA=TEXT."""
    wrong = next((text for text in given if not all(part.strip() for part in text.partition("="))), None)
    if wrong is not None:
        raise UsageError(f"--licence is {wrong!r}; give DATA=TEXT, such as pairs.jsonl='CC BY 4.0'.")
    return {name.strip(): text.strip() for name, _, text in (item.partition("=") for item in given)}


def recorded(ctx: click.Context, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """What decides the result, JSON-ready: the command's options but for where it goes and how it is shown, and but for
    `length_options`, which a run records itself.
    """
    left_out = {"output", "as_json", "steps", "minutes", "rate", "seed", *without}
    return {name: _plain(value) for name, value in ctx.params.items() if name not in left_out}


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def length_options(function: Function) -> Function:
    """--steps, --minutes, --rate, --seed."""
    for option in (
        click.option("--seed", type=int, default=7, show_default=True, help="Seed of everything random."),
        click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Peak learning rate."),
        click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Length of the run in minutes."),
        click.option("--steps", type=click.IntRange(min=1), help="Length of the run in steps."),
    ):
        function = option(function)
    return function


def require_length(steps: int | None, minutes: float | None) -> None:
    """Raise UsageError unless the length of the run was given."""
    if steps is None and minutes is None:
        raise UsageError("Say how long to train: --steps N or --minutes N.")


class ProgressBar:
    """A tqdm bar over the share of the run that is done, with the loss beside it; silent without a terminal."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._average = math.nan

    def update(self, step: int, progress: float, numbers: Mapping[str, float]) -> None:
        """See `ragindex.train.objective.Reporter`."""
        if self._bar is None:
            self._bar = tqdm(
                total=100,
                unit="%",
                disable=None,
                bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}",
            )
        loss = numbers.get("loss", math.nan)
        self._average = loss if math.isnan(self._average) else 0.98 * self._average + 0.02 * loss
        self._bar.set_postfix_str(f"step {step}, loss {self._average:.4f}", refresh=False)
        self._bar.update(100 * progress - self._bar.n)

    def note(self, text: str) -> None:
        """Print a sentence above the bar."""
        if self._bar is not None:
            self._bar.clear()
        note(text)

    def finish(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None

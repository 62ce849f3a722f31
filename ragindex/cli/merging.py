"""`encoder merge`: several encoders made into one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from ragindex.cli.options import debug_option, json_option, store_option
from ragindex.cli.progress import progress_bar
from ragindex.cli.terminal import emit, emit_json
from ragindex.ingest.progress import Silent

if TYPE_CHECKING:
    from ragindex.ingest.progress import Progress
    from ragindex.train.merging import Merged, Recipe

__all__ = ["merge"]

Method = Literal["soup", "slerp", "self-position"]
_MILLION = 1_000_000


@click.command(short_help="Merge encoders by their weights.")
@click.argument("encoders", metavar="ENCODER ENCODER...", nargs=-1, required=True)
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Directory of the result; must be empty or not there yet.",
)
@click.option(
    "--method",
    type=click.Choice(["soup", "slerp", "self-position"]),
    default="soup",
    show_default=True,
    help="Mean of the weights; a point on the arc between two; or learned weights.",
)
@click.option("--weights", metavar="W,W,...", help="Of a soup: what each encoder counts; all the same by default.")
@click.option("--t", type=float, help="Of slerp: 0 is the first encoder, 1 the second.  [default: 0.5]")
@click.option("--base", metavar="ENCODER", help="Of self-position: what the encoders were trained from.")
@click.option(
    "--pairs",
    metavar="FILE",
    type=click.Path(exists=True, path_type=Path),
    help="Of self-position: pairs to learn from, a few hundred of each task.",
)
@click.option("--steps", type=int, help="Of self-position: how long to learn.  [default: 100]")
@click.option("--seed", type=int, help="Of self-position.  [default: 7]")
@store_option
@debug_option
@json_option
def merge(
    *,
    encoders: tuple[str, ...],
    output: Path,
    method: Method,
    weights: str | None,
    t: float | None,
    base: str | None,
    pairs: Path | None,
    steps: int | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Merge encoders that were trained from the same one.

    They must be alike but for their weights: architecture, tokenizer, pooling, prompts, dimensions. A soup of encoders
    that were trained on different data is often better than each of them.
    """
    given = {"--weights": weights, "--t": t, "--base": base, "--pairs": pairs, "--steps": steps, "--seed": seed}
    _refuse_strays(method, {name for name, value in given.items() if value is not None})
    from ragindex.train.merging import merge as merged

    if method == "self-position" and base is not None and pairs is not None:
        recipe = _learned(base, pairs, steps=steps, seed=seed)
    else:
        recipe = _fixed(method, weights, t)
    stages = _Stages()
    try:
        result = merged(encoders, output, recipe, progress=stages.advance)
    finally:
        stages.finish()
    _show(result, as_json=as_json)


class _Stages:
    """A bar for each stage of a merge."""

    def __init__(self) -> None:
        self._stage = ""
        self._shown = 0
        self._bar: Progress = Silent()

    def advance(self, stage: str, done: int, total: int) -> None:
        """See `ragindex.train.merging.Progress`."""
        size, unit = (_MILLION, "million weights") if stage == "writing" else (1, "steps")
        if stage != self._stage:
            self.finish()
            self._stage, self._shown = stage, 0
            self._bar = progress_bar(f"{stage.capitalize()} ", unit=unit) or Silent()
            self._bar.start(max(1, total // size))
        self._bar.advance(files=done // size - self._shown)
        self._shown = done // size

    def finish(self) -> None:
        """Wipe the bar."""
        self._bar.finish()


def _refuse_strays(method: Method, given: set[str]) -> None:
    """Raise for options of another method, and for missing ones."""
    own = {"soup": {"--weights"}, "slerp": {"--t"}, "self-position": {"--base", "--pairs", "--steps", "--seed"}}
    stray = min(given - own[method], default=None)
    if stray is not None:
        owner = next(name for name, options in own.items() if stray in options)
        raise click.UsageError(f"{stray} belongs to --method {owner}.")
    if method == "self-position" and not {"--base", "--pairs"} <= given:
        raise click.UsageError("Self-positioning needs --base, what the encoders were trained from, and --pairs.")


def _fixed(method: Method, weights: str | None, t: float | None) -> Recipe:
    from ragindex.train.merging import Slerp, Soup

    if method == "slerp":
        return Slerp(0.5 if t is None else t)
    try:
        return Soup(tuple(float(part) for part in weights.split(",")) if weights else ())
    except ValueError as error:
        raise click.UsageError(f"--weights is {weights!r}; give numbers such as 0.7,0.3.") from error


def _learned(base: str, pairs: Path, *, steps: int | None, seed: int | None) -> Recipe:
    from dataclasses import replace

    from ragindex.train.data.examples import read_examples
    from ragindex.train.merging import SelfPosition

    recipe = SelfPosition(base, list(read_examples(pairs)))
    return replace(recipe, steps=recipe.steps if steps is None else steps, seed=recipe.seed if seed is None else seed)


def _show(result: Merged, *, as_json: bool) -> None:
    if as_json:
        emit_json(
            {
                "output": str(result.output),
                "method": result.method,
                "encoders": [
                    {"name": item.name, "fingerprint": item.fingerprint, "weight": item.weight}
                    for item in result.ingredients
                ],
                "fingerprint": result.fingerprint,
                **result.notes,
            }
        )
        return
    width = max(len(f"{item.weight:.3f}") for item in result.ingredients)
    emit(f"{item.weight:{width}.3f}  {item.name}" for item in result.ingredients)
    probe = result.notes.get("probe")
    if probe is not None:
        emit(f"Loss over {probe['pairs']:,} pairs: {probe['loss_even']} evenly weighed, {probe['loss_learned']} so.")
    emit(f"Saved to {result.output}; use it with `ragindex index PATH --encoder {result.output}`.")

"""From an objective to what it is for: claims the output, trains, writes encoder (or decoder), card and picture."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ragindex.encoder.checkpoint import CONFIG_FILE
from ragindex.train.card import write_card
from ragindex.train.loop import train
from ragindex.train.objective import Objective, Reporter, Silent
from ragindex.train.plot import plot_run
from ragindex.train.processes import in_turn, rank
from ragindex.train.run import Checkpoint, Run, data_fingerprint, writing
from ragindex.train.schedule import LoopSettings
from ragindex.train.sharding import Footprint

__all__ = ["Plan", "Product", "Summary", "run_objective"]


class Product(Protocol):
    """What a run leaves behind: a `TrainableEncoder`, or a decoder."""

    @property
    def source(self) -> str:
        """What it was made of, by name."""

    def save(self, directory: Path, *, card: Mapping[str, object]) -> None:
        """Write it into a directory that does not exist yet. card: entries to add to those of its source."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of a run.

    command: such as "distill"; options: everything that decides the result, JSON-ready; data: input files by role, of
    which the card names the file names and the run remembers the contents; fingerprints: of those by role, where they
    are known already; kept: files by name that an interrupted run needs again; licences: by file name, as the user
    says; footprint: the memory it may take, which decides nothing of the result, so that a run may go on with another.
    """

    command: str
    output: Path
    settings: LoopSettings
    options: Mapping[str, Any]
    data: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    licences: Mapping[str, str] = field(default_factory=dict)
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, bytes] = field(default_factory=dict)
    footprint: Footprint = Footprint()  # noqa: RUF009 - frozen

    def begin(self, run: Run) -> Any:
        """Claim the output; see `Run.begin`."""
        prints = {role: self.fingerprints.get(role) or data_fingerprint(files) for role, files in self.data.items()}
        resume = run.begin(self.command, {**self.options, **asdict(self.settings)}, prints)
        if rank() == 0:
            for name, content in self.kept.items():
                partial = run.directory / f"{name}.partial"
                partial.write_bytes(content)
                partial.replace(run.directory / name)
        return resume


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended: measures on held-out data before and after, steps, seconds, and where lies what was made."""

    encoder: Path
    steps: int
    seconds: float
    before: Mapping[str, float]
    after: Mapping[str, float]


def run_objective(objective: Objective, product: Product, plan: Plan, *, reporter: Reporter | None = None) -> Summary:
    """Train and write `plan.output`; an interrupted run of the same plan goes on where it stopped. Of several processes
    the main one writes.

    Raises UsageError for an output that holds something else, TrainingError as `train` does.
    """
    reporter = reporter or Silent()
    run = Run(plan.output)
    resume = in_turn(lambda: plan.begin(run))
    with run.held() if rank() == 0 else nullcontext():
        return _trained(objective, product, plan, run, resume, reporter)


def _trained(
    objective: Objective, product: Product, plan: Plan, run: Run, resume: Checkpoint | None, reporter: Reporter
) -> Summary:
    rows = train(objective, plan.settings, run=run, resume=resume, reporter=reporter, footprint=plan.footprint)
    summary = _summary(rows, plan.output)
    if rank() > 0:
        return summary
    card = {
        plan.command: {
            "from": product.source,
            "steps": summary.steps,
            "minutes": round(summary.seconds / 60, 1),
            "rate": plan.settings.rate,
            "seed": plan.settings.seed,
            "data": sorted(file.name for files in plan.data.values() for file in files),
            "before": dict(summary.before),
            "after": dict(summary.after),
        }
    }
    with writing(plan.output):
        _place(product, run, plan.output, card)
        plot_run(rows, run.directory / "loss.png", title=f"ragindex train {plan.command}")
        write_card(plan.output, licences=plan.licences)
        run.finish()
    return summary


def _place(product: Product, run: Run, output: Path, card: Mapping[str, object]) -> None:
    """Move what is finished beside its run; the settings come last, so the directory is no encoder before."""
    made = run.directory / "encoder"
    shutil.rmtree(made, ignore_errors=True)
    product.save(made, card=card)
    for entry in sorted(made.iterdir(), key=lambda path: (path.name == CONFIG_FILE, path.name == "config.json")):
        target = output / entry.name
        if target.is_dir():
            shutil.rmtree(target)
        entry.replace(target)
    made.rmdir()


def _summary(rows: Sequence[Mapping[str, Any]], output: Path) -> Summary:
    measured = [row for row in rows if row.get("evaluation")]
    plain = [{key: value for key, value in row.items() if key not in _NOT_MEASURES} for row in measured]
    return Summary(
        encoder=output,
        steps=max((int(row["step"]) for row in rows), default=0),
        seconds=max((float(row["seconds"]) for row in rows), default=0.0),
        before=plain[0] if plain else {},
        after=plain[-1] if plain else {},
    )


_NOT_MEASURES = ("step", "seconds", "evaluation")

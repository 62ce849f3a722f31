"""From an objective to an encoder directory: claims the output, trains, writes encoder, card and picture."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ragindex.encoder.checkpoint import CONFIG_FILE
from ragindex.train.card import write_card
from ragindex.train.loop import LoopSettings, Objective, Reporter, Silent, train
from ragindex.train.model import TrainableEncoder
from ragindex.train.plot import plot_run
from ragindex.train.run import Run, data_fingerprint

__all__ = ["Plan", "Summary", "run_objective"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of a run.

    command: such as "distill"; options: everything that decides the result, JSON-ready; data: input files by role, of
    which the card names the file names and the run remembers the contents; licences: by file name, as the user says.
    """

    command: str
    output: Path
    settings: LoopSettings
    options: Mapping[str, Any]
    data: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    licences: Mapping[str, str] = field(default_factory=dict)

    def begin(self, run: Run) -> Any:
        """Claim the output; see `Run.begin`."""
        prints = {role: data_fingerprint(files) for role, files in self.data.items()}
        return run.begin(self.command, {**self.options, **asdict(self.settings)}, prints)


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended: measures on held-out data before and after, steps, seconds, and the encoder's directory."""

    encoder: Path
    steps: int
    seconds: float
    before: Mapping[str, float]
    after: Mapping[str, float]


def run_objective(
    objective: Objective, model: TrainableEncoder, plan: Plan, *, reporter: Reporter | None = None
) -> Summary:
    """Train and write `plan.output`; an interrupted run of the same plan goes on where it stopped.

    Raises UsageError for an output that holds something else, TrainingError as `train` does.
    """
    reporter = reporter or Silent()
    run = Run(plan.output)
    resume = plan.begin(run)
    rows = train(objective, plan.settings, run=run, resume=resume, reporter=reporter)
    summary = _summary(rows, plan.output)
    card = {
        plan.command: {
            "from": model.checkpoint.name,
            "steps": summary.steps,
            "minutes": round(summary.seconds / 60, 1),
            "rate": plan.settings.rate,
            "seed": plan.settings.seed,
            "data": sorted(file.name for files in plan.data.values() for file in files),
            "before": dict(summary.before),
            "after": dict(summary.after),
        }
    }
    _place(model, run, plan.output, card)
    plot_run(rows, run.directory / "loss.png", title=f"ragindex train {plan.command}")
    write_card(plan.output, licences=plan.licences)
    run.finish()
    return summary


def _place(model: TrainableEncoder, run: Run, output: Path, card: Mapping[str, object]) -> None:
    """Move the finished encoder beside its run; `ragindex.json` comes last, so the directory is no encoder before."""
    made = run.directory / "encoder"
    shutil.rmtree(made, ignore_errors=True)
    model.save(made, card=card)
    for entry in sorted(made.iterdir(), key=lambda path: path.name == CONFIG_FILE):
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

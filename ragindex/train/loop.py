"""The training loop: schedule, clipping, a budget of steps or minutes, checkpoints; on accelerate, so that the same
code runs on a CPU, a GPU, or several.

What happens in a step depends on the seed and the step's number alone: torch's generator is set anew before each. So a
run that was killed and goes on from its checkpoint ends, on a CPU, with the weights of a run that was not (as long as
its length is given in steps; minutes depend on the machine).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ragindex.errors import TrainingError
from ragindex.train.gradients import clip_gradients, share_gradients, share_weights
from ragindex.train.objective import Objective, Reporter, Scheduled, Silent
from ragindex.train.processes import most
from ragindex.train.row_gradient import by_rows
from ragindex.train.run import Checkpoint, Run
from ragindex.train.run_tensors import RunTensors
from ragindex.train.schedule import LoopSettings, rate_at, step_seed
from ragindex.train.sharding import Footprint, Shards, recompute_layers
from ragindex.train.stopping import Interrupts

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["train"]


@dataclass(slots=True)
class _State:
    """Where the loop stands; what of it goes into a checkpoint is `as_json`."""

    step: int = 0
    epoch: int = 0
    position: int = 0  # batches of the epoch that were used
    spent: float = 0.0  # seconds of training, earlier sittings included
    evaluated: float = -1.0  # progress at the last evaluation

    def as_json(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "position": self.position,
            "spent": round(self.spent, 3),
            "evaluated": self.evaluated,
        }


class _Wishes(NamedTuple):
    """What all processes do after a step."""

    stop: bool
    save: bool


def train(
    objective: Objective,
    settings: LoopSettings,
    *,
    run: Run,
    resume: Checkpoint | None = None,
    reporter: Reporter | None = None,
    accelerator: Accelerator | None = None,
    footprint: Footprint | None = None,
) -> list[dict[str, Any]]:
    """Train `objective.model` in place; the rows of the log. What was sharded over several processes is whole in the
    main process afterwards, and without data in the others.

    SIGINT and SIGTERM end the run after the step that is going on, with a checkpoint and KeyboardInterrupt; a second
    one ends it at once. Several processes go in step, from the weights of the first. Raises TrainingError when a loss
    or gradient is not finite (the last checkpoint stays), when there is no batch, or when a checkpoint cannot be
    written.
    """
    loop = _Loop(
        objective, settings, run, reporter or Silent(), accelerator or _accelerator(), footprint or Footprint()
    )
    return loop.execute(resume)


class _Loop:
    def __init__(
        self,
        objective: Objective,
        settings: LoopSettings,
        run: Run,
        reporter: Reporter,
        accelerator: Accelerator,
        footprint: Footprint,
    ) -> None:
        self._objective, self._settings, self._run, self._reporter = objective, settings, run, reporter
        self._accelerator = accelerator
        self._shards = self._spread(footprint)
        if self._shards is None:
            by_rows(objective.model)
        groups = objective.parameter_groups(settings.rate, weight_decay=settings.weight_decay)
        # Fused, a step makes no copies of a table of token rows; shards cannot be mixed with whole tensors that way.
        self._optimiser = torch.optim.AdamW(groups, betas=settings.betas, fused=self._shards is None)
        self._peaks = [float(group["lr"]) for group in self._optimiser.param_groups]
        self._parameters = [item for group in self._optimiser.param_groups for item in group["params"]]
        self._tensors = RunTensors(objective.model, self._optimiser)
        self._state = _State()
        self._interrupts = Interrupts()

    def execute(self, resume: Checkpoint | None) -> list[dict[str, Any]]:
        if resume is not None:
            self._tensors.read(resume.directory)
            table = resume.state
            self._state = _State(
                step=resume.step,
                epoch=int(table["epoch"]),
                position=int(table["position"]),
                spent=float(table["spent"]),
                evaluated=float(table["evaluated"]),
            )
            self._reporter.note(f"Going on from step {resume.step}.")
        if self._is_main:
            self._run.rewind(self._state.step)
        self._objective.model.train()
        try:
            with self._interrupts:
                self._train()
        except KeyboardInterrupt:
            self._checkpoint()
            self._reporter.note(f"Stopped at step {self._state.step}; the same command goes on from there.")
            raise
        finally:
            self._reporter.finish()
        if self._shards is not None:
            self._shards.assemble()
        return self._run.rows()

    def _spread(self, footprint: Footprint) -> Shards | None:
        """The model as it is to be kept while it is trained."""
        model = self._objective.model
        if footprint.activations == "recomputed":
            recompute_layers(model)
        share_weights((item for item in model.parameters() if item.requires_grad), self._accelerator)
        alone = self._accelerator.num_processes == 1
        return None if alone or footprint.weights == "whole" else Shards(model)

    @property
    def _is_main(self) -> bool:
        return bool(self._accelerator.is_main_process)

    def _train(self) -> None:
        state, began, base = self._state, time.monotonic(), self._state.spent
        saved = time.monotonic()
        if state.step == 0:
            self._evaluate(0.0)
        for batch in self._batches():
            progress = self._progress()
            if progress >= 1:
                break
            numbers = self._step(batch, progress)
            state.step += 1
            state.position += 1  # counted when the step is done: one that was interrupted is repeated
            state.spent = base + time.monotonic() - began
            progress = self._progress()
            wishes = self._agreed(_Wishes(self._interrupts.asked, self._due(saved)))
            if wishes.stop:
                raise KeyboardInterrupt
            self._reporter.update(state.step, min(1.0, progress), numbers)
            if self._is_main and (state.step % self._settings.log_steps == 0 or state.step == 1 or progress >= 1):
                self._run.log({"step": state.step, "seconds": state.spent, **numbers})
            if progress < 1 and progress - max(0.0, state.evaluated) >= 1 / max(1, self._settings.evaluations):
                self._evaluate(progress)
            if wishes.save:
                saved = time.monotonic()
                self._checkpoint()
        if state.evaluated < 1:
            self._evaluate(1.0)
        self._checkpoint()  # should what is made of it not find room on the disk

    def _batches(self) -> Iterator[Any]:
        """Endless, from where the state says; an epoch without a batch ends it."""
        state = self._state
        while True:
            empty = True
            for batch in islice(self._objective.batches(state.epoch), state.position, None):
                empty = False
                yield batch
            if empty and state.position == 0:
                raise TrainingError("There is no batch to train on: too few examples for the batch size.")
            state.epoch, state.position = state.epoch + 1, 0

    def _step(self, batch: Any, progress: float) -> dict[str, float]:
        share = rate_at(progress, self._settings)
        for group, peak in zip(self._optimiser.param_groups, self._peaks, strict=True):
            group["lr"] = peak * share
        if isinstance(self._objective, Scheduled):
            self._objective.at(progress)
        torch.manual_seed(step_seed(self._settings.seed, self._state.step))
        self._optimiser.zero_grad(set_to_none=True)
        numbers = dict(self._objective.step(batch, self._accelerator.backward))
        share_gradients(self._parameters, self._accelerator)
        norm = clip_gradients(self._parameters, self._accelerator, limit=self._settings.clip)
        if not (math.isfinite(norm) and math.isfinite(numbers.get("loss", 0.0))):
            raise TrainingError(
                f"The loss or its gradient is not finite at step {self._state.step + 1}; lower the learning rate "
                f"(it is {self._settings.rate:g}) or look at the data."
            )
        self._optimiser.step()
        return {**numbers, "rate": self._settings.rate * share, "gradient_norm": norm}

    def _agreed(self, wishes: _Wishes) -> _Wishes:
        """All stop when one was asked to; all save when the main process's clock says so: clocks differ."""
        if self._accelerator.num_processes == 1:
            return wishes
        stop, save = most([wishes.stop, wishes.save and self._is_main])
        return _Wishes(bool(stop), bool(save))

    def _evaluate(self, progress: float) -> None:
        """By the main process; by all of them where none could compute a layer without the others."""
        self._state.evaluated = progress
        if not self._is_main and self._shards is None:
            return
        self._objective.model.eval()
        try:
            numbers = self._objective.evaluate()
        finally:
            self._objective.model.train()
        if self._shards is not None:
            self._shards.settle()
        if numbers and self._is_main:
            self._run.log({"step": self._state.step, "seconds": self._state.spent, "evaluation": True, **numbers})
            shown = ", ".join(f"{key} {value:.4f}" for key, value in numbers.items())
            self._reporter.note(f"Step {self._state.step}: {shown}")

    def _due(self, saved: float) -> bool:
        if self._settings.checkpoint_steps is not None:
            return self._state.step % self._settings.checkpoint_steps == 0
        return time.monotonic() - saved >= 60 * self._settings.checkpoint_minutes

    def _checkpoint(self) -> None:
        if self._is_main:
            self._run.save(self._state.step, self._tensors, self._state.as_json())
        else:
            self._tensors.hand_over()
        self._accelerator.wait_for_everyone()

    def _progress(self) -> float:
        steps, minutes = self._settings.steps, self._settings.minutes
        shares = []
        if steps is not None:
            shares.append(self._state.step / steps)
        if minutes is not None:
            shares.append(self._state.spent / (60 * minutes))
        if self._accelerator.num_processes > 1 and minutes is not None:  # clocks differ; all must stop at one step
            shares = [float(self._accelerator.reduce(torch.tensor(max(shares)).to(self._accelerator.device), "mean"))]
        return max(shares)


def _accelerator() -> Accelerator:
    from accelerate import Accelerator

    return Accelerator()

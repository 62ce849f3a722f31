"""The training loop: schedule, clipping, a budget of steps or minutes, checkpoints; on accelerate, so that the same
code runs on a CPU, a GPU, or several.

What happens in a step depends on the seed and the step's number alone: torch's generator is set anew before each. So a
run that was killed and goes on from its checkpoint ends, on a CPU, with the weights of a run that was not (as long as
its length is given in steps; minutes depend on the machine).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from ragindex.errors import TrainingError
from ragindex.train.run import Checkpoint, Run
from ragindex.train.stopping import Interrupts

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["LoopSettings", "Objective", "Reporter", "Scheduled", "Silent", "rate_at", "step_seed", "train"]

Backward = Callable[[torch.Tensor], None]


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How long and how fast.

    steps, minutes: the budget; whichever is reached first, at least one is given. rate: peak learning rate; warmup:
    share of the run in which it rises; decay: what follows; final: share of the peak it ends with. clip: largest norm
    of the gradient. evaluations: how often the held-out data is measured, evenly over the run, and at its end.
    checkpoint_minutes: time between checkpoints; checkpoint_steps: the same in steps, instead. log_steps: steps
    between lines of the log.
    """

    steps: int | None = None
    minutes: float | None = None
    rate: float = 1e-3
    warmup: float = 0.03
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    final: float = 0.01
    clip: float = 1.0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    evaluations: int = 10
    checkpoint_minutes: float = 5.0
    checkpoint_steps: int | None = None
    log_steps: int = 10
    seed: int = 7

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise TrainingError("Say how long to train: give steps or minutes.")
        if (self.steps is not None and self.steps < 1) or (self.minutes is not None and self.minutes <= 0):
            raise TrainingError("A run needs at least one step and more than no minutes.")
        if self.rate <= 0:
            raise TrainingError(f"A learning rate of {self.rate} trains nothing; give one above 0.")


class Objective(Protocol):
    """What a training command brings to the loop. A batch is whatever `batches` yields and `step` takes."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""

    def parameter_groups(self, rate: float, *, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for AdamW, each with its own peak `lr`."""

    def batches(self, epoch: int) -> Iterator[Any]:
        """The batches of one epoch, cheap to skip, the same ones for the same epoch."""

    def step(self, batch: Any, backward: Backward) -> Mapping[str, float]:
        """Compute a loss, hand it to `backward` (once or several times), return numbers to log; "loss" is one."""

    def evaluate(self) -> Mapping[str, float]:
        """Measures on held-out data; empty when there is none."""


@runtime_checkable
class Scheduled(Protocol):
    """An objective that changes as the run goes on."""

    def at(self, progress: float) -> None:
        """Before every step: the share of the run that is done, in [0, 1)."""


class Reporter(Protocol):
    """Shows a run while it goes on."""

    def update(self, step: int, progress: float, numbers: Mapping[str, float]) -> None:
        """After every step; `progress` is in [0, 1]."""

    def note(self, text: str) -> None:
        """A sentence about the run."""

    def finish(self) -> None:
        """The run is over, however it ended."""


class Silent:
    """A reporter that says nothing."""

    def update(self, step: int, progress: float, numbers: Mapping[str, float]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""


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


def train(
    objective: Objective,
    settings: LoopSettings,
    *,
    run: Run,
    resume: Checkpoint | None = None,
    reporter: Reporter | None = None,
    accelerator: Accelerator | None = None,
) -> list[dict[str, Any]]:
    """Train `objective.model` in place; the rows of the log.

    SIGINT and SIGTERM end the run after the step that is going on, with a checkpoint and KeyboardInterrupt; a second
    one ends it at once. Several processes go in step, from the weights of the first. Raises TrainingError when a loss
    or gradient is not finite (the last checkpoint stays), when there is no batch, or when a checkpoint cannot be
    written.
    """
    return _Loop(objective, settings, run, reporter or Silent(), accelerator or _accelerator()).execute(resume)


class _Loop:
    def __init__(
        self,
        objective: Objective,
        settings: LoopSettings,
        run: Run,
        reporter: Reporter,
        accelerator: Accelerator,
    ) -> None:
        self._objective, self._settings, self._run, self._reporter = objective, settings, run, reporter
        self._accelerator = accelerator
        groups = objective.parameter_groups(settings.rate, weight_decay=settings.weight_decay)
        self._optimiser = torch.optim.AdamW(groups, betas=settings.betas)
        self._peaks = [float(group["lr"]) for group in self._optimiser.param_groups]
        self._parameters = [item for group in self._optimiser.param_groups for item in group["params"]]
        self._state = _State()
        self._interrupts = Interrupts()

    def execute(self, resume: Checkpoint | None) -> list[dict[str, Any]]:
        if resume is not None:
            self._run.restore(resume, self._objective.model, self._optimiser)
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
        self._share_weights()
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
        return self._run.rows()

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
            if self._stopped():
                raise KeyboardInterrupt
            self._reporter.update(state.step, min(1.0, progress), numbers)
            if self._is_main and (state.step % self._settings.log_steps == 0 or state.step == 1 or progress >= 1):
                self._run.log({"step": state.step, "seconds": state.spent, **numbers})
            if progress < 1 and progress - max(0.0, state.evaluated) >= 1 / max(1, self._settings.evaluations):
                self._evaluate(progress)
            if self._due(saved):
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
        self._share_gradients()
        norm = float(nn.utils.clip_grad_norm_(self._parameters, self._settings.clip))
        if not (math.isfinite(norm) and math.isfinite(numbers.get("loss", 0.0))):
            raise TrainingError(
                f"The loss or its gradient is not finite at step {self._state.step + 1}; lower the learning rate "
                f"(it is {self._settings.rate:g}) or look at the data."
            )
        self._optimiser.step()
        return {**numbers, "rate": self._settings.rate * share, "gradient_norm": norm}

    def _share_weights(self) -> None:
        """What is trained begins as it is in the first process: new weights are random."""
        if self._accelerator.num_processes > 1:
            from accelerate.utils import broadcast

            with torch.no_grad():
                for item in self._parameters:
                    item.copy_(broadcast(item.detach().clone()))

    def _stopped(self) -> bool:
        """Whether a process was asked to stop: they all stop after the same step."""
        if self._accelerator.num_processes == 1:
            return self._interrupts.asked
        asked = torch.tensor(float(self._interrupts.asked), device=self._accelerator.device)
        return bool(self._accelerator.reduce(asked, reduction="sum") > 0)

    def _share_gradients(self) -> None:
        """Mean of the processes' gradients. By hand, since cached gradients run backward several times a step."""
        if self._accelerator.num_processes == 1:
            return
        present = [item for item in self._parameters if item.grad is not None]
        flat = torch.cat([item.grad.reshape(-1) for item in present])
        flat = self._accelerator.reduce(flat, reduction="mean")
        for item, part in zip(present, flat.split([item.numel() for item in present]), strict=True):
            item.grad.copy_(part.view_as(item.grad))

    def _evaluate(self, progress: float) -> None:
        if not self._is_main:
            return
        self._state.evaluated = progress
        self._objective.model.eval()
        try:
            numbers = self._objective.evaluate()
        finally:
            self._objective.model.train()
        if numbers:
            self._run.log({"step": self._state.step, "seconds": self._state.spent, "evaluation": True, **numbers})
            shown = ", ".join(f"{key} {value:.4f}" for key, value in numbers.items())
            self._reporter.note(f"Step {self._state.step}: {shown}")

    def _due(self, saved: float) -> bool:
        if self._settings.checkpoint_steps is not None:
            return self._state.step % self._settings.checkpoint_steps == 0
        return time.monotonic() - saved >= 60 * self._settings.checkpoint_minutes

    def _checkpoint(self) -> None:
        if self._is_main:
            self._run.save(self._state.step, self._objective.model, self._optimiser, self._state.as_json())
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


def rate_at(progress: float, settings: LoopSettings) -> float:
    """Share of the peak rate at a share of the run: linear warm-up, then cosine, a line or nothing down to `final`."""
    if progress < settings.warmup:
        return max(progress, 1e-4) / settings.warmup
    after = min(1.0, (progress - settings.warmup) / max(1e-9, 1 - settings.warmup))
    if settings.decay == "constant":
        return 1.0
    falling = 1 - after if settings.decay == "linear" else 0.5 * (1 + math.cos(math.pi * after))
    return settings.final + (1 - settings.final) * falling


def step_seed(seed: int, step: int) -> int:
    """Seed of everything random in a step."""
    return (seed * 1_000_003 + step) % 2**63


def _accelerator() -> Accelerator:
    from accelerate import Accelerator

    return Accelerator()

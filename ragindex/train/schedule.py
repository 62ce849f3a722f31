"""How long and how fast a run trains: its settings, the learning rate at each share of it, the seed of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ragindex.errors import TrainingError

__all__ = ["LoopSettings", "rate_at", "step_seed"]


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

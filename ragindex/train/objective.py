"""What a training command brings to the loop, and who watches a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

__all__ = ["Backward", "Objective", "Reporter", "Scheduled", "Silent"]

Backward = Callable[[torch.Tensor], None]


class Objective(Protocol):
    """What a training command brings to the loop. A batch is whatever `batches` yields and `step` takes."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""

    def parameter_groups(self, rate: float, *, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for AdamW, each with its own peak `lr`."""

    def batches(self, epoch: int) -> Iterator[Any]:
        """The batches of one epoch, cheap to skip, the same ones for the same epoch; equally many in every process."""

    def step(self, batch: Any, backward: Backward) -> Mapping[str, float]:
        """Compute a loss, hand it to `backward` (once or several times), return numbers to log; "loss" is one."""

    def evaluate(self) -> Mapping[str, float]:
        """Measures on held-out data; empty when there is none. The same in every process: where the model is sharded,
        all of them are asked at once.
        """


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

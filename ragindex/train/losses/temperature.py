"""A temperature that is learnt, one for each task."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ragindex.errors import TrainingError, UsageError

__all__ = ["TaskTemperatures"]


class TaskTemperatures(nn.Module):
    """t = e^theta with a trained theta for each task: RzenEmbed (arXiv 2510.27350).

    tasks: their names, in any order. floor: thetas are cut there before they are used, as CLIP does (arXiv
    2103.00020); without it a temperature can fall until one pair rules the batch. Raises TrainingError for a task that
    was not named.
    """

    def __init__(self, tasks: Sequence[str], *, initial: float = 0.05, floor: float = 0.01) -> None:
        super().__init__()
        if not 0 < floor <= initial:
            raise UsageError(f"A temperature must be above 0 and not begin below its floor, {floor}; got {initial}.")
        self._places = {task: place for place, task in enumerate(sorted(set(tasks)))}
        self._lowest = math.log(floor)
        # One parameter for all tasks: processes that see different tasks in a step still hold the same gradients.
        self.theta = nn.Parameter(torch.full((len(self._places),), math.log(initial)))

    def forward(self, task: str) -> Tensor:
        """The temperature of `task`, a scalar with a gradient."""
        if task not in self._places:
            raise TrainingError(f"No temperature was set up for the task {task!r}; there are {sorted(self._places)}.")
        with torch.no_grad():
            self.theta.clamp_(min=self._lowest)
        return self.theta[self._places[task]].exp()

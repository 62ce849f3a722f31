"""Learns what each task vector counts in a merge, by gradient descent on a few pairs.

With base b, encoders e_i and weights w the merged encoder is b + sum_i w_i (e_i - b). Every weight has the derivative
of the loss by the merged parameters, multiplied with its task vector: so the loss is differentiated as in training,
and no graph leads through the sum. Adam takes the place of plain SGD, whose steps would depend on how long the task
vectors are. The loss is InfoNCE over the pairs of a batch and the negatives that they bring along.

The search is that of Self Positioning, arXiv 2410.15035. Weights start from an even soup of the encoders and are not
bound: they may leave it, and a task vector may be turned down or left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ragindex.train.data.examples import Example
from ragindex.train.losses.candidates import Contrast, TextIds, text_ids
from ragindex.train.losses.contrastive import InfoNCE, info_nce
from ragindex.train.merge_methods import SelfPosition
from ragindex.train.model import TrainableEncoder

__all__ = ["Position", "find_position"]

_LOG_WEIGHTS = "log_weights"  # the one parameter that is trained as a logarithm, and merged as what it stands for
_LEAST = 1e-7  # token weight; a weighted sum of task vectors may go below 0
_MEASURED = 8  # batches whose mean loss tells where one stands


@dataclass(frozen=True, slots=True)
class Position:
    """Weights of the task vectors, and the loss of the probe with even and with these weights."""

    weights: tuple[float, ...]
    before: float
    after: float
    pairs: int

    def as_json(self) -> dict[str, Any]:
        """For the card."""
        return {"pairs": self.pairs, "loss_even": round(self.before, 4), "loss_learned": round(self.after, 4)}


def find_position(
    names: Sequence[str], recipe: SelfPosition, *, advance: Callable[[int], None] | None = None
) -> Position:
    """The weights of the encoders called `names`; even ones when learning made nothing better.

    All must be alike but for their weights. advance: told the number of steps done. Raises what
    `TrainableEncoder.open` raises.
    """
    search = _Search(names, recipe)
    even = torch.full((len(names),), 1 / len(names))
    weights = even.clone().requires_grad_()
    optimiser = torch.optim.Adam([weights], lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / recipe.steps)
    before = search.measure(even)
    for step, batch in enumerate(search.batches(), 1):
        weights.grad = search.gradient(weights.detach(), batch)
        optimiser.step()
        schedule.step()
        if advance is not None:
            advance(step)
    after = search.measure(weights.detach())
    if not after < before:
        weights, after = even, before
    return Position(tuple(weights.tolist()), before, after, len(recipe.probe))


class _Search:
    def __init__(self, names: Sequence[str], recipe: SelfPosition) -> None:
        self._recipe = recipe
        # The encoders' settings, which a base need not have, under weights that are about to be replaced.
        self._model = TrainableEncoder.open(names[0]).eval().requires_grad_()  # merged adapters leave it frozen
        self._base = _values(TrainableEncoder.open(recipe.base, device="cpu"))
        self._vectors = [self._task_vector(name) for name in names]
        self._loss = InfoNCE(temperature=recipe.temperature)

    def batches(self) -> Iterator[Sequence[Example]]:
        """One for each step: the probe in a new order whenever it is used up."""
        generator = np.random.default_rng(self._recipe.seed)
        probe, size = self._recipe.probe, min(self._recipe.batch, len(self._recipe.probe))
        order: list[int] = []
        for _ in range(self._recipe.steps):
            if len(order) < size:
                order = generator.permutation(len(probe)).tolist()
            yield [probe[index] for index in order[:size]]
            order = order[size:]

    def gradient(self, weights: torch.Tensor, batch: Sequence[Example]) -> torch.Tensor:
        """Derivative of a batch's loss by the weights, (n,)."""
        self._move(weights)
        self._model.zero_grad()
        self._batch_loss(batch).backward()
        result = torch.zeros(len(self._vectors))
        for name, parameter in self._model.named_parameters():
            if parameter.grad is None:
                continue
            slope = parameter.grad.cpu()
            if name == _LOG_WEIGHTS:  # d log w / d w
                slope = slope / parameter.detach().cpu().exp()
            for row, vector in enumerate(self._vectors):
                if name in vector:
                    result[row] += (slope * vector[name]).sum()
        return result

    @torch.no_grad()
    def measure(self, weights: torch.Tensor) -> float:
        """Mean loss over the first batches of the probe, in an order of its own."""
        self._move(weights)
        order = np.random.default_rng(self._recipe.seed + 1).permutation(len(self._recipe.probe))
        size = min(self._recipe.batch, len(order))
        starts = range(0, len(order) - size + 1, size)[:_MEASURED]
        losses = [
            self._batch_loss([self._recipe.probe[index] for index in order[start : start + size]]) for start in starts
        ]
        return float(torch.stack(losses).mean())

    def _batch_loss(self, batch: Sequence[Example]) -> torch.Tensor:
        model, tokens = self._model, self._recipe.tokens
        depth = max(len(example.negatives) for example in batch)
        padded = [(*example.negatives, *[""] * (depth - len(example.negatives))) for example in batch]
        queries = [
            model.queries([example.query], instruction=example.instruction, max_tokens=tokens)[0] for example in batch
        ]
        positives = model.documents(
            [example.positive for example in batch], titles=[example.title for example in batch], max_tokens=tokens
        )
        negatives = model.documents([text for texts in padded for text in texts], max_tokens=tokens)
        present = torch.tensor([[bool(text) for text in texts] for texts in padded]).reshape(len(batch), depth)
        ids = TextIds(
            text_ids([example.query for example in batch]),
            text_ids([example.positive for example in batch]),
            torch.stack([text_ids(texts) for texts in padded]),
        )
        contrast = Contrast(
            queries=model(queries),
            positives=model(positives),
            negatives=model(negatives).unflatten(0, (len(batch), depth)) if depth else None,
            present=present.to(model.device) if depth else None,
            ids=ids,
        )
        return info_nce(contrast, self._loss)

    @torch.no_grad()
    def _move(self, weights: torch.Tensor) -> None:
        """Make the model the merge with these weights."""
        for name, parameter in self._model.named_parameters():
            value = self._base[name].clone()
            for weight, vector in zip(weights.tolist(), self._vectors, strict=True):
                if name in vector:
                    value.add_(vector[name], alpha=weight)
            parameter.copy_(value.clamp_min(_LEAST).log() if name == _LOG_WEIGHTS else value)

    def _task_vector(self, name: str) -> dict[str, torch.Tensor]:
        """Encoder minus base, where they differ."""
        values = _values(TrainableEncoder.open(name, device="cpu"))
        vector = {key: value - self._base[key] for key, value in values.items()}
        return {key: value for key, value in vector.items() if value.any()}


def _values(model: TrainableEncoder) -> Mapping[str, torch.Tensor]:
    """The parameters in main memory, token weights as such."""
    named = {name: parameter.detach().cpu().clone() for name, parameter in model.named_parameters()}
    if _LOG_WEIGHTS in named:
        named[_LOG_WEIGHTS] = named[_LOG_WEIGHTS].exp()
    return named

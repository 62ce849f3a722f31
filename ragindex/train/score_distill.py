"""Distillation from scored examples: the student learns how a teacher scores the documents of a query.

The scores come with the examples (`ragindex train mine --scores`): an encoder's cosines, a guide's, or soft labels of
encoder and BM25 joined, as LG-ANNA distils a whole retrieval pipeline (arXiv 2506.07438). A reranker's do as well. Two
losses take them, `margin_mse` and `listwise_kl` of `ragindex.train.losses`; the student's scores are cosines.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ragindex.errors import TrainingError
from ragindex.train.contrast_batch import BatchTexts, Limits, Order, Roles, negative_lists, tokenised
from ragindex.train.data.batching import Shard, same_source_batches
from ragindex.train.data.examples import Example
from ragindex.train.data.keys import text_key
from ragindex.train.gradcache import cached_backward, plain_backward
from ragindex.train.losses import Embeddings, list_cosines, listwise_kl, margin_mse
from ragindex.train.model import TrainableEncoder
from ragindex.train.objective import Backward
from ragindex.train.processes import rank, world_size

__all__ = ["ScoreDistillation", "ScoreLoss", "ScoreOptions"]

ScoreLoss = Literal["margin-mse", "listwise-kl"]

_MOST = 1000  # examples to measure on


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """batch: examples a step and process; chunk: padded tokens embedded at a time. limits: where texts are cut.

    scale: of the cosines under "margin-mse", to bring them to the range of the teacher's scores. student_temperature,
    teacher_temperature: of the softmaxes of "listwise-kl". held_out: share of the queries that are measured on.
    """

    loss: ScoreLoss = "listwise-kl"
    batch: int = 32
    chunk: int = 8192
    limits: Limits = Limits()  # noqa: RUF009 - frozen
    scale: float = 1.0
    student_temperature: float = 0.05
    teacher_temperature: float = 1.0
    held_out: float = 0.05
    seed: int = 7


@dataclass(frozen=True, slots=True)
class _Lists:
    """Scores of the student and of the teacher, (n, 1 + k), and which are there."""

    student: Tensor
    teacher: Tensor
    present: Tensor


class ScoreDistillation:
    """The objective for `ragindex.train.loop`. Raises TrainingError when no example has scores and negatives."""

    def __init__(
        self, model: TrainableEncoder, examples: Sequence[Example], options: ScoreOptions | None = None
    ) -> None:
        self._model, self._options = model, options or ScoreOptions()
        scored = [example for example in examples if example.scores and example.negatives]
        if not scored or not self._options.limits.negatives:
            raise TrainingError(
                "No example has negatives with a teacher's scores; make them with `ragindex train mine --scores soft`."
            )
        asked = sorted({text_key(example.query) for example in scored})
        random.Random(self._options.seed).shuffle(asked)  # noqa: S311 - sampling, not secrecy
        apart = set(asked[: min(_MOST, int(self._options.held_out * len(asked)))])
        self._held_out = [example for example in scored if text_key(example.query) in apart]
        self._examples = [example for example in scored if text_key(example.query) not in apart]

    @property
    def model(self) -> nn.Module:
        """The student."""
        return self._model

    @property
    def counts(self) -> Mapping[str, int]:
        """How many examples are learnt from, and how many measured on."""
        return {"examples": len(self._examples), "held_out": len(self._held_out)}

    def parameter_groups(self, rate: float, *, weight_decay: float) -> list[dict[str, Any]]:
        """See `Objective`."""
        return self._model.parameter_groups(rate, weight_decay=weight_decay)

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """Rows; every process has its own part."""
        options, shard = self._options, Shard(rank(), world_size())
        return same_source_batches(self._examples, size=options.batch, seed=options.seed, epoch=epoch, shard=shard)

    def step(self, batch: list[int], backward: Backward) -> Mapping[str, float]:
        """See `Objective`."""
        examples = [self._examples[row] for row in batch]
        texts = BatchTexts.of(examples, most=self._options.limits.negatives)
        tokens = tokenised(self._model, examples, texts, self._options.limits)
        orders = {role: Order.by_length(items, budget=self._options.chunk) for role, items in tokens.items()}

        def loss(vectors: Embeddings) -> Tensor:
            restored = {role: orders[role].restore(rows) for role, rows in vectors.items()}
            return self._loss(self._lists(restored, texts, examples))

        fits = sum(order.padded for order in orders.values()) <= self._options.chunk
        run = plain_backward if fits else cached_backward
        total = run(self._model, {role: order.chunks for role, order in orders.items()}, loss, backward=backward)
        count = sum(len(item.ids) for items in tokens.values() for item in items)
        return {"loss": total.item(), "texts": len(examples), "tokens": count}

    @torch.inference_mode()
    def evaluate(self) -> Mapping[str, float]:
        """The loss on held-out examples, and how often student and teacher agree which document is best."""
        losses, agreed = 0.0, 0
        for start in range(0, len(self._held_out), self._options.batch):
            examples = self._held_out[start : start + self._options.batch]
            texts = BatchTexts.local(examples, most=self._options.limits.negatives)
            tokens = tokenised(self._model, examples, texts, self._options.limits)
            orders = {role: Order.by_length(items, budget=self._options.chunk) for role, items in tokens.items()}
            vectors = {
                role: order.restore(torch.cat([self._model(chunk) for chunk in order.chunks]))
                for role, order in orders.items()
            }
            lists = self._lists(vectors, texts, examples)
            losses += float(self._loss(lists)) * len(examples)
            agreed += int((_best(lists.student, lists.present) == _best(lists.teacher, lists.present)).sum())
        count = len(self._held_out)
        return {"held_out_loss": losses / count, "held_out_agreement": agreed / count} if count else {}

    def _lists(self, vectors: Roles, texts: BatchTexts, examples: Sequence[Example]) -> _Lists:
        student = list_cosines(vectors["queries"], vectors["positives"], negative_lists(vectors, texts))
        present = torch.cat([torch.ones(len(examples), 1, dtype=torch.bool), texts.present], dim=1)
        teacher = torch.zeros(present.shape)
        scores = [
            score for item, count in zip(examples, texts.counts, strict=True) for score in item.scores[: 1 + count]
        ]
        teacher[present] = torch.tensor(scores)
        return _Lists(student, teacher.to(student.device), present.to(student.device))

    def _loss(self, lists: _Lists) -> Tensor:
        options = self._options
        if options.loss == "margin-mse":
            return margin_mse(options.scale * lists.student, lists.teacher, present=lists.present)
        return listwise_kl(
            lists.student,
            lists.teacher,
            student_temperature=options.student_temperature,
            teacher_temperature=options.teacher_temperature,
            present=lists.present,
        )


def _best(scores: Tensor, present: Tensor) -> Tensor:
    return scores.masked_fill(~present, -torch.inf).argmax(dim=1)

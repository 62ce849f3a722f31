"""Supervised contrastive training: a query learns to find its positive among the other texts of its batch.

The third step of LLM2Vec (arXiv 2404.05961) and the usual last one of any text encoder. A batch holds examples of one
source, so that its negatives are hard, and no text twice. Explicit negatives come with the examples
(`ragindex train mine`). A teacher, if there is one, keeps the geometry it taught or the one that there was before:

    loss = share * InfoNCE(queries, documents) + teacher_weight * (2 - 2 cos to the teacher) + spread * spread-out term

Batches larger than memory go through cached gradients (`ragindex.train.gradcache`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ragindex.encoder import Encoder
from ragindex.encoder.tokenizer import Tokenized
from ragindex.errors import TrainingError, UsageError
from ragindex.train.contrast_batch import BatchTexts, Limits, Order, Roles, contrast_of, tokenised
from ragindex.train.data.batching import Shard, same_source_batches
from ragindex.train.data.examples import Example
from ragindex.train.embedder import Embedder, candidate
from ragindex.train.gradcache import cached_backward, plain_backward
from ragindex.train.losses import (
    Contrast,
    Embeddings,
    InfoNCE,
    Matryoshka,
    TaskTemperatures,
    TextIds,
    cosine_regression,
    info_nce,
    matryoshka,
    spread_out,
)
from ragindex.train.model import TrainableEncoder
from ragindex.train.objective import Backward
from ragindex.train.processes import gathered, rank, world_size

__all__ = ["ContrastiveOptions", "ContrastiveTraining"]

_CHARACTERS = 6  # of a token, on average and with room


@dataclass(frozen=True, slots=True)
class ContrastiveOptions:
    """How a contrastive step is made.

    batch: examples a step and process; chunk: padded tokens that are embedded at a time, more than that goes through
    cached gradients. negatives: explicit ones an example at most. query_tokens, document_tokens: texts are cut there.
    loss: see `InfoNCE`; share: its weight. learn_temperature: one temperature a source, trained. matryoshka: lengths
    that shall work when cut. teacher_weight, spread: of the other two terms. hard_negatives_after: share of the run
    after which in-batch negatives are left out and each query has its explicit ones only (NV-Embed's two stages, arXiv
    2405.17428); 1 keeps them. balance: exponent on the size of a source when one is drawn. table_factor: see
    `TrainableEncoder.parameter_groups`.
    """

    batch: int = 64
    chunk: int = 8192
    negatives: int = 4
    query_tokens: int = 64
    document_tokens: int = 256
    loss: InfoNCE = field(default_factory=InfoNCE)
    share: float = 1.0
    learn_temperature: bool = False
    matryoshka: Matryoshka | None = None
    teacher_weight: float = 0.0
    spread: float = 0.0
    hard_negatives_after: float = 1.0
    balance: float = 1.0
    table_factor: float = 1.0
    seed: int = 7

    def __post_init__(self) -> None:
        if self.batch < 2:
            raise UsageError("A contrastive batch needs at least two examples, or there is nothing to contrast.")
        if not 0 <= self.hard_negatives_after <= 1:
            raise UsageError("In-batch negatives end after a share of the run, from 0 to 1 (never).")
        if self.needs_negatives and not self.negatives:
            raise UsageError("Without in-batch and without explicit negatives there is nothing to contrast.")

    @property
    def needs_negatives(self) -> bool:
        """Whether, at some time, explicit negatives are all that there is."""
        return not self.loss.in_batch or self.hard_negatives_after < 1


class _Step(NamedTuple):
    """What the loss of a step takes beside the vectors."""

    texts: BatchTexts
    ids: TextIds
    source: str
    teacher: Mapping[str, Tensor]
    guide: Contrast | None


class ContrastiveTraining:
    """The objective for `ragindex.train.loop`.

    held_out: examples that are measured, not trained on. teacher: an encoder with vectors as long as the student's.
    guide: an encoder that says which negatives are false; needs `loss.guide`.

    Raises TrainingError for a teacher of another length, for fewer than two examples a process, and where explicit
    negatives are needed and there are none.
    """

    def __init__(
        self,
        model: TrainableEncoder,
        examples: Sequence[Example],
        options: ContrastiveOptions | None = None,
        *,
        held_out: Sequence[Example] = (),
        teacher: Encoder | None = None,
        guide: Encoder | None = None,
    ) -> None:
        self._encoder, self._examples, self._held_out = model, examples, held_out
        self._options = options or ContrastiveOptions()
        _check_examples(examples, self._options)
        if teacher is not None and teacher.dimensions != model.dimensions:
            raise TrainingError(
                f"The teacher's vectors have {teacher.dimensions} dimensions, the encoder's {model.dimensions}; "
                "choose a teacher of the same length."
            )
        if (guide is None) != (self._options.loss.guide is None):
            raise TrainingError("A guide and its margin go together; give both or neither.")
        self._teacher = None if teacher is None else Embedder(teacher)
        self._guide = None if guide is None else Embedder(guide)
        self._limits = Limits(self._options.query_tokens, self._options.document_tokens, self._options.negatives)
        self._loss = self._options.loss
        self._temperatures: TaskTemperatures | None = None
        self._model: nn.Module = model
        if self._options.learn_temperature:
            sources = sorted({example.source for example in examples})
            self._temperatures = TaskTemperatures(sources, initial=self._loss.temperature).to(model.device)
            self._model = nn.ModuleDict({"encoder": model, "temperatures": self._temperatures})

    @property
    def model(self) -> nn.Module:
        """The encoder, with the temperatures beside it if they are learnt."""
        return self._model

    def parameter_groups(self, rate: float, *, weight_decay: float) -> list[dict[str, Any]]:
        """See `Objective`. Temperatures move ten times as fast: they are few and on a scale of their own."""
        factor = self._options.table_factor
        groups = self._encoder.parameter_groups(rate, weight_decay=weight_decay, table_factor=factor)
        if self._temperatures is not None:
            groups.append({"params": list(self._temperatures.parameters()), "lr": 10 * rate, "weight_decay": 0.0})
        return groups

    def at(self, progress: float) -> None:
        """See `Scheduled`: which of the two stages the next step belongs to."""
        self._loss = self._options.loss
        if progress >= self._options.hard_negatives_after:
            self._loss = replace(self._loss, in_batch=False, directions=("q-d",), partition="joint")

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """Rows of one source, without a text twice; every process has its own part."""
        options = self._options
        return same_source_batches(
            self._examples,
            size=options.batch,
            seed=options.seed,
            epoch=epoch,
            alpha=options.balance,
            smallest=2,
            shard=Shard(rank(), world_size()),
        )

    def step(self, batch: list[int], backward: Backward) -> Mapping[str, float]:
        """See `Objective`."""
        examples = [self._examples[row] for row in batch]
        texts = BatchTexts.of(examples, most=self._limits.negatives)
        tokens = tokenised(self._encoder, examples, texts, self._limits)
        orders = {role: Order.by_length(items, budget=self._options.chunk) for role, items in tokens.items()}
        ids = texts.ids()
        context = _Step(texts, ids, examples[0].source, self._taught(examples), self._guided(examples, texts, ids))
        numbers: dict[str, float] = {}

        def loss(vectors: Embeddings) -> Tensor:
            restored = {role: orders[role].restore(rows) for role, rows in vectors.items()}
            return self._total(restored, context, numbers)

        fits = sum(order.padded for order in orders.values()) <= self._options.chunk
        run = plain_backward if fits else cached_backward
        chunks = {role: order.chunks for role, order in orders.items()}
        total = run(self._encoder, chunks, loss, backward=backward)
        count = sum(len(item.ids) for items in tokens.values() for item in items)
        return {"loss": total.item(), **numbers, "texts": len(examples), "tokens": count}

    @torch.inference_mode()
    def evaluate(self) -> Mapping[str, float]:
        """Reciprocal rank of the positive among all held-out positives, and how often it comes first."""
        if len(self._held_out) < 2:
            return {}
        texts = BatchTexts.local(self._held_out, most=0)
        tokens = tokenised(self._encoder, self._held_out, texts, self._limits)
        vectors = {role: self._embedded(items) for role, items in tokens.items()}
        scores = vectors["queries"] @ vectors["positives"].T
        known = _known(self._held_out).to(
            scores.device
        )  # what answers the query besides: its other positives, and copies
        own = scores.diagonal().unsqueeze(1)
        ranks = 1 + ((scores > own) & ~known).sum(1)
        return {"held_out_mrr": float((1 / ranks).mean()), "held_out_first": float((ranks == 1).float().mean())}

    def _total(self, vectors: Roles, step: _Step, numbers: dict[str, float]) -> Tensor:
        options = self._options
        temperature = None if self._temperatures is None else self._temperatures(step.source)

        def contrast(cut: Embeddings) -> Tensor:
            taken = contrast_of(cut, step.texts, step.ids)
            return info_nce(taken, self._loss, temperature=temperature, guide=step.guide)

        nce = (matryoshka(contrast, options.matryoshka) if options.matryoshka else contrast)(vectors)
        total = options.share * nce
        numbers["nce"] = nce.item()
        if temperature is not None:
            numbers["temperature"] = temperature.item()
        if step.teacher:
            parts = [cosine_regression(vectors[role], target) for role, target in step.teacher.items()]
            kept = torch.stack(parts).mean()
            numbers["to_teacher"] = kept.item()
            total = total + options.teacher_weight * kept
        if options.spread:
            spread = (spread_out(gathered(vectors["queries"])) + spread_out(gathered(vectors["positives"]))) / 2
            numbers["spread"] = spread.item()
            total = total + options.spread * spread
        return total

    def _taught(self, examples: Sequence[Example]) -> Mapping[str, Tensor]:
        return {} if self._teacher is None else self._read(self._teacher, examples)

    def _guided(self, examples: Sequence[Example], texts: BatchTexts, ids: TextIds) -> Contrast | None:
        if self._guide is None:
            return None
        vectors = self._read(self._guide, examples)
        if texts.depth:
            clipped = [_clipped(text, self._limits.document_tokens) for text in texts.negatives]
            vectors["negatives"] = self._tensor(self._guide.candidates([candidate(text) for text in clipped]))
        return contrast_of(vectors, texts, ids)

    def _read(self, encoder: Embedder, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Another encoder's vectors of queries and positives, cut about where the student's are."""
        asked = [replace(item, query=_clipped(item.query, self._limits.query_tokens)) for item in examples]
        positives = [
            candidate(_clipped(item.positive, self._limits.document_tokens), title=item.title) for item in examples
        ]
        return {
            "queries": self._tensor(encoder.queries(asked)),
            "positives": self._tensor(encoder.candidates(positives)),
        }

    def _embedded(self, items: Sequence[Tokenized]) -> Tensor:
        order = Order.by_length(items, budget=self._options.chunk)
        return order.restore(torch.cat([self._encoder(chunk) for chunk in order.chunks]))

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._encoder.device)


def _check_examples(examples: Sequence[Example], options: ContrastiveOptions) -> None:
    if not examples:
        raise TrainingError("There are no examples to train on.")
    if len(examples) < 2 * world_size():
        raise TrainingError(
            f"There {'is 1 example' if len(examples) == 1 else f'are {len(examples)} examples'} to train on, and a "
            f"query needs the answers of others: give at least {2 * world_size()}."
        )
    wants = options.needs_negatives or options.loss.mixing is not None
    if wants and not any(example.negatives for example in examples):
        raise TrainingError(
            "No example has negatives, and without in-batch ones they are all there is to contrast with; make them "
            "with `ragindex train mine`."
            if options.needs_negatives
            else "No example has negatives that could be mixed; make them with `ragindex train mine`."
        )


def _known(examples: Sequence[Example]) -> Tensor:
    """Which positives answer which queries by what the examples say, (n, n) bool."""
    positives: dict[str, set[str]] = {}
    for example in examples:
        positives.setdefault(example.query, set()).add(example.positive)
    return torch.tensor([[other.positive in positives[item.query] for other in examples] for item in examples])


def _clipped(text: str, tokens: int) -> str:
    """The beginning of a text, about so many tokens of English."""
    characters = _CHARACTERS * tokens
    return text if len(text) <= characters else text[:characters].rsplit(None, 1)[0]

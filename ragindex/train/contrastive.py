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
from ragindex.encoder.torch_forward import token_budget_batches
from ragindex.errors import TrainingError, UsageError
from ragindex.train.data.batching import Shard, same_source_batches
from ragindex.train.data.examples import Example
from ragindex.train.embedder import Embedder, candidate
from ragindex.train.gradcache import cached_backward, plain_backward
from ragindex.train.loop import Backward
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
    text_ids,
)
from ragindex.train.model import TrainableEncoder
from ragindex.train.processes import gathered, rank, world_size

__all__ = ["ContrastiveOptions", "ContrastiveTraining"]


_CHARACTERS = 6  # of a token, on average and with room


@dataclass(frozen=True, slots=True)
class ContrastiveOptions:
    """How a contrastive step is made.

    batch: examples a step and process; chunk: padded tokens that are embedded at a time, more than that goes through
    cached gradients. negatives: explicit ones an example at most. query_tokens, document_tokens: texts are cut there.
    loss: see `InfoNCE`; share: its weight. learn_temperature: one temperature a source, trained. matryoshka: lengths
    that shall work when cut. teacher_weight, spread: of the other two terms. stages: share of the run after which
    in-batch negatives are left out (NV-Embed's two stages, arXiv 2405.17428); 1 keeps them. balance: exponent on the
    size of a source when one is drawn. table_factor: see `TrainableEncoder.parameter_groups`.
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
    balance: float = 1.0
    table_factor: float = 1.0
    seed: int = 7

    def __post_init__(self) -> None:
        if self.batch < 2:
            raise UsageError("A contrastive batch needs at least two examples, or there is nothing to contrast.")


class _Texts(NamedTuple):
    """The texts of a batch by role, tokenised, and which explicit negatives are there: bool (n, k) or None."""

    tokens: Mapping[str, Sequence[Tokenized]]
    present: np.ndarray | None
    ids: TextIds


class ContrastiveTraining:
    """The objective for `ragindex.train.loop`.

    held_out: examples that are measured, not trained on. teacher: an encoder with vectors as long as the student's.
    guide: an encoder that says which negatives are false; needs `loss.guide`.
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
        self._model, self._examples, self._held_out = model, examples, held_out
        self._options = options or ContrastiveOptions()
        if not examples:
            raise TrainingError("There are no examples to train on.")
        if teacher is not None and teacher.dimensions != model.dimensions:
            raise TrainingError(
                f"The teacher's vectors have {teacher.dimensions} dimensions, the encoder's {model.dimensions}; "
                "choose a teacher of the same length."
            )
        if (guide is None) != (self._options.loss.guide is None):
            raise TrainingError("A guide and its margin go together; give both or neither.")
        self._teacher = None if teacher is None else Embedder(teacher)
        self._guide = None if guide is None else Embedder(guide)
        self._temperatures = None
        if self._options.learn_temperature:
            sources = sorted({example.source for example in examples})
            self._temperatures = TaskTemperatures(sources, initial=self._options.loss.temperature).to(model.device)

    @property
    def model(self) -> nn.Module:
        """The encoder, with the temperatures beside it if they are learnt."""
        if self._temperatures is None:
            return self._model
        return nn.ModuleDict({"encoder": self._model, "temperatures": self._temperatures})

    def parameter_groups(self, rate: float, *, weight_decay: float) -> list[dict[str, Any]]:
        """See `Objective`. Temperatures move ten times as fast: they are few and on a scale of their own."""
        factor = self._options.table_factor
        groups = self._model.parameter_groups(rate, weight_decay=weight_decay, table_factor=factor)
        if self._temperatures is not None:
            groups.append({"params": list(self._temperatures.parameters()), "lr": 10 * rate, "weight_decay": 0.0})
        return groups

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
        texts = self._texts(examples)
        orders = {role: _by_length(items) for role, items in texts.tokens.items()}
        chunks = {role: self._chunks(items, orders[role]) for role, items in texts.tokens.items()}
        places = {role: torch.from_numpy(np.argsort(order)).to(self._model.device) for role, order in orders.items()}
        teacher = self._taught(examples) if self._teacher is not None else {}
        guide = self._guided(examples, texts) if self._guide is not None else None
        numbers: dict[str, float] = {}

        def loss(vectors: Embeddings) -> Tensor:
            ordered = {role: vectors[role][places[role]] for role in vectors}
            return self._loss(ordered, texts, examples[0].source, teacher, guide, numbers)

        run = plain_backward if self._fits(chunks) else cached_backward
        total = run(self._model, chunks, loss, backward=backward)
        tokens = sum(len(item.ids) for items in texts.tokens.values() for item in items)
        return {"loss": total.item(), **numbers, "texts": len(examples), "tokens": tokens}

    @torch.inference_mode()
    def evaluate(self) -> Mapping[str, float]:
        """Reciprocal rank of the positive among all held-out positives, and how often it comes first."""
        if len(self._held_out) < 2:
            return {}
        texts = self._texts([_without_negatives(example) for example in self._held_out])
        vectors = {role: self._embedded(items) for role, items in texts.tokens.items()}
        scores = vectors["queries"] @ vectors["positives"].T
        own = scores.diagonal().unsqueeze(1)
        same = texts.ids.positives.unsqueeze(0) == texts.ids.positives.unsqueeze(1)  # copies of the positive are right
        ranks = 1 + ((scores > own) & ~same.to(scores.device)).sum(1)
        return {"held_out_mrr": float((1 / ranks).mean()), "held_out_first": float((ranks == 1).float().mean())}

    def _texts(self, examples: Sequence[Example]) -> _Texts:
        options = self._options
        depth = min(options.negatives, max((len(example.negatives) for example in examples), default=0))
        depth = _largest(depth)
        tokens = {
            "queries": [
                self._model.queries([example.query], instruction=example.instruction, max_tokens=options.query_tokens)[
                    0
                ]
                for example in examples
            ],
            "positives": self._model.documents(
                [example.positive for example in examples],
                titles=[example.title for example in examples],
                max_tokens=options.document_tokens,
            ),
        }
        queries, positives = (
            text_ids([example.query for example in examples]),
            text_ids([example.positive for example in examples]),
        )
        if not depth:
            return _Texts(tokens, None, TextIds(gathered(queries), gathered(positives)))
        listed = [(*example.negatives, *([example.positive] * depth))[:depth] for example in examples]
        present = np.array([[place < len(example.negatives) for place in range(depth)] for example in examples])
        flat = [text for row in listed for text in row]
        tokens["negatives"] = self._model.documents(flat, max_tokens=options.document_tokens)
        numbers = text_ids(flat).view(len(examples), depth)
        return _Texts(tokens, present, TextIds(gathered(queries), gathered(positives), gathered(numbers)))

    def _queries(self, examples: Sequence[Example]) -> list[Tokenized]:
        limit = self._options.query_tokens
        instructions = {example.instruction for example in examples}
        if len(instructions) == 1:
            texts = [example.query for example in examples]
            return self._model.queries(texts, instruction=instructions.pop(), max_tokens=limit)
        return [
            self._model.queries([example.query], instruction=example.instruction, max_tokens=limit)[0]
            for example in examples
        ]

    def _chunks(self, items: Sequence[Tokenized], order: np.ndarray) -> list[list[Tokenized]]:
        lengths = [len(items[row].ids) for row in order]
        return [
            [items[order[place]] for place in group] for group in token_budget_batches(lengths, self._options.chunk)
        ]

    def _fits(self, chunks: Mapping[str, Sequence[Sequence[Tokenized]]]) -> bool:
        """Whether all activations together stay within the budget of one chunk."""
        padded = sum(len(part) * max(len(item.ids) for item in part) for parts in chunks.values() for part in parts)
        return padded <= self._options.chunk

    def _loss(
        self,
        vectors: Mapping[str, Tensor],
        texts: _Texts,
        source: str,
        teacher: Mapping[str, Tensor],
        guide: Contrast | None,
        numbers: dict[str, float],
    ) -> Tensor:
        options = self._options
        temperature = None if self._temperatures is None else self._temperatures(source)

        def contrast(cut: Embeddings) -> Tensor:
            return info_nce(_contrast(cut, texts), options.loss, temperature=temperature, guide=guide)

        nce = (matryoshka(contrast, options.matryoshka) if options.matryoshka else contrast)(vectors)
        total = options.share * nce
        numbers["nce"] = nce.item()
        if teacher:
            parts = [cosine_regression(vectors[role], target) for role, target in teacher.items()]
            kept = torch.stack(parts).mean()
            numbers["to_teacher"] = kept.item()
            total = total + options.teacher_weight * kept
        if options.spread:
            total = total + options.spread * (spread_out(vectors["queries"]) + spread_out(vectors["positives"])) / 2
        return total

    def _taught(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        assert self._teacher is not None
        return self._read(self._teacher, examples)

    def _guided(self, examples: Sequence[Example], texts: _Texts) -> Contrast:
        assert self._guide is not None
        vectors = self._read(self._guide, examples)
        if texts.present is not None:
            depth = texts.present.shape[1]
            flat = [
                text for example in examples for text in (*example.negatives, *([example.positive] * depth))[:depth]
            ]
            vectors["negatives"] = self._tensor(self._guide.candidates([candidate(text) for text in flat]))
        return _contrast(vectors, texts)

    def _read(self, encoder: Embedder, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Another encoder's vectors of queries and positives, cut about where the student's are."""
        options = self._options
        asked = [replace(example, query=_clipped(example.query, options.query_tokens)) for example in examples]
        positives = [
            candidate(_clipped(example.positive, options.document_tokens), title=example.title) for example in examples
        ]
        return {
            "queries": self._tensor(encoder.queries(asked)),
            "positives": self._tensor(encoder.candidates(positives)),
        }

    def _embedded(self, items: Sequence[Tokenized]) -> Tensor:
        order = _by_length(items)
        vectors = torch.cat([self._model(part) for part in self._chunks(items, order)])
        return vectors[torch.from_numpy(np.argsort(order)).to(vectors.device)]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._model.device)


def _contrast(vectors: Mapping[str, Tensor], texts: _Texts) -> Contrast:
    """The vectors of this process's queries and of all processes' documents."""
    own = vectors["queries"]
    negatives, present = None, None
    if "negatives" in vectors and texts.present is not None:
        negatives = gathered(vectors["negatives"].unflatten(0, texts.present.shape))
        present = gathered(torch.from_numpy(texts.present.astype(np.int64))).bool().to(own.device)
    return Contrast(
        queries=own,
        positives=gathered(vectors["positives"]),
        negatives=negatives,
        present=present,
        anchors=gathered(own),
        offset=rank() * len(own),
        ids=texts.ids,
    )


def _by_length(items: Sequence[Tokenized]) -> np.ndarray:
    """Places of the items, longest first: the order in which `token_budget_batches` leaves a sorted list."""
    return np.argsort([-len(item.ids) for item in items], kind="stable")


def _largest(depth: int) -> int:
    """The largest of all processes' numbers of negatives, so that their tensors are of one shape."""
    return int(gathered(torch.tensor([depth])).max())


def _without_negatives(example: Example) -> Example:
    return Example(example.query, example.positive, title=example.title, instruction=example.instruction)


def _clipped(text: str, tokens: int) -> str:
    """The beginning of a text, about so many tokens of English."""
    characters = _CHARACTERS * tokens
    return text if len(text) <= characters else text[:characters].rsplit(None, 1)[0]

"""What a contrastive step reads: the texts of a batch by role, tokenised, and the order in which they are embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ragindex.encoder.tokenizer import Tokenized
from ragindex.encoder.torch_forward import token_budget_batches
from ragindex.train.data.examples import Example
from ragindex.train.losses import Contrast, TextIds, text_ids
from ragindex.train.model import TrainableEncoder
from ragindex.train.processes import gathered, rank

__all__ = ["BatchTexts", "Limits", "Order", "Roles", "contrast_of", "negative_lists", "tokenised"]

Roles = Mapping[str, Tensor]  # vectors by role: queries (n, d), positives (n, d), negatives (those that are there, d)


@dataclass(frozen=True, slots=True)
class Limits:
    """Where texts are cut, in tokens, and how many explicit negatives an example brings at most."""

    query_tokens: int = 64
    document_tokens: int = 256
    negatives: int = 4


@dataclass(frozen=True, slots=True)
class BatchTexts:
    """The texts of the examples of a step.

    negatives: explicit ones of all examples, end to end; counts: how many each has; depth: places for them in a
    `Contrast`, the same in all processes. Where other processes have negatives and this one has none, one text stands
    in that belongs to no example, so that all of them take part in what they exchange.
    """

    queries: tuple[str, ...]
    positives: tuple[str, ...]
    negatives: tuple[str, ...]
    counts: tuple[int, ...]
    depth: int

    @classmethod
    def of(cls, examples: Sequence[Example], *, most: int) -> BatchTexts:
        """most: negatives of an example at most, its first ones. To be called by all processes at once."""
        own = cls.local(examples, most=most)
        return cls.local(examples, most=most, depth=int(gathered(torch.tensor([own.depth])).max()))

    @classmethod
    def local(cls, examples: Sequence[Example], *, most: int, depth: int = 0) -> BatchTexts:
        """As `of`, of this process alone. depth: at least so many places."""
        counts = tuple(min(most, len(example.negatives)) for example in examples)
        depth = max(depth, *counts)
        flat = [text for example, count in zip(examples, counts, strict=True) for text in example.negatives[:count]]
        if depth and not flat:
            flat = [examples[0].positive]
        return cls(
            tuple(example.query for example in examples),
            tuple(example.positive for example in examples),
            tuple(flat),
            counts,
            depth,
        )

    @property
    def present(self) -> Tensor:
        """Which places for negatives are taken, bool (n, depth)."""
        return torch.arange(self.depth) < torch.tensor(self.counts).unsqueeze(1)

    def ids(self) -> TextIds:
        """Numbers of the texts of all processes."""
        queries, positives = gathered(text_ids(self.queries)), gathered(text_ids(self.positives))
        if not self.depth:
            return TextIds(queries, positives)
        numbers = torch.full(self.present.shape, -1, dtype=torch.int64)
        numbers[self.present] = text_ids(self.negatives)[: sum(self.counts)]
        return TextIds(queries, positives, gathered(numbers))


def tokenised(
    model: TrainableEncoder, examples: Sequence[Example], texts: BatchTexts, limits: Limits
) -> dict[str, list[Tokenized]]:
    """The texts by role; "negatives" is left out when there are none."""
    titles = [example.title for example in examples]
    roles = {
        "queries": _queries(model, examples, limits.query_tokens),
        "positives": model.documents(texts.positives, titles=titles, max_tokens=limits.document_tokens),
    }
    if texts.depth:
        roles["negatives"] = model.documents(texts.negatives, max_tokens=limits.document_tokens)
    return roles


def _queries(model: TrainableEncoder, examples: Sequence[Example], limit: int) -> list[Tokenized]:
    items: dict[int, Tokenized] = {}
    for instruction in dict.fromkeys(example.instruction for example in examples):
        rows = [row for row, example in enumerate(examples) if example.instruction == instruction]
        found = model.queries([examples[row].query for row in rows], instruction=instruction, max_tokens=limit)
        items.update(zip(rows, found, strict=True))
    return [items[row] for row in range(len(examples))]


@dataclass(frozen=True, slots=True)
class Order:
    """Chunks of texts of similar length, which need little padding, and the way back to the order of the batch."""

    chunks: list[list[Tokenized]]
    back: Tensor

    @classmethod
    def by_length(cls, items: Sequence[Tokenized], *, budget: int) -> Order:
        """budget: padded tokens of a chunk."""
        groups = token_budget_batches([len(item.ids) for item in items], budget)
        places = torch.tensor([place for group in groups for place in group], dtype=torch.int64)
        return cls([[items[place] for place in group] for group in groups], places.argsort())

    @property
    def padded(self) -> int:
        """Tokens of all chunks, padding included."""
        return sum(len(chunk) * max(len(item.ids) for item in chunk) for chunk in self.chunks)

    def restore(self, vectors: Tensor) -> Tensor:
        """`vectors` of the texts in the order of the chunks, in the order of the batch."""
        return vectors[self.back.to(vectors.device)]


def negative_lists(vectors: Roles, texts: BatchTexts) -> Tensor:
    """The negatives of each example of this process, (n, depth, d); 0 where it has none."""
    found = vectors["negatives"]
    there = texts.present.to(found.device)
    lists = found.new_zeros((*there.shape, found.shape[-1]))
    lists[there] = found[: sum(texts.counts)]
    return lists


def contrast_of(vectors: Roles, texts: BatchTexts, ids: TextIds) -> Contrast:
    """The queries of this process, and the documents of all."""
    own = vectors["queries"]
    negatives = present = None
    if texts.depth:
        negatives, there = gathered(negative_lists(vectors, texts)), texts.present.to(own.device)
        present = gathered(there.long()).bool()
    return Contrast(
        queries=own,
        positives=gathered(vectors["positives"]),
        negatives=negatives,
        present=present,
        anchors=gathered(own),
        offset=rank() * len(own),
        ids=ids,
    )

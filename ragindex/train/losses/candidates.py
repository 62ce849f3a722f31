"""The vectors of one contrastive step: which document belongs to which query, and what equals what.

Example number e owns one query, one positive and up to k explicit negatives. One process computes the loss of its own
n queries against the documents of all N examples, which may come from several processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Literal

import torch
from torch import Tensor

from ragindex.errors import TrainingError
from ragindex.train.losses.cosines import cosines, widened

__all__ = ["DIRECTIONS", "Contrast", "Direction", "TextIds", "negative_lists", "text_ids"]

Direction = Literal["q-d", "d-q", "q-q", "d-d"]
DIRECTIONS: tuple[Direction, ...] = ("q-d", "d-q", "q-q", "d-d")

_NO_TEXT = -1  # `text_ids` gives no negative numbers


@dataclass(frozen=True, slots=True, eq=False)
class TextIds:
    """A number for each text, equal for equal texts: queries (N,), positives (N,), negatives (N, k). See `text_ids`."""

    queries: Tensor
    positives: Tensor
    negatives: Tensor | None = None

    def covers(self, examples: int) -> bool:
        """Whether there are numbers for that many examples."""
        lists = [self.queries, self.positives, *([] if self.negatives is None else [self.negatives])]
        return all(len(item) == examples for item in lists)

    def to(self, device: torch.device) -> TextIds:
        """The same on another device."""
        negatives = None if self.negatives is None else self.negatives.to(device)
        return TextIds(self.queries.to(device), self.positives.to(device), negatives)

    def documents(self, negatives: int) -> Tensor:
        """Numbers of the positives and of the first `negatives` of each example, ordered as `Contrast.documents`.

        Negatives without a number, such as mixed ones, equal nothing.
        """
        count = len(self.positives)
        known = self.positives.new_empty((count, 0)) if self.negatives is None else self.negatives[:, :negatives]
        unknown = self.positives.new_full((count, negatives - known.shape[1]), _NO_TEXT)
        return torch.cat([self.positives, torch.cat([known, unknown], dim=1).flatten()])


def text_ids(texts: Sequence[str]) -> Tensor:
    """A number of 63 bits for each text, (n,) int64: equal texts have equal numbers, in every process and every run."""
    digests = (blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    return torch.tensor([int.from_bytes(digest, "big") >> 1 for digest in digests], dtype=torch.int64)


def negative_lists(vectors: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """`negatives` (N, k, d) and `present` (N, k) of a `Contrast`, from lists of different lengths.

    vectors: (sum of counts, d), the negatives of the first example, then of the second and so on; counts: how many
    each example has, k the largest. Raises TrainingError when they do not add up.
    """
    if sum(counts) != len(vectors):
        raise TrainingError(f"{len(vectors)} negatives cannot be shared out as {sum(counts)}.")
    lengths = torch.tensor(counts, device=vectors.device).unsqueeze(1)
    present = torch.arange(max(counts, default=0), device=vectors.device) < lengths
    lists = vectors.new_zeros((*present.shape, vectors.shape[-1]))
    lists[present] = vectors
    return lists, present


@dataclass(frozen=True, slots=True, eq=False)
class Contrast:
    """Unit vectors of one step.

    queries: (n, d), those of this process. positives: (N, d), of all examples. negatives: (N, k, d), explicit ones;
    present: (N, k) bool, False where an example has fewer than k. anchors: (N, d), the queries of all examples; left
    out when they are `queries`. offset: example number of the first of `queries`. ids: of the texts of all N examples,
    on any device; everything else is on one.

    Raises TrainingError when the shapes contradict each other.
    """

    queries: Tensor
    positives: Tensor
    negatives: Tensor | None = None
    present: Tensor | None = None
    anchors: Tensor | None = None
    offset: int = 0
    ids: TextIds | None = None

    def __post_init__(self) -> None:
        own, total = len(self.queries), len(self.positives)
        if own == 0 or self.offset < 0 or self.offset + own > total:
            raise TrainingError(f"{own} queries from example {self.offset} on do not fit {total} positives.")
        negatives = (total, 0) if self.negatives is None else tuple(self.negatives.shape[:2])
        wanted = {"anchors": (total,), "negatives": (total, negatives[1]), "present": (total, negatives[1])}
        for name, shape in wanted.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape[: len(shape)]) != shape:
                raise TrainingError(f"{name} of shape {tuple(value.shape)} do not fit {total} positives; want {shape}.")
        if self.ids is not None and not self.ids.covers(total):
            raise TrainingError(f"Numbers of texts must be given for all {total} examples.")

    @property
    def rows(self) -> Tensor:
        """Example numbers of the queries, (n,). In `documents` they are the rows of the positives."""
        return torch.arange(self.offset, self.offset + len(self.queries), device=self.queries.device)

    @property
    def depth(self) -> int:
        """Explicit negatives of an example, absent ones counted: k."""
        return 0 if self.negatives is None else self.negatives.shape[1]

    @property
    def documents(self) -> Tensor:
        """Positives, then the negatives example by example: (m, d), m = N * (1 + k), in float32."""
        if self.negatives is None:
            return widened(self.positives)
        return torch.cat([widened(self.positives), widened(self.negatives).flatten(0, 1)])

    @property
    def owners(self) -> Tensor:
        """Example number of each of `documents`, (m,)."""
        examples = torch.arange(len(self.positives), device=self.queries.device)
        return torch.cat([examples, examples.repeat_interleave(self.depth)])

    @property
    def absent(self) -> Tensor:
        """True for those of `documents` that only fill up a list, (m,)."""
        absent = torch.zeros(len(self.positives) * (1 + self.depth), dtype=torch.bool, device=self.queries.device)
        if self.present is not None:
            absent[len(self.positives) :] = ~self.present.flatten()
        return absent

    @property
    def own_positives(self) -> Tensor:
        """The positive of each of `queries`, (n, d)."""
        return self.positives[self.offset : self.offset + len(self.queries)]

    def cosines(self, direction: Direction) -> Tensor:
        """Cosines of what is left of the hyphen with what is right of it.

        "q-d": (n, m) queries and documents; "q-q": (n, N) queries and all queries; "d-q" and "d-d": the queries'
        positives with all queries (n, N) and with all documents (n, m).
        """
        left = self.queries if direction.startswith("q") else self.own_positives
        return cosines(left, self.documents if direction.endswith("d") else self.all_queries())

    def is_laid_out_as(self, other: Contrast) -> bool:
        """Whether both have as many queries, documents and negatives, in the same places."""
        mine, theirs = ((len(item.queries), len(item.positives), item.depth, item.offset) for item in (self, other))
        return mine == theirs

    def with_negatives(self, more: Tensor, present: Tensor) -> Contrast:
        """The same with further explicit negatives: `more` (N, c, d), of which `present` (N, c) are there."""
        if self.negatives is None:
            return replace(self, negatives=more, present=present)
        before = torch.ones_like(self.negatives[..., 0], dtype=torch.bool) if self.present is None else self.present
        return replace(
            self,
            negatives=torch.cat([widened(self.negatives), widened(more)], dim=1),
            present=torch.cat([before, present], dim=1),
        )

    def all_queries(self) -> Tensor:
        """The queries of all examples, (N, d)."""
        if self.anchors is not None:
            return self.anchors
        if len(self.queries) != len(self.positives):
            raise TrainingError("Contrasting with queries needs `anchors`, the queries of all examples.")
        return self.queries

"""Which texts are computed together, and how they lie in memory: the longest first, padded to a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Protocol

import numpy as np
import torch

from ragindex.encoder.tokenizer import Tokenized
from ragindex.errors import EncoderError

__all__ = ["Batch", "Budget", "FixedShapes", "Part", "Runner", "Schedule", "in_order", "token_budget_batches"]

_FIXED_TOKENS = 512  # in a batch of fixed shape: enough to be worth the call, not too many for a single query
_SHORTEST = 16


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts as rows of one length, padded on the right.

    ids: int64 (n, length); real: bool (n, length), false for padding; pooled: float32 (n, length), 1 for a token that
    is pooled.
    """

    ids: np.ndarray
    real: np.ndarray
    pooled: np.ndarray

    @classmethod
    def of(cls, items: Sequence[Tokenized], *, length: int | None = None) -> Batch:
        """length: of a row, for a longer one than the longest text needs."""
        lengths = np.array([len(item.ids) for item in items])
        real = np.arange(length or lengths.max()) < lengths[:, None]
        ids = np.zeros(real.shape, dtype=np.int64)
        ids[real] = np.concatenate([item.ids for item in items])
        pooled = np.zeros(real.shape, dtype=np.float32)
        pooled[real] = np.concatenate([item.pooled for item in items])
        return cls(ids, real, pooled)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text."""
        return [int(length) for length in self.real.sum(axis=1)]


@dataclass(frozen=True, slots=True)
class Part:
    """What was computed for some of the texts: their places, and a row for each on the device."""

    places: list[int]
    rows: torch.Tensor


class Runner(Protocol):
    """Computes a row for each of some texts."""

    def __call__(self, items: list[Tokenized], length: int | None = None) -> torch.Tensor:
        """length: what all of them are padded to, if that is not the longest of them."""


class Schedule(Protocol):
    """Which texts are computed together."""

    def compute(self, items: Sequence[Tokenized], run: Runner) -> Iterator[Part]:
        """What `run` gives for all items, the longest first. Raises EncoderError for a text that does not fit into
        the device's memory.
        """


class Budget:
    """Batches of as many padded tokens as the device takes; fewer once it has run out of memory."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def compute(self, items: Sequence[Tokenized], run: Callable[[list[Tokenized]], torch.Tensor]) -> Iterator[Part]:
        """See `Schedule`; a batch that does not fit is halved."""
        order = _longest_first([len(item.ids) for item in items])
        start = 0
        while start < len(order):
            length = len(items[order[start]].ids)
            places = order[start : start + max(1, self.tokens // length)]
            rows = _attempt(partial(run, [items[place] for place in places]))
            if rows is not None:
                yield Part(places, rows)
                start += len(places)
            elif len(places) > 1:
                self.tokens = length * (len(places) // 2)
            else:
                raise _too_long(length)


class FixedShapes:
    """Batches whose shape follows from the length of a text alone, so that its row is the same, bit for bit, whatever
    else is encoded: rows and columns are filled up.
    """

    def compute(self, items: Sequence[Tokenized], run: Runner) -> Iterator[Part]:
        """See `Schedule`."""
        lengths = [_rounded(len(item.ids)) for item in items]
        for length, equal in groupby(_longest_first(lengths), key=lambda place: lengths[place]):
            group, rows = list(equal), max(1, _FIXED_TOKENS // length)
            for start in range(0, len(group), rows):
                places = group[start : start + rows]
                filled = [items[place] for place in places] + [items[places[0]]] * (rows - len(places))
                found = _attempt(partial(run, filled, length))
                if found is None:
                    raise _too_long(length)
                yield Part(places, found[: len(places)])


def _rounded(length: int) -> int:
    """A power of two, then multiples of the largest one: few shapes, and none much more than twice a text's length."""
    if length > _FIXED_TOKENS:
        return -(-length // _FIXED_TOKENS) * _FIXED_TOKENS
    return max(_SHORTEST, 1 << (length - 1).bit_length())


def _attempt(run: Callable[[], torch.Tensor]) -> torch.Tensor | None:
    """What `run` gives; None when the memory of the device did not suffice."""
    try:
        return run()
    except torch.OutOfMemoryError:
        pass  # what the attempt held is free only after this block
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return None


def _too_long(length: int) -> EncoderError:
    return EncoderError(
        f"A text of {length} tokens does not fit into the device's memory; cut it into smaller chunks, or use another "
        "device."
    )


def in_order(parts: Iterable[Part]) -> np.ndarray:
    """The rows of all parts, in the order of the texts; copied from the device at once."""
    parts = list(parts)
    rows = torch.cat([part.rows for part in parts]).cpu().numpy()
    result = np.empty_like(rows)
    result[[place for part in parts for place in part.places]] = rows
    return result


def _longest_first(lengths: Sequence[int]) -> list[int]:
    """Places by falling length, so that neighbours need little padding and a device that is too small fails at once."""
    return sorted(range(len(lengths)), key=lambda place: -lengths[place])


def token_budget_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Places grouped so that each group, padded to its longest, holds at most `budget` tokens; longest first. A text
    that is longer than the budget is alone.
    """
    order = _longest_first(lengths)
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, lengths[order[start]]))
        batches.append(order[start : start + size])
        start += size
    return batches

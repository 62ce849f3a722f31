"""Attention within each of several texts that lie end to end: what the hardware computes fastest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch

from ragindex.encoder.devices import send

__all__ = ["Run", "Texts", "Varlen", "attend_by_products", "choose_varlen", "products_pay"]

_SCORES = 2**19  # in a block of products, for each thread: a megabyte, which stays in a core's caches
_MANY_SCORES = 2**16  # from here on
_ROWS = 64  # of a block at least, so that a product is worth its call


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring texts of equal length, in tokens; `start` is where the first of them begins."""

    start: int
    count: int
    length: int

    @property
    def stop(self) -> int:
        """Where the last of them ends."""
        return self.start + self.count * self.length


@dataclass(frozen=True, slots=True)
class Texts:
    """Where texts begin and end in a row. bounds: int32 (n + 1,), the first is 0; longest: tokens of the longest."""

    runs: tuple[Run, ...]
    bounds: torch.Tensor
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Texts:
        """Texts of these lengths, one after the other."""
        bounds = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return cls(tuple(_runs(lengths)), send(bounds.numpy(), device), max(lengths))


class Varlen(Protocol):
    """Attention over a row of texts in one call: every token reads those of its own text, all of them or (causal) those
    up to itself.
    """

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, texts: Texts, scale: float, causal: bool
    ) -> torch.Tensor:
        """What the tokens read, (tokens, heads, size). query: (tokens, heads, size); key and value: (tokens, key heads,
        size), where the number of key heads divides that of heads.
        """


def choose_varlen(device: torch.device, dtype: torch.dtype) -> Varlen | None:
    """FlashAttention from the package of that name, or as torch brings it; None where there is neither."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    return _flash_attn() or _torch_varlen()


def products_pay(query: torch.Tensor) -> bool:
    """Whether `attend_by_products` is faster for queries (n, heads, length, size) than torch's fused attention, which
    on a CPU multiplies bfloat16 as float32 but costs less to call.
    """
    texts, heads, length, _ = query.shape
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and texts * heads * length**2 >= _MANY_SCORES


def attend_by_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scale: float, causal: bool
) -> torch.Tensor:
    """Attention within texts of one length, by matrix products and a softmax in blocks that stay in the cache.

    query: (n, heads, length, size); key and value: (n, key heads, length, size). Returns (n, length, heads, size).
    Scores are rounded to the type of `query`; so that large ones lose nothing by it, the mean key is taken from all
    keys, which no softmax notices (SageAttention, arXiv 2410.02367, section 4.2).
    """
    texts, heads, length, _ = query.shape
    queries, keys, values = (_by_head(part, heads) for part in (query, key, value))
    keys = keys - keys.mean(dim=1, keepdim=True)
    later = _later(length, query) if causal else query.new_zeros((length, 1))
    read = queries.new_empty((*queries.shape[:2], values.shape[2]))
    for some, rows in _blocks(len(queries), length):
        scores = torch.baddbmm(later[rows], queries[some, rows], keys[some].mT, beta=int(causal), alpha=scale)
        torch.bmm(scores.softmax(dim=-1), values[some], out=read[some, rows])
    together: torch.Tensor = read.unflatten(0, (texts, heads))
    return together.transpose(1, 2)


def _blocks(count: int, length: int) -> Iterator[tuple[slice, slice]]:
    """Which matrices, of `count`, and which of their rows are multiplied at a time: several, or a part of one."""
    room = _SCORES * torch.get_num_threads()
    together, rows = max(1, room // length**2), max(_ROWS, room // length)
    for first in range(0, count, together):
        for start in range(0, length, rows):
            yield slice(first, first + together), slice(start, start + rows)


def _by_head(part: torch.Tensor, heads: int) -> torch.Tensor:
    """(n × heads, length, size) from (n, key heads, length, size): a key head serves several heads."""
    shared: torch.Tensor = part.unsqueeze(2).expand(-1, -1, heads // part.shape[1], -1, -1)
    return shared.flatten(0, 2)


def _later(length: int, like: torch.Tensor) -> torch.Tensor:
    """(length, length): minus infinity where a token would read a later one, else 0."""
    return torch.full((length, length), float("-inf"), dtype=like.dtype, device=like.device).triu(1)


def _flash_attn() -> Varlen | None:
    """The kernel of the flash-attn package, where it is installed."""
    try:
        from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]
    except ImportError:
        return None

    def attend(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, texts: Texts, scale: float, causal: bool
    ) -> torch.Tensor:
        limits = (texts.bounds, texts.bounds, texts.longest, texts.longest)
        read: torch.Tensor = flash_attn_varlen_func(query, key, value, *limits, softmax_scale=scale, causal=causal)
        return read

    return attend


def _torch_varlen() -> Varlen | None:
    """Torch's own build of FlashAttention, which has texts of many lengths since 2.10."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None

    def attend(
        query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, texts: Texts, scale: float, causal: bool
    ) -> torch.Tensor:
        limits = (texts.bounds, texts.bounds, texts.longest, texts.longest)
        window = (-1, 0) if causal else (-1, -1)
        read = varlen_attn(query, key, value, *limits, scale=scale, window_size=window, enable_gqa=True)
        assert isinstance(read, torch.Tensor)
        return read

    return attend


def _runs(lengths: Sequence[int]) -> Iterator[Run]:
    start = 0
    for length, equal in groupby(lengths):
        run = Run(start, len(list(equal)), length)
        yield run
        start = run.stop

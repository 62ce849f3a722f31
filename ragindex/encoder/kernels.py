"""Attention within each of several texts that lie end to end: the fastest way that the hardware has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch

from ragindex.encoder.devices import send

__all__ = ["Kernel", "Run", "Texts", "choose_kernel"]

_SCORES = 2**19  # in a block of products, for each thread: a megabyte, which stays in a core's caches
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


class Kernel(Protocol):
    """Softmax attention: every token reads those of its own text, all of them or (causal) those up to itself."""

    def __call__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, texts: Texts, scale: float, causal: bool
    ) -> torch.Tensor:
        """What the tokens read, (tokens, heads, size). query: (tokens, heads, size); key and value: (tokens, key heads,
        size), where the number of key heads divides that of heads.
        """


def choose_kernel(device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """The kernel for a device and number type; None where there is none that is worth its name."""
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        return _flash_attn() or _torch_varlen()
    if device.type == "cpu" and dtype == torch.bfloat16:
        return attend_by_products
    return None


def attend_by_products(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, texts: Texts, scale: float, causal: bool
) -> torch.Tensor:
    """Matrix products and a softmax, in blocks that stay in the cache, for bfloat16 on a CPU; see `Kernel`.

    A third faster than the fused kernel, which multiplies in float32 there. Scores are rounded to bfloat16; so that
    large ones lose nothing by it, the mean key is taken from all keys, which no softmax notices (SageAttention,
    arXiv 2410.02367, section 4.2).
    """
    result = query.new_empty((*query.shape[:2], value.shape[2]))
    for run in texts.runs:
        queries, keys, values = (_by_head(part, run, query.shape[1]) for part in (query, key, value))
        keys = keys - keys.mean(dim=1, keepdim=True)
        later = _later(run.length, query) if causal else query.new_zeros((run.length, 1))
        found = queries.new_empty((*queries.shape[:2], values.shape[2]))
        for some, rows in _blocks(len(queries), run.length):
            scores = torch.baddbmm(later[rows], queries[some, rows], keys[some].mT, beta=int(causal), alpha=scale)
            torch.bmm(scores.softmax(dim=-1), values[some], out=found[some, rows])
        texts_of_run = result[run.start : run.stop].unflatten(0, (run.count, run.length))
        texts_of_run.copy_(found.unflatten(0, (run.count, -1)).transpose(1, 2))
    return result


def _blocks(count: int, length: int) -> Iterator[tuple[slice, slice]]:
    """Which matrices, of `count`, and which of their rows are multiplied at a time: several, or a part of one."""
    room = _SCORES * torch.get_num_threads()
    together, rows = max(1, room // length**2), max(_ROWS, room // length)
    for first in range(0, count, together):
        for start in range(0, length, rows):
            yield slice(first, first + together), slice(start, start + rows)


def _by_head(row: torch.Tensor, run: Run, heads: int) -> torch.Tensor:
    """(count × heads, length, size): the part of each text and head; a key head serves several heads."""
    cut = row[run.start : run.stop].unflatten(0, (run.count, run.length)).transpose(1, 2)
    shared: torch.Tensor = cut.unsqueeze(2).expand(-1, -1, heads // row.shape[1], -1, -1)
    return shared.flatten(0, 2)


def _later(length: int, like: torch.Tensor) -> torch.Tensor:
    """(length, length): minus infinity where a token would read a later one, else 0."""
    return torch.full((length, length), float("-inf"), dtype=like.dtype, device=like.device).triu(1)


def _flash_attn() -> Kernel | None:
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


def _torch_varlen() -> Kernel | None:
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

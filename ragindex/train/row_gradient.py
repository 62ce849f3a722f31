"""The gradient of a table of token rows, for the price of the rows that are read.

torch makes a gradient as large as the table in every backward pass: for 40,000 rows of 384 values 62 MB, fetched from
the system, set to zero and added up, though a batch reads a few thousand rows. On a CPU that was between a seventh of a
step and half of it (`benchmarks/training_step.py`). Here a backward pass adds its rows to the gradient that is there
already, and the first of a step takes the memory of the step before. What the optimiser sees is the same dense
gradient, up to the order in which the uses of a row are added.

Only for a table that one process holds whole: shards get their gradients from `fully_shard`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

__all__ = ["RowGradient", "by_rows"]


class RowGradient:
    """Reads rows of a table (rows, d), a leaf, and keeps the memory of its gradient from one step to the next.

    padding: a row that learns nothing, as in `nn.Embedding`.
    """

    def __init__(self, table: Tensor, *, padding: int | None = None) -> None:
        self._table, self._padding = table, padding
        self._kept: Tensor | None = None

    def rows(self, ids: Tensor) -> Tensor:
        """table[ids], of shape (*ids.shape, d)."""
        if not (torch.is_grad_enabled() and self._table.requires_grad):
            return embedding(ids, self._table)
        rows: Tensor = _Rows.apply(self._table, ids, self)  # type: ignore[no-untyped-call]
        return rows

    def add(self, ids: Tensor, gradient: Tensor) -> None:
        """Add to the gradient of the rows `ids`. As everywhere in torch a step begins with no gradient at all."""
        if self._table.grad is None:
            self._kept = torch.zeros_like(self._table) if self._kept is None else self._kept.zero_()
            self._table.grad = self._kept
        flat, parts = ids.reshape(-1), gradient.reshape(-1, gradient.shape[-1])
        if self._padding is not None:
            taught = flat != self._padding
            flat, parts = flat[taught], parts[taught]
        self._table.grad.index_add_(0, flat, parts.to(self._table.dtype))


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor, gradient: RowGradient) -> Tensor:
        ctx.ids, ctx.gradient = ids, gradient
        return embedding(ids, table)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        ctx.gradient.add(ctx.ids, gradients[0])
        return None, None, None  # it is where it belongs


def by_rows(model: nn.Module) -> None:
    """Let the embedding tables of `model` that lie in a CPU's memory find their gradients this way. A GPU is given its
    memory at once, and adds rows in an order that is another one each time.
    """
    for table in model.modules():
        if isinstance(table, nn.Embedding) and table.weight.device.type == "cpu" and _is_plain(table):
            quick = RowGradient(table.weight, padding=table.padding_idx)
            table.forward = quick.rows  # type: ignore[assignment, method-assign]


def _is_plain(table: nn.Embedding) -> bool:
    """Whether it does nothing but look rows up: some decoders have tables that scale them as well."""
    options = (table.max_norm is not None, table.scale_grad_by_freq, table.sparse)
    return type(table).forward is nn.Embedding.forward and not any(options)

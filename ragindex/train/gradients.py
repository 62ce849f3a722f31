"""Weights and gradients of several processes: the same weights to begin with, the mean of the gradients, its norm.

By hand and not by DistributedDataParallel, since cached gradients run backward several times a step. Shards are left to
`fully_shard`, which has added theirs up in the backward pass; only their norm is still to be found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["clip_gradients", "share_gradients", "share_weights"]


@torch.no_grad()
def share_weights(parameters: Iterable[nn.Parameter], accelerator: Accelerator) -> None:
    """Parameters begin as they are in the first process: new weights are random."""
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast

        for item in parameters:
            item.copy_(broadcast(item.detach().clone()))


def share_gradients(parameters: Sequence[nn.Parameter], accelerator: Accelerator) -> None:
    """The mean over the processes in place of each gradient; of shards it is there already."""
    if accelerator.num_processes == 1:
        return
    present = [item.grad for item in parameters if item.grad is not None and not _is_shard(item)]
    if not present:
        return
    flat = accelerator.reduce(torch.cat([gradient.reshape(-1) for gradient in present]), reduction="mean")
    for gradient, part in zip(present, flat.split([gradient.numel() for gradient in present]), strict=True):
        gradient.copy_(part.view_as(gradient))


@torch.no_grad()
def clip_gradients(parameters: Sequence[nn.Parameter], accelerator: Accelerator, *, limit: float) -> float:
    """Norm of all gradients as one vector, those of other processes' shards included; they are made shorter in place
    where it is above `limit`.
    """
    shards = [item.grad.to_local() for item in parameters if item.grad is not None and _is_shard(item)]  # type: ignore[attr-defined]
    if not shards:
        return float(nn.utils.clip_grad_norm_(parameters, limit))
    others = [item.grad for item in parameters if item.grad is not None and not _is_shard(item)]
    squares: Tensor = accelerator.reduce(nn.utils.get_total_norm(shards).square(), reduction="sum")
    norm = (squares + nn.utils.get_total_norm(others).to(squares.device).square()).sqrt()
    for gradient in (*shards, *others):
        gradient.mul_((limit / (norm + 1e-6)).clamp(max=1.0))  # as `clip_grad_norm_` does
    return float(norm)


def _is_shard(parameter: nn.Parameter) -> bool:
    from torch.distributed.tensor import DTensor

    return isinstance(parameter, DTensor)

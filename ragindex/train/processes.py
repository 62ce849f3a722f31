"""Several processes, one model: vectors of all of them for one softmax, and how a command starts them.

Every process embeds its own part of a batch. In the softmax it contrasts its own queries with the documents of all, so
the batch is as large as all parts together. `ragindex.train.loop` takes the mean of the gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed

__all__ = ["gathered", "rank", "world_size"]


def world_size() -> int:
    """How many processes train together; 1 when this one is alone."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return distributed.get_rank() if world_size() > 1 else 0


def gathered(part: Tensor) -> Tensor:
    """The parts of all processes, one after the other in the order of their ranks: (world * n, …).

    With a gradient: what another process makes of this one's vectors comes back to them. All parts must have the same
    shape. Alone, the tensor itself.
    """
    if world_size() == 1:
        return part
    if not part.is_floating_point():
        parts = [torch.empty_like(part) for _ in range(world_size())]
        distributed.all_gather(parts, part.contiguous())
        return torch.cat(parts)
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(part.contiguous()))

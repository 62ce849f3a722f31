"""A decoder spread over the processes that train it: each keeps a part of every weight, of its gradient and of what the
optimiser remembers of it, and a layer is put together where and while it is computed.

Fully sharded data parallelism (Zhao et al., arXiv 2304.11277; stage 3 of ZeRO, arXiv 1910.02054) by torch's
`fully_shard` (FSDP2). Each decoder layer is a unit; embeddings, last norm and the head are one more, which is whole for
the length of a step. What stands beside the decoder (token weights, a linear map, pooling, temperatures) is small and
stays whole in every process.

accelerate's FullyShardedDataParallelPlugin (version 2) calls the same function, but does not fit here. It knows one
way into a model, `forward`, and masked training goes through others (`Place.entries`). It is ignored where there is no
accelerator, and what no test can run on a CPU is not to be trusted. And its sharded checkpoints are those of
torch.distributed.checkpoint, whose metadata is a pickle. The loop's processes still are accelerate's.

Every layer that a process computes is a collective: all processes must compute equally often and in the same order.
`in_step` and `ragindex.train.gradcache` see to it where the texts of a step fall into unequal numbers of parts.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from ragindex.errors import TrainingError
from ragindex.train.processes import most, rank, world_size

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

__all__ = ["Footprint", "Place", "Shards", "in_step", "is_sharded", "recompute_layers", "whole"]

Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class Footprint:
    """What memory training takes.

    weights: "whole" in every process, or "sharded" over them, with gradients and optimiser state. activations: those of
    a layer are "kept" for the backward pass, or "recomputed" in it (Chen et al., arXiv 1604.06174), for about a third
    more time.
    """

    weights: Literal["whole", "sharded"] = "whole"
    activations: Literal["kept", "recomputed"] = "kept"


class Place(NamedTuple):
    """Where a module has its decoder. attribute: by name; entries: the methods that run it, if it is not called by
    itself.
    """

    attribute: str
    entries: tuple[str, ...] = ()


@runtime_checkable
class _Shardable(Protocol):
    """A module with a decoder: `TrainableEncoder`, `LanguageModel`."""

    decoder_place: Place
    device: torch.device
    mixed: bool


class Shards:
    """The decoders of a model, spread over the processes from here on until `assemble`.

    To be made by all processes at once, when their weights are equal, and before the optimiser: parameters are others
    afterwards. Weights are computed with in bfloat16 on a GPU that has it (gradients are added up in float32), and as
    they are on a CPU.
    """

    def __init__(self, model: nn.Module) -> None:
        """Raises TrainingError for a model without a decoder, and where torch is too old."""
        from torch.distributed.fsdp import FSDPModule

        if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
            raise TrainingError("Sharding needs torch 2.13 or newer; install that, or train with whole models.")
        owners = _owners(model)
        if not owners:
            raise TrainingError(f"{type(model).__name__} has no decoder whose layers could be shared out.")
        self._spread = [_Spread(owner) for owner in owners]

    def settle(self) -> None:
        """Give back what a pass without gradients has left whole."""
        for spread in self._spread:
            spread.settle()

    def assemble(self) -> None:
        """Put whole decoders, on the CPU, back into the model of the main process, to be saved; the others' have no
        data then. To be called by all of them.
        """
        for spread in self._spread:
            spread.assemble()


class _Spread:
    """One decoder in shards, and a copy of its modules without data, since what is sharded cannot be copied."""

    def __init__(self, owner: _Shardable) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

        self._owner, self._place = owner, owner.decoder_place
        decoder = self._decoder()
        self._hollow = _hollow(decoder)
        mesh = init_device_mesh(owner.device.type, (world_size(),))
        half = torch.bfloat16 if owner.mixed and owner.device.type != "cpu" else None
        root = cast("nn.Module", owner) if self._place.entries else decoder
        scalars = {item for item in root.parameters() if item.ndim == 0}  # have no rows to share out
        for module in [*reversed(_layers(decoder)), root]:  # what is inside another comes first
            # What enters the root are token ids.
            policy = MixedPrecisionPolicy(half, torch.float32, cast_forward_inputs=module is not root)
            fully_shard(module, mesh=mesh, mp_policy=policy, ignored_params=scalars)
        self._units: list[FSDPModule] = [item for item in root.modules() if isinstance(item, FSDPModule)]
        self._prepare(root)

    def _prepare(self, root: nn.Module) -> None:
        from torch.distributed.fsdp import register_fsdp_forward_method

        for entry in self._place.entries:
            register_fsdp_forward_method(root, entry)
        # A mixture of experts may use one in this process and not in that one: what it has no gradient for is zero.
        cast("FSDPModule", root).set_reduce_scatter_unused_params(True)
        for unit in self._units:
            unit.set_force_sum_reduction_for_comms(self._owner.device.type == "cpu")  # gloo knows no mean
            # The memory of whole weights is claimed at their first use, and one in inference mode would spoil it.
            unit.unshard()
            unit.reshard()

    def settle(self) -> None:
        for unit in self._units:
            unit.reshard()

    @torch.no_grad()
    def assemble(self) -> None:
        self.settle()
        filled: dict[int, nn.Parameter] = {}
        hollow = dict(self._hollow.named_parameters())
        for name, parameter in self._decoder().named_parameters():
            tensor = whole(parameter)
            if rank() == 0:
                filled[id(hollow[name])] = nn.Parameter(tensor.cpu(), requires_grad=parameter.requires_grad)
        for module in self._hollow.modules():  # by identity: tied weights stay tied
            for name, empty in module._parameters.items():
                if empty is not None and id(empty) in filled:
                    module._parameters[name] = filled[id(empty)]
        for entry in self._place.entries:
            delattr(self._owner, entry)  # the method of the class is behind it
        setattr(self._owner, self._place.attribute, self._hollow)

    def _decoder(self) -> nn.Module:
        return cast("nn.Module", getattr(self._owner, self._place.attribute))


def is_sharded(model: object) -> bool:
    """Whether a model, or a part of it, is in `Shards`."""
    if world_size() == 1 or not isinstance(model, nn.Module):
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(item, FSDPModule) for item in model.modules())


def in_step(parts: Sequence[Part], model: nn.Module) -> Iterator[tuple[Part, float]]:
    """Parts of a step that `model` is run on, each with its weight 1. While another process has more of them and the
    model is sharded, the last one comes again, with weight 0.
    """
    count = most([len(parts)])[0] if is_sharded(model) else len(parts)  # before the first part: it is a collective too
    for number in range(count):
        yield parts[min(number, len(parts) - 1)], float(number < len(parts))


def whole(tensor: Tensor) -> Tensor:
    """A tensor put together from the processes' shards, or itself. To be called by all of them, in the same order."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def recompute_layers(model: nn.Module) -> None:
    """Keep nothing but the inputs of decoder layers for the backward pass, in place."""
    for layer in _layers(model):
        # As transformers sets them; its own method has had two names, and also hooks the embeddings.
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)


def _layers(model: nn.Module) -> list[Any]:
    """The decoder layers: transformers has them all be of one class."""
    return [item for item in model.modules() if isinstance(item, GradientCheckpointingLayer)]


def _owners(model: nn.Module) -> list[_Shardable]:
    return [item for item in model.modules() if isinstance(item, _Shardable)]


def _hollow(module: nn.Module) -> nn.Module:
    """A copy with the shapes of parameters alone; the same parameter in two places stays the same."""
    empty = {
        id(item): nn.Parameter(torch.empty_like(item, device="meta"), requires_grad=item.requires_grad)
        for item in module.parameters()
    }
    return copy.deepcopy(module, cast("dict[int, Any]", empty))

"""The tensors that a run goes on from, in files: trained weights, and what the optimiser remembers of each.

    model.safetensors       NAME        a trained weight
    optimiser.safetensors   NAME/KEY    of that weight, such as its mean gradient

They are whole in the files, also where the processes hold shards of them, and are put together one at a time. So a run
may go on with another number of processes, sharded or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ragindex.errors import TrainingError
from ragindex.train.sharding import whole
from ragindex.train.tensors import Spec, file_order, write_tensors

__all__ = ["RunTensors"]

_MODEL, _OPTIMISER = "model.safetensors", "optimiser.safetensors"
_KINDS: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}


class RunTensors:
    """The trained parameters of a model, and their state in an optimiser."""

    def __init__(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        self._optimiser = optimiser
        # Remembered: a sharded model shows other parameters while it computes.
        self._parameters = {name: item for name, item in model.named_parameters() if item.requires_grad}

    def write(self, directory: Path) -> None:
        """Write the files; of several processes with shards, the others must `hand_over` at the same time."""
        for name, tensors in self._files().items():
            specs = {key: Spec(_KINDS[item.dtype], tuple(item.shape)) for key, item in tensors.items()}
            write_tensors(directory / name, specs, partial(_block, tensors))

    def hand_over(self) -> None:
        """Take part in what the main process writes."""
        for tensors in self._files().values():
            for key in file_order({key: _KINDS[item.dtype] for key, item in tensors.items()}):
                whole(tensors[key])

    def read(self, directory: Path) -> None:
        """Put back what was written; each process keeps its own shards. Raises TrainingError when it does not fit."""
        try:
            with safe_open(directory / _MODEL, framework="pt") as weights:
                names = weights.keys()
                self._check(directory, {name: tuple(weights.get_slice(name).get_shape()) for name in names})
                for name, parameter in self._parameters.items():
                    _put(weights.get_tensor(name), parameter)
            with safe_open(directory / _OPTIMISER, framework="pt") as moments:
                keys = moments.keys()
                for key in keys:
                    name, _, kind = key.rpartition("/")
                    parameter = self._parameters[name]
                    tensor = moments.get_tensor(key)
                    kept = tensor if tensor.ndim == 0 else _put(tensor, torch.empty_like(parameter))
                    self._optimiser.state[parameter][kind] = kept
        except (OSError, SafetensorError, KeyError) as error:
            raise TrainingError(f"The checkpoint {directory} cannot be read: {error}; delete it.") from error

    def _files(self) -> Mapping[str, Mapping[str, Tensor]]:
        state = {
            f"{name}/{key}": value if isinstance(value, Tensor) else torch.tensor(value)
            for name, parameter in self._parameters.items()
            for key, value in self._optimiser.state.get(parameter, {}).items()
        }
        return {_MODEL: {name: item.detach() for name, item in self._parameters.items()}, _OPTIMISER: state}

    def _check(self, directory: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
        if shapes != {name: tuple(item.shape) for name, item in self._parameters.items()}:
            raise TrainingError(f"The checkpoint {directory} is of another model; delete it to start anew.")


@torch.no_grad()
def _put(saved: Tensor, place: Tensor) -> Tensor:
    """`place`, which now has the values of `saved`, or this process's part of them."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(place, DTensor):
        own = saved.to(device=place.device, dtype=place.dtype)
        saved = distribute_tensor(own, place.device_mesh, place.placements, src_data_rank=None)
    place.copy_(saved)
    return place


def _block(tensors: Mapping[str, Tensor], name: str) -> Iterator[np.ndarray]:
    """A tensor as its elements lie in a file."""
    held = whole(tensors[name]).cpu().contiguous()
    yield (held.view(torch.uint16) if held.dtype == torch.bfloat16 else held).numpy()

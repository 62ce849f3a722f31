"""What the modules of a sentence-transformers model do after its transformer, in torch: token weights, pooling, maps.

The modules are the library's by their settings and weights; their arithmetic stands here, so that neither the library
is needed nor the seconds that importing it takes. A test keeps the vectors equal to the library's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from ragindex.encoder.checkpoint import WEIGHTS_FILE, read_json
from ragindex.encoder.foreign import activation_of, pooling_modes
from ragindex.encoder.head import Module, read_token_weights
from ragindex.errors import EncoderError

__all__ = ["Features", "Step", "load_step"]


@dataclass(slots=True)
class Features:
    """What modules hand on: states (n, length, h) of tokens, shares (n, length) that are 0 where one is not pooled,
    float32; vectors (n, d) once there are any.
    """

    ids: torch.Tensor
    states: torch.Tensor
    pooled: torch.Tensor
    shares: torch.Tensor
    vectors: torch.Tensor


Step = Callable[[Features], None]


def load_step(module: Module, device: torch.device) -> Step | None:
    """What a module does to the features; None for one that does nothing here."""
    if module.kind == "Pooling":
        modes = pooling_modes(read_json(module.folder / "config.json"))
        return lambda features: _pool(features, modes)
    if module.kind == "WordWeights":
        return _word_weights(torch.from_numpy(read_token_weights(module.folder)).to(device))
    if module.kind == "Dense":
        return _dense(module.folder, device)
    if module.kind == "LayerNorm":
        tensors = _tensors(module.folder, device, ("norm.weight", "norm.bias"))
        return lambda features: _layer_norm(features, tensors)
    return _normalise if module.kind == "Normalize" else None


def _word_weights(weights: torch.Tensor) -> Step:
    def step(features: Features) -> None:
        features.shares = weights[features.ids] * features.pooled
        features.states = features.states * features.shares.unsqueeze(-1)

    return step


def _pool(features: Features, modes: Sequence[str]) -> None:
    """One vector per text and mode, joined; a state counts where `pooled` is not 0."""
    states, pooled = features.states, features.pooled
    total = torch.einsum("nl,nlh->nh", pooled, states)
    count = features.shares.sum(dim=1, keepdim=True).clamp_min(1e-9)
    rows = torch.arange(len(states), device=states.device)
    positions = torch.arange(1, states.shape[1] + 1, device=states.device)
    made: Mapping[str, Callable[[], torch.Tensor]] = {
        "cls": lambda: states[rows, pooled.argmax(dim=1)],
        "max": lambda: states.masked_fill(pooled.unsqueeze(-1) == 0, -torch.inf).amax(dim=1),
        "mean": lambda: total / count,
        "mean_sqrt_len_tokens": lambda: total / count.sqrt(),
        "weightedmean": lambda: (
            torch.einsum("nl,nlh->nh", pooled * positions, states)
            / (count if features.shares is not pooled else (pooled * positions).sum(dim=1, keepdim=True))
        ),
        "lasttoken": lambda: states[rows, (pooled * positions).argmax(dim=1)],
    }
    features.vectors = torch.cat([made[mode]() for mode in modes], dim=-1)


def _dense(folder: Path, device: torch.device) -> Step:
    config = read_json(folder / "config.json")
    bias = bool(config.get("bias", True))
    residual = bool(config.get("use_residual"))
    wide = residual and config.get("in_features") != config.get("out_features")
    names = ["linear.weight", *(["linear.bias"] if bias else []), *(["residual.weight"] if wide else [])]
    tensors = _tensors(folder, device, names)
    activate = _activation(activation_of(folder), folder)

    def step(features: Features) -> None:
        given = features.vectors
        made = activate(functional.linear(given, tensors["linear.weight"], tensors.get("linear.bias")))
        if residual:
            made = made + (functional.linear(given, tensors["residual.weight"]) if wide else given)
        features.vectors = made

    return step


def _activation(name: str, folder: Path) -> nn.Module:
    """An instance of one of torch's own activations, by its full class name."""
    found = getattr(nn, name.rpartition(".")[2], None)
    if not (name.startswith("torch.nn.") and isinstance(found, type) and issubclass(found, nn.Module)):
        raise EncoderError(f"The layer in {folder} has the activation {name!r}, which is none of torch's.")
    return found()


def _layer_norm(features: Features, tensors: Mapping[str, torch.Tensor]) -> None:
    weight = tensors["norm.weight"]
    features.vectors = functional.layer_norm(features.vectors, weight.shape, weight, tensors["norm.bias"])


def _normalise(features: Features) -> None:
    features.vectors = functional.normalize(features.vectors, dim=-1, eps=1e-12)


def _tensors(folder: Path, device: torch.device, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The float32 tensors of a module. Raises EncoderError unless they are these."""
    try:
        found = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise EncoderError(f"{folder / WEIGHTS_FILE} cannot be read: {error}.") from error
    if found.keys() != set(names):
        odd = min(found.keys() ^ set(names))
        raise EncoderError(f"{folder / WEIGHTS_FILE} does not fit its config.json: {odd} is missing or too much.")
    return {name: tensor.float().to(device) for name, tensor in found.items()}

"""Rotary positions for texts longer than a decoder was trained on, without training; loads neither torch nor
transformers.

linear: positions are divided by the factor (position interpolation, Chen et al., arXiv 2306.15595). ntk: the base of
the frequencies is raised, so that near positions stay apart and far ones come into range; theta · factor^(d / (d - 2)),
with d the rotated values of a head. Both were found to carry embedding models beyond their length without training
(LongEmbed, arXiv 2404.12096), ntk the further.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ragindex.errors import EncoderError

__all__ = ["RopeScaling", "scaled"]

_THETA = 10_000.0  # of the first rotary models, whose config.json does not say it


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How much longer texts may be, and by which method. Raises EncoderError for a factor below 1."""

    factor: float
    method: Literal["linear", "ntk"] = "ntk"

    def __post_init__(self) -> None:
        if self.method not in get_args(Literal["linear", "ntk"]) or not self.factor >= 1:
            raise EncoderError(
                f"Positions cannot be scaled by {self.factor} with method {self.method!r}; give a factor of 1 or more, "
                "and linear or ntk."
            )


def scaled(config: Mapping[str, Any], scaling: RopeScaling) -> dict[str, Any]:
    """A config.json whose rotary positions are scaled.

    Layers that attend within a window keep their positions: they never see a greater distance. Raises EncoderError
    when the positions are scaled already.
    """
    parameters = config.get("rope_parameters") or {}
    if parameters and all(isinstance(value, dict) for value in parameters.values()):
        full = "full_attention"
        new = {**parameters, full: _scaled(parameters.get(full, {}), config, scaling)}
    else:
        legacy = {"rope_theta": config.get("rope_theta", _THETA), **(config.get("rope_scaling") or {})}
        new = _scaled(parameters or legacy, config, scaling)
    kept = {key: value for key, value in config.items() if key not in ("rope_scaling", "rope_theta")}
    return {**kept, "rope_parameters": new}


def _scaled(parameters: Mapping[str, Any], config: Mapping[str, Any], scaling: RopeScaling) -> dict[str, Any]:
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind != "default":
        raise EncoderError(f"The model scales its positions already ({kind}), so they cannot be scaled again.")
    theta = float(parameters.get("rope_theta", _THETA))
    if scaling.method == "linear":
        return {**parameters, "rope_type": "linear", "rope_theta": theta, "factor": float(scaling.factor)}
    size = int(config.get("head_dim") or int(config["hidden_size"]) // int(config["num_attention_heads"]))
    rotated = int(size * float(parameters.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))))
    theta *= scaling.factor ** (rotated / (rotated - 2))
    return {**parameters, "rope_type": "default", "rope_theta": theta}

"""The ways to merge encoders as values, and the arithmetic of an arc."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ragindex.errors import UsageError
from ragindex.train.data.examples import Example

__all__ = ["Recipe", "SelfPosition", "Slerp", "Soup", "check_recipe", "slerp_coefficients"]

_PARALLEL = 0.9995  # cosine from which an arc is a line


@dataclass(frozen=True, slots=True)
class Soup:
    """The mean of the weights: "Model soups", arXiv 2203.05482.

    weights: one for each encoder, brought to a sum of 1; none: all count the same.
    """

    weights: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Slerp:
    """A point on the arc between two encoders, tensor by tensor; see `slerp_coefficients`. t: 0 is the first one."""

    t: float = 0.5


@dataclass(frozen=True, slots=True)
class SelfPosition:
    """A base plus weighted task vectors (encoder minus base); the weights are learned on a small set of pairs.

    Li et al., "Improving General Text Embedding Model: Tackling Task Conflict and Data Imbalance through Model
    Merging", arXiv 2410.15035. base: what all the encoders were trained from. probe: pairs, of all tasks alike.
    steps, batch (pairs), tokens (of a text, the rest is cut), rate and temperature are those of the search, see
    `ragindex.train.positioning`.
    """

    base: str
    probe: Sequence[Example] = field(repr=False)
    steps: int = 100
    batch: int = 32
    tokens: int = 128
    rate: float = 0.02
    temperature: float = 0.05
    seed: int = 7


Recipe = Soup | Slerp | SelfPosition


def check_recipe(recipe: Recipe, encoders: int) -> None:
    """Raise UsageError when a recipe does not fit the number of encoders, or its numbers make no sense."""
    if encoders < 2:
        raise UsageError("A merge takes at least two encoders.")
    if isinstance(recipe, Soup) and recipe.weights:
        if len(recipe.weights) != encoders:
            raise UsageError(f"There are {encoders} encoders but {len(recipe.weights)} weights.")
        if not all(0 <= weight < math.inf for weight in recipe.weights) or sum(recipe.weights) <= 0:
            raise UsageError("The weights of a soup must not be negative, nor all of them 0.")
    if isinstance(recipe, Slerp):
        if encoders != 2:
            raise UsageError(f"Slerp merges exactly two encoders, not {encoders}; use a soup for more.")
        if not 0 <= recipe.t <= 1:
            raise UsageError(f"t is {recipe.t}; it must lie between 0 (the first encoder) and 1 (the second).")
    if isinstance(recipe, SelfPosition):
        if len(recipe.probe) < 2 or recipe.batch < 2:
            raise UsageError("Weights are learned by contrast, which takes at least two pairs, and two in a batch.")
        if recipe.steps < 1 or recipe.tokens < 1 or not recipe.rate > 0 or not recipe.temperature > 0:
            raise UsageError("Learning weights takes at least one step and token, a rate and a temperature above 0.")
        if recipe.seed < 0:
            raise UsageError(f"The seed is {recipe.seed}; it must not be negative.")


def slerp_coefficients(cosine: float, t: float) -> tuple[float, float]:
    """What each of two tensors counts at the share t of the arc between them, their angle being θ:

        sin((1 - t) θ) / sin θ   and   sin(t θ) / sin θ

    Shoemake, "Animating rotation with quaternion curves" (1985); used on whole models by Qwen3-Embedding, arXiv
    2506.05176. Where the two are almost parallel, or opposite, there is no arc to speak of: 1 - t and t.
    """
    if not abs(cosine) < _PARALLEL:
        return 1 - t, t
    angle = math.acos(cosine)
    return math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)

"""Several encoders made into one by combining their weights: soup, slerp, learned weights of task vectors.

Every method gives each ingredient a coefficient, the same for all tensors or one for each, so all of them are one
stream: tensors are read in blocks, combined and written, and never held as a whole. What is equal in all ingredients
is copied bit by bit. Only learning weights needs torch (`ragindex.train.positioning`).
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ragindex.encoder import Encoder, EncoderConfig
from ragindex.encoder.checkpoint import TOKENIZER_FILE, WEIGHTS_FILE
from ragindex.encoder.head import Head
from ragindex.encoder.layout import write_json, write_layout
from ragindex.errors import TrainingError, UsageError
from ragindex.train.card import write_card
from ragindex.train.ingredients import Ingredient, open_ingredient, refuse_differences
from ragindex.train.merge_methods import Recipe, SelfPosition, Slerp, Soup, check_recipe, slerp_coefficients
from ragindex.train.tensors import BLOCK, Raw, Spec, rounded, write_tensors

__all__ = ["Merged", "Recipe", "SelfPosition", "Slerp", "Soup", "Weighed", "merge"]

Stage = Literal["learning", "writing"]
Values = npt.NDArray[np.float64]
Blocks = Callable[[], Iterator[list[Values]]]  # one tensor of every ingredient, block by block, as often as asked
Rule = Callable[[Blocks], Sequence[float]]  # what each ingredient counts in one tensor
Progress = Callable[[Stage, int, int], None]  # what is done of how much: steps of learning, elements written

_LICENCES = ("LICENSE*", "NOTICE*")


@dataclass(frozen=True, slots=True)
class Weighed:
    """An ingredient and what it counts. The weights of a merge sum to 1."""

    name: str
    fingerprint: str
    weight: float


@dataclass(frozen=True, slots=True)
class Merged:
    """A merge that was made. `notes` is what the method found out, JSON-ready."""

    output: Path
    method: str
    ingredients: tuple[Weighed, ...]
    fingerprint: str
    notes: Mapping[str, Any]


def merge(names: Sequence[str], output: Path, recipe: Recipe, *, progress: Progress | None = None) -> Merged:
    """Combine the encoders called `names` into a new directory `output`, which must be empty or absent.

    The result is stored in the type of its ingredients, float32 where they differ, and reads at most as many tokens
    as the shortest of them. Raises UsageError for a recipe that does not fit the number of encoders, TrainingError for
    encoders that differ in more than their weights.
    """
    check_recipe(recipe, len(names))
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} is not an empty directory; choose another one.")
    progress = progress or _silent
    with ExitStack() as opened:
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="ragindex-merge-")))
        encoders = [open_ingredient(name, scratch / str(number)) for number, name in enumerate(names)]
        for other in encoders[1:]:
            refuse_differences(encoders[0], other)
        base = []
        if isinstance(recipe, SelfPosition):
            base = [open_ingredient(recipe.base, scratch / "base")]
            refuse_differences(encoders[0], base[0], in_use=False)
        plan = _plan(recipe, encoders, progress)
        weighed = tuple(
            Weighed(item.name, item.fingerprint, weight)
            for item, weight in zip([*encoders, *base], plan.weights, strict=True)
        )
        method = _METHODS[type(recipe)]
        config = _config(encoders, _card(method, encoders, weighed, plan.notes))
        _publish(output, [*encoders, *base], plan.rule, config, progress)
    write_card(output)
    return Merged(output, method, weighed, Encoder.load(output).fingerprint, plan.notes)


class _Plan(NamedTuple):
    """How tensors are combined, what each ingredient counts as a whole, and what is to be noted."""

    rule: Rule
    weights: tuple[float, ...]
    notes: Mapping[str, Any]


def _plan(recipe: Recipe, encoders: Sequence[Ingredient], progress: Progress) -> _Plan:
    if isinstance(recipe, Slerp):
        return _Plan(_arc(recipe.t), (1 - recipe.t, recipe.t), {"t": recipe.t})
    if isinstance(recipe, Soup):
        given = recipe.weights or (1.0,) * len(encoders)
        weights = tuple(weight / sum(given) for weight in given)
        return _Plan(lambda _: weights, weights, {})
    from ragindex.train.positioning import find_position

    names = [item.name for item in encoders]
    found = find_position(names, recipe, advance=lambda step: progress("learning", step, recipe.steps))
    weights = (*found.weights, 1 - sum(found.weights))  # the last one is the base's
    return _Plan(lambda _: weights, weights, {"probe": found.as_json()})


def _card(
    method: str, encoders: Sequence[Ingredient], weighed: Sequence[Weighed], notes: Mapping[str, Any]
) -> dict[str, Any]:
    """What all encoders have in common of their history, and the merge."""
    cards = [item.config.card for item in encoders]
    history = {key: value for key, value in cards[0].items() if all(card.get(key) == value for card in cards)}
    stage = "merge" if "merge" not in history else f"merge {len(history)}"
    shares = [f"{item.weight:.6g} × {item.name} ({item.fingerprint})" for item in weighed]
    return {**history, stage: {"method": method, "encoders": shares, **notes}}


def _arc(t: float) -> Rule:
    def rule(blocks: Blocks) -> Sequence[float]:
        product = one = other = 0.0
        for first, second in blocks():
            product += float(first @ second)
            one += float(first @ first)
            other += float(second @ second)
        lengths = math.sqrt(one) * math.sqrt(other)
        return slerp_coefficients(product / lengths if lengths > 0 else 1.0, t)

    return rule


def _publish(
    output: Path, ingredients: Sequence[Ingredient], rule: Rule, config: EncoderConfig, progress: Progress
) -> None:
    """Write beside the place and rename: a directory that exists is whole."""
    partial = output.absolute().with_name(f".{output.absolute().name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write_decoder(partial, ingredients, rule, progress)
        (partial / TOKENIZER_FILE).write_bytes(ingredients[0].tokenizer)
        write_layout(partial, config, _mixed_head([item.head for item in ingredients], rule))
        _copy_licences(partial, ingredients)
        partial.replace(output)
    except OSError as error:
        raise TrainingError(f"{output} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _config(encoders: Sequence[Ingredient], card: Mapping[str, Any]) -> EncoderConfig:
    configs = [item.config for item in encoders]
    known = set.intersection(*(set(config.matryoshka) for config in configs))
    return replace(
        configs[0],
        max_tokens=min(config.max_tokens for config in configs),
        matryoshka=tuple(step for step in configs[0].matryoshka if step in known),
        trust=float(np.mean([config.trust for config in configs])),  # until it is measured
        card=dict(card),
    )


def _write_decoder(target: Path, ingredients: Sequence[Ingredient], rule: Rule, progress: Progress) -> None:
    """config.json and the weights, in as many files as those of the first ingredient."""
    first = ingredients[0]
    specs = {name: _common(name, ingredients) for name in first.names}
    files: dict[str, dict[str, Spec]] = {}
    for name, spec in specs.items():
        files.setdefault(first.file_name(name), {})[name] = spec
    if len(files) == 1:
        files = {WEIGHTS_FILE: specs}
    done, total = 0, sum(spec.size for spec in specs.values())

    def blocks(name: str) -> Iterator[Raw]:
        nonlocal done
        for block in _mixed(name, specs[name], ingredients, rule):
            yield block
            done += len(block)
            progress("writing", done, total)

    for file, part in files.items():
        write_tensors(target / file, part, blocks)
    if len(files) > 1:
        index = {
            "metadata": {"total_size": sum(spec.nbytes for spec in specs.values())},
            "weight_map": {name: file for file, part in files.items() for name in part},
        }
        write_json(target / f"{WEIGHTS_FILE}.index.json", index)
    model = first.checkpoint.model_config()
    model["dtype"] = _DTYPES.get(max(specs.values(), key=lambda spec: spec.size).kind, "float32")
    model.pop("torch_dtype", None)  # its older name
    write_json(target / "config.json", model)


def _common(name: str, ingredients: Sequence[Ingredient]) -> Spec:
    """How the combined tensor is stored: as in all ingredients, or in float32."""
    specs = [item.spec(name) for item in ingredients]
    return specs[0] if all(spec == specs[0] for spec in specs) else replace(specs[0], kind="F32")


def _mixed(name: str, spec: Spec, ingredients: Sequence[Ingredient], rule: Rule) -> Iterator[Raw]:
    """The combined tensor, block by block."""
    spans = [(start, start + BLOCK) for start in range(0, spec.size, BLOCK)]
    first, *others = ingredients
    # Of the whole tensor, not of a block: on an arc, coefficients need not sum to 1.
    if all(item.spec(name) == spec for item in ingredients) and all(
        np.array_equal(first.raw(name, *span), other.raw(name, *span)) for span in spans for other in others
    ):
        yield from (first.raw(name, *span) for span in spans)
        return
    coefficients = rule(lambda: ([item.block(name, *span) for item in ingredients] for span in spans))
    for span in spans:
        yield rounded(_sum(coefficients, [item.block(name, *span) for item in ingredients]), spec.kind)


def _sum(coefficients: Sequence[float], values: Sequence[Values]) -> Values:
    total = coefficients[0] * values[0]
    for coefficient, part in zip(coefficients[1:], values[1:], strict=True):
        total += coefficient * part
    return total


def _mixed_head(heads: Sequence[Head], rule: Rule) -> Head:
    first = heads[0]

    def mixed(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
        present = [array for array in arrays if array is not None]
        if not present or all(np.array_equal(present[0], other) for other in present[1:]):
            return arrays[0]
        flat = [array.ravel().astype(np.float64) for array in present]
        return rounded(_sum(rule(lambda: iter([flat])), flat), "F32").reshape(present[0].shape)

    def needed(arrays: Sequence[np.ndarray]) -> np.ndarray:
        result = mixed(arrays)
        assert result is not None
        return result

    weights = mixed([head.token_weights for head in heads])
    return Head(
        # A mean is never below 0, but learned weights may leave the space between the ingredients.
        token_weights=None if weights is None else np.maximum(weights, 0.0),
        weight=mixed([head.weight for head in heads]),
        bias=mixed([head.bias for head in heads]),
        pooler={name: needed([head.pooler[name] for head in heads]) for name in first.pooler},
    )


def _copy_licences(target: Path, ingredients: Sequence[Ingredient]) -> None:
    """Every ingredient's licence and notices; another text under the same name gets a number."""
    for item in ingredients:
        for file in sorted(file for pattern in _LICENCES for file in item.checkpoint.directory.glob(pattern)):
            content, number, copy = file.read_bytes(), 1, target / file.name
            while copy.exists() and copy.read_bytes() != content:
                number += 1
                copy = target / f"{file.name}.{number}"
            copy.write_bytes(content)


def _silent(stage: Stage, done: int, total: int) -> None:
    """Progress that nobody follows."""


_METHODS: Mapping[type[Any], str] = {Soup: "soup", Slerp: "slerp", SelfPosition: "self-position"}
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

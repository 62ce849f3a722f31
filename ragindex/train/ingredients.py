"""An encoder opened to be merged with others, and what must be equal for a merge to make sense."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ragindex.encoder import Encoder, EncoderConfig, find_checkpoint
from ragindex.encoder.checkpoint import Checkpoint
from ragindex.encoder.head import Head
from ragindex.errors import TrainingError
from ragindex.train.tensors import Raw, Spec, TensorFiles

__all__ = ["Ingredient", "open_ingredient", "refuse_differences"]

# Keys of a model's config.json that say nothing about what its weights mean.
_DESCRIPTIVE = frozenset(
    {
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "dtype",
        "initializer_range",
        "is_causal",  # the encoder's own setting counts, and is compared
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
_LM_HEAD = "lm_head."


class _Compared(NamedTuple):
    """Something that must be equal, and what it is in either encoder."""

    what: str
    one: Any
    two: Any


@dataclass(frozen=True)
class Ingredient:
    """One encoder of a merge. Tensors go by the names that they have in the bare decoder."""

    name: str
    checkpoint: Checkpoint
    fingerprint: str
    head: Head
    tokenizer: bytes
    tensors: TensorFiles
    stored_names: Mapping[str, str]

    @property
    def config(self) -> EncoderConfig:
        """Its settings."""
        return self.checkpoint.config

    @property
    def names(self) -> list[str]:
        """The decoder's tensors."""
        return list(self.stored_names)

    def spec(self, name: str) -> Spec:
        """Type and shape of a tensor."""
        return self.tensors.specs[self.stored_names[name]]

    def file_name(self, name: str) -> str:
        """The file that holds a tensor."""
        return self.tensors.file_of[self.stored_names[name]].name

    def raw(self, name: str, start: int = 0, stop: int | None = None) -> Raw:
        """Elements as they are stored."""
        return self.tensors.raw(self.stored_names[name], start, stop)

    def block(self, name: str, start: int, stop: int) -> npt.NDArray[np.float64]:
        """Elements as numbers."""
        return self.tensors.block(self.stored_names[name], start, stop)


def open_ingredient(name: str, scratch: Path) -> Ingredient:
    """The encoder called `name`, as for `Encoder.load`; adapters are merged into a copy in `scratch`.

    Raises EncoderError when there is no such encoder, TrainingError when its weights cannot be combined.
    """
    found = find_checkpoint(name)
    if found.is_foreign:
        raise TrainingError(f"{name} has modules that only sentence-transformers knows, and cannot be merged.")
    encoder = Encoder(found)
    fingerprint, tokenizer = encoder.fingerprint, encoder.tokenizer.serialised()
    if found.adapters:
        encoder.save(scratch)
        found = find_checkpoint(str(scratch))
    tensors = TensorFiles(found.weight_files())
    head = Head.read(found.directory).cut(found.config.dimensions)
    return Ingredient(name, found, fingerprint, head, tokenizer, tensors, _bare_names(tensors.specs))


def refuse_differences(first: Ingredient, other: Ingredient, *, in_use: bool = True) -> None:
    """Raise TrainingError unless weights are all that the two differ in.

    in_use: whether they must be used alike as well: prompts, pooling, attention. What an encoder was trained from need
    not be an encoder yet.
    """
    for what, one, two in (*_model(first, other), *(_usage(first, other) if in_use else ())):
        if one != two:
            raise TrainingError(
                f"{other.name} cannot be merged with {first.name}: {what} differ ({one!r} and {two!r})."
            )
    if _plain(first.tokenizer) != _plain(other.tokenizer):
        raise TrainingError(f"{other.name} cannot be merged with {first.name}: their tokenizers differ.")
    _refuse_tensors(first, other, _shapes(first), _shapes(other))
    _refuse_tensors(first, other, _head_shapes(first.head), _head_shapes(other.head))
    for name in first.names:
        exact = not (first.spec(name).is_float and other.spec(name).is_float)
        if exact and not np.array_equal(first.raw(name), other.raw(name)):
            raise TrainingError(
                f"{other.name} cannot be merged with {first.name}: {name} is no tensor of floats, and differs."
            )


def _model(first: Ingredient, other: Ingredient) -> Iterator[_Compared]:
    yield _Compared("their architectures", first.checkpoint.model_type, other.checkpoint.model_type)
    one, two = _settings(first), _settings(other)
    if one != two:
        one, two = _complete(one), _complete(two)
    for key in sorted({*one, *two}):
        yield _Compared(f"their {key} in config.json", one.get(key), two.get(key))


def _usage(first: Ingredient, other: Ingredient) -> Iterator[_Compared]:
    one, two = first.config, other.config
    yield _Compared("their dimensions", one.dimensions, two.dimensions)
    yield _Compared("their kinds of attention", one.attention, two.attention)
    yield _Compared("their attention temperatures", one.temperature, two.temperature)
    yield _Compared("their saturations", one.saturation, two.saturation)
    yield _Compared("their leads", one.lead, two.lead)
    yield _Compared("their poolings", one.pooling, two.pooling)
    yield _Compared("their ways with special tokens", one.pool_special, two.pool_special)
    prompts, others = one.prompts.as_json(), two.prompts.as_json()  # templates that say nothing may be left out
    for key in sorted({*prompts, *others}):
        yield _Compared(f"their prompts ({key})", prompts.get(key), others.get(key))


def _settings(item: Ingredient) -> dict[str, Any]:
    return {key: value for key, value in item.checkpoint.model_config().items() if key not in _DESCRIPTIVE}


def _complete(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a config.json with the defaults of those that it leaves out, as far as transformers knows it."""
    from transformers import AutoConfig  # takes a second, and most encoders that are merged have the same settings

    kind = str(settings.get("model_type", ""))
    given = {key: value for key, value in settings.items() if key != "model_type"}
    try:
        table = AutoConfig.for_model(kind, **given).to_dict()
    except (ValueError, TypeError, KeyError):
        return dict(settings)
    return {key: value for key, value in table.items() if key not in _DESCRIPTIVE}


def _refuse_tensors(
    first: Ingredient, other: Ingredient, shapes: Mapping[str, Sequence[int]], others: Mapping[str, Sequence[int]]
) -> None:
    refusal = f"{other.name} cannot be merged with {first.name}: "
    odd = min(shapes.keys() ^ others.keys(), default=None)
    if odd is not None:
        raise TrainingError(f"{refusal}only {(first if odd in shapes else other).name} has {odd}.")
    for name, shape in shapes.items():
        if tuple(shape) != tuple(others[name]):
            raise TrainingError(f"{refusal}the shapes of {name} differ ({list(shape)} and {list(others[name])}).")


def _shapes(item: Ingredient) -> dict[str, Sequence[int]]:
    return {name: item.spec(name).shape for name in item.names}


def _head_shapes(head: Head) -> dict[str, Sequence[int]]:
    named = {"token weights": head.token_weights, "a linear map": head.weight, "a bias of its linear map": head.bias}
    named |= {f"the pooling's {name}": array for name, array in head.pooler.items()}
    return {name: array.shape for name, array in named.items() if array is not None}


def _bare_names(stored: Mapping[str, Spec]) -> dict[str, str]:
    """Stored names by those of the bare decoder: a causal language model keeps it under a prefix, beside its head."""
    kept = [name for name in stored if not name.startswith(_LM_HEAD)]
    prefixes = {name.partition(".")[0] for name in kept}
    cut = len(prefixes.pop()) + 1 if len(prefixes) == 1 else 0
    return {name[cut:]: name for name in kept}


def _plain(tokenizer: bytes) -> Any:
    """A serialised tokenizer without the two settings that the encoder overrides."""
    return {key: value for key, value in json.loads(tokenizer).items() if key not in ("padding", "truncation")}

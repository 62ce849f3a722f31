"""Foreign encoders, models of sentence-transformers that are more than a decoder, a pooling and linear maps: BERT and
its like, CLS or max pooling, maps that are not linear, static embeddings. What one is made of is read from its files
here, without torch; `foreign_forward` and `static_forward` run it.

Nothing is run that a model brings along: no code, no pickle, no class from elsewhere. What would be got wrong is
refused by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ragindex.encoder import files
from ragindex.encoder.architectures import positions
from ragindex.encoder.checkpoint import WEIGHTS_FILE, read_json
from ragindex.encoder.head import MODULES_FILE, Module, read_modules
from ragindex.errors import EncoderError

__all__ = [
    "SETTINGS_FILE",
    "STATIC",
    "activation_of",
    "check_modules",
    "check_transformer",
    "dimensions",
    "is_linear",
    "is_static",
    "limits_file",
    "longest_input",
    "lowers_case",
    "module_identities",
    "pooling_modes",
    "trusted_modules",
]

SETTINGS_FILE = "config_sentence_transformers.json"
STATIC = "StaticEmbedding"
_PACKAGE = "sentence_transformers"
_AFTER_TRANSFORMER = frozenset({"Pooling", "Dense", "Normalize", "LayerNorm", "Dropout", "WordWeights"})
_VECTOR = "sentence_embedding"
_AFTER_STATIC = frozenset({"Dense", "Normalize"})
# In the order in which several are joined.
_FLAGS = {
    "cls_token": "cls",
    "max_tokens": "max",
    "mean_tokens": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean_tokens": "weightedmean",
    "lasttoken": "lasttoken",
}
_POOLING_MODES = frozenset(_FLAGS.values())
_ARGUMENTS = ("model_args", "model_kwargs", "config_args", "config_kwargs", "tokenizer_args", "processor_kwargs")
# fmt: off
_HARMLESS = frozenset({
    "add_pooling_layer", "attn_implementation", "device_map", "dtype", "low_cpu_mem_usage", "max_length",
    "model_max_length", "pad_to_multiple_of", "padding", "padding_side", "torch_dtype", "truncation", "truncation_side",
    "trust_remote_code", "use_cache", "use_fast", "use_safetensors",
})
# fmt: on
_LIMITS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")


def trusted_modules(directory: Path) -> list[Module]:
    """The modules of a directory, all of them classes of sentence-transformers.

    Raises EncoderError where a model brings classes of its own, or code for its architecture.
    """
    modules = read_modules(directory)
    if not modules:
        raise EncoderError(f"{directory / MODULES_FILE} names no module, so there is no encoder in {directory}.")
    other = next((module for module in modules if module.package != _PACKAGE), None)
    if other is not None:
        raise EncoderError(
            f"The model in {directory} needs the class {other.kind} of {other.package!r}, and code that a model brings "
            "along is never run here."
        )
    for module in modules:
        if files.optional(module.folder / "config.json").get("auto_map"):
            raise EncoderError(
                f"The model in {module.folder} was made with Python code of its own (auto_map in its config.json), "
                "which is never run here; if transformers knows its architecture by now, take auto_map out."
            )
    return modules


def check_modules(directory: Path, modules: Sequence[Module]) -> None:
    """Raise EncoderError unless these modules can be run from what lies in the directory, and their vectors are made to
    be compared by direction.
    """
    kinds = [module.kind for module in modules]
    static = kinds[0] == STATIC
    after = _AFTER_STATIC if static else _AFTER_TRANSFORMER
    unknown = next((kind for kind in kinds[1:] if kind not in after), None)
    if unknown is not None or kinds[0] not in ("Transformer", STATIC):
        raise EncoderError(
            f"The sentence-transformers model in {directory} has a {unknown or kinds[0]} module: not supported."
        )
    if kinds.count("Pooling") != (not static):
        raise EncoderError(f"The sentence-transformers model in {directory} is not one Transformer and one Pooling.")
    if static:
        files.check_weights(modules[0].folder)
    else:
        files.check_complete(modules[0].folder)
        check_transformer(modules[0].folder)
    for module in modules[1:]:
        _check_module(module)
    _check_similarity(directory, kinds)


def check_transformer(folder: Path) -> None:
    """Raise EncoderError for what changes a model and is said elsewhere than in its config.json."""
    if (folder / "adapter_config.json").is_file():
        raise EncoderError(f"The model in {folder} has an adapter that is not merged; merge it and save the model.")
    limits = files.optional(limits_file(folder))
    calls = limits.get("processing_kwargs") or {}
    given = [*(limits.get(name) for name in _ARGUMENTS), calls.get("common"), calls.get("text")]
    odd = sorted({key for keys in given for key in keys or ()} - _HARMLESS)
    text = (limits.get("modality_config") or {}).get("text") or {}
    for said, usual in (
        (limits.get("transformer_task"), "feature-extraction"),
        (text.get("method"), "forward"),
        (text.get("method_output_name"), "last_hidden_state"),
    ):
        odd += [str(said)] if said not in (None, usual) else []
    if odd:
        raise EncoderError(f"The model in {folder} is set up in a way that is not supported ({odd[0]}).")


def _check_module(module: Module) -> None:
    if module.kind in ("Dense", "LayerNorm"):
        files.check_weights(module.folder)
    elif module.kind == "Pooling":
        modes = pooling_modes(read_json(module.folder / "config.json"))
        odd = next((mode for mode in modes if mode not in _POOLING_MODES), None)
        if odd is not None:
            raise EncoderError(f"The model in {module.folder} pools by {odd}, which is not supported.")
    if module.kind == "Dense":
        config = read_json(module.folder / "config.json")
        names = [str(config.get(key) or _VECTOR) for key in ("module_input_name", "module_output_name")]
        if names != [_VECTOR, _VECTOR]:
            raise EncoderError(f"The layer in {module.folder} maps {names[0]} to {names[1]}, which is not supported.")


def _check_similarity(directory: Path, kinds: Sequence[str]) -> None:
    settings = files.optional(directory / SETTINGS_FILE)
    kind = settings.get("model_type") or "SentenceTransformer"
    if kind != "SentenceTransformer":
        raise EncoderError(f"The model in {directory} is a {kind}, which does not give one vector for a text.")
    similarity = settings.get("similarity_fn_name") or "cosine"
    if similarity != "cosine" and "Normalize" not in kinds:
        raise EncoderError(
            f"The vectors of the model in {directory} are compared by {similarity}, in which their length counts, and "
            "here they are compared by direction alone; choose a model that is made for cosines."
        )


def is_static(directory: Path) -> bool:
    """Whether no token reads any other, so that a text costs no more than the mean of its token rows."""
    return read_modules(directory)[0].kind == STATIC


def pooling_modes(table: Mapping[str, Any]) -> list[str]:
    """The modes of a Pooling module, in its present form or as the flags of older versions."""
    modes = table.get("pooling_mode")
    if modes is None:
        flags = {key.removeprefix("pooling_mode_") for key, value in table.items() if value}
        modes = [mode for flag, mode in _FLAGS.items() if flag in flags]
    return [modes] if isinstance(modes, str) else [str(mode) for mode in modes] or ["mean"]


def activation_of(folder: Path) -> str:
    """The full class name of a Dense module's activation."""
    config = read_json(folder / "config.json")
    return str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))


def is_linear(folder: Path) -> bool:
    """Whether a Dense module is a linear map and nothing else."""
    plain = not read_json(folder / "config.json").get("use_residual")
    return plain and activation_of(folder).rpartition(".")[2] == "Identity"


def dimensions(modules: Sequence[Module]) -> int:
    """Length of the vectors that the modules give, as their settings say."""
    found = 0
    for module in modules:
        if module.kind == STATIC:
            found = _static_dimensions(module.folder)
        elif module.kind == "Pooling":
            table = read_json(module.folder / "config.json")
            each = table.get("embedding_dimension") or table.get("word_embedding_dimension") or 0
            found = int(each) * len(pooling_modes(table))
        elif module.kind == "Dense":
            found = int(read_json(module.folder / "config.json").get("out_features") or 0)
    if not found:
        raise EncoderError(f"The modules in {modules[0].folder} do not say how long their vectors are.")
    return found


def _static_dimensions(folder: Path) -> int:
    try:
        with safe_open(str(folder / WEIGHTS_FILE), framework="numpy") as weights:
            name = next(name for name in ("embedding.weight", "embeddings") if name in weights.keys())  # noqa: SIM118
            return int(weights.get_slice(name).get_shape()[1])
    except (OSError, SafetensorError, StopIteration) as error:
        raise EncoderError(f"{folder / WEIGHTS_FILE} holds no readable embeddings.") from error


def limits_file(folder: Path) -> Path:
    """Where a Transformer module says how many tokens it takes; older versions had a name per architecture."""
    names = [folder / f"sentence_{name}_config.json" for name in _LIMITS]
    return next((file for file in names if file.is_file()), names[0])


def lowers_case(folder: Path) -> bool:
    """Whether a Transformer module lowers case before its tokenizer does anything."""
    return bool(files.optional(limits_file(folder)).get("do_lower_case"))


def longest_input(modules: Sequence[Module]) -> int:
    """Longest input in tokens, special tokens included; never more than the model has positions for."""
    folder = modules[0].folder
    if modules[0].kind == STATIC:
        return files.LONGEST
    model = read_json(folder / "config.json")
    stated = int(files.optional(limits_file(folder)).get("max_seq_length") or files.longest_input(folder, model))
    return min(stated, positions(model) or stated)


def module_identities(directory: Path) -> list[str]:
    """What decides vectors after the model itself: a line for each module, its settings and its weights.

    At the end, a map that only cuts says nothing that the dimensions do not say, nor does a normalisation that is
    made anyway.
    """
    modules = read_modules(directory)
    while modules[-1].kind == "Normalize" or _only_cuts(modules[-1]):
        modules.pop()
    first = modules[0].folder
    lines = [json.dumps({"do_lower_case": lowers_case(first)})]
    for module in modules[1:]:
        settings = json.dumps(files.optional(module.folder / "config.json"), sort_keys=True)
        lines.append(f"{module.kind} {settings} {_weights_digest(module.folder / WEIGHTS_FILE)}")
    return lines


def _only_cuts(module: Module) -> bool:
    if module.kind != "Dense" or not is_linear(module.folder):
        return False
    file = module.folder / WEIGHTS_FILE
    try:
        with safe_open(str(file), framework="numpy") as weights:
            if set(weights.keys()) != {"linear.weight"} or weights.get_slice("linear.weight").get_dtype() != "F32":
                return False
            matrix = weights.get_tensor("linear.weight")
    except (OSError, SafetensorError) as error:
        raise EncoderError(f"{file} cannot be read: {error}.") from error
    return np.array_equal(matrix, np.eye(*matrix.shape))


def _weights_digest(file: Path) -> str:
    return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest() if file.is_file() else ""

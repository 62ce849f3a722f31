"""From a name to a checkpoint: what kind of directory it is, and which settings its files imply.

Saved settings win over guesses. `ragindex.json` says everything; a sentence-transformers directory says how it pools
and prompts; an adapter says which model it adapts; a plain decoder says nothing, so it becomes what LLM2Vec makes of
one: bidirectional, mean of all tokens but the special ones, plain prompts. Loads neither torch nor transformers; the
network is used for a hub id alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ragindex.encoder.checkpoint import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Attention,
    Checkpoint,
    EncoderConfig,
    Pooling,
    hidden_size,
    read_json,
    text_config,
)
from ragindex.encoder.head import MODULES_FILE, SPECIAL_TOKENS, Head, Module, read_modules
from ragindex.encoder.hub import fetch, is_hub_id
from ragindex.encoder.prompts import Prompts
from ragindex.errors import EncoderError

__all__ = ["bundled_directory", "find_checkpoint"]

ADAPTER_FILE = "adapter_config.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tokenizer_config.json")
_POOLING: dict[str, Pooling] = {"mean": "mean", "weightedmean": "weighted-mean", "lasttoken": "last"}
_LLM2VEC_POOLING: dict[str, Pooling] = {"mean": "mean", "weighted_mean": "weighted-mean", "last_token": "last"}
_ON_MNTP = re.compile(r"(.+-mntp)-(?:unsup-simcse|supervised)$")
_LONGEST = 8192  # for a model that names no limit that a text could reach


def bundled_directory() -> Path:
    """Where the encoder lies that travels with the package."""
    return Path(__file__).resolve().parent / "bundled"


def find_checkpoint(name: str, *, adapters: Sequence[str] = ()) -> Checkpoint:
    """Read the encoder called `name`: "bundled", a directory, or a hub id.

    adapters: LoRA directories (or hub ids) to merge on top, first one first. Raises EncoderError with what is missing
    and how to get it.
    """
    directory = _directory(name)
    if (directory / CONFIG_FILE).is_file():
        found = _own(directory, name)
    elif (directory / MODULES_FILE).is_file():
        found = _sentence_transformers(directory, name)
    elif (directory / ADAPTER_FILE).is_file():
        found = _adapted(directory, name, follow=not adapters)
    else:
        found = _plain(directory, name)
    return replace(found, adapters=(*found.adapters, *(_adapter(_directory(item)) for item in adapters)))


def _directory(name: str) -> Path:
    if name == "bundled":
        return bundled_directory()
    directory = Path(name).expanduser()
    if directory.is_dir():
        return directory.resolve()
    if is_hub_id(name):
        return fetch(name)
    raise EncoderError(f"There is no encoder {name!r}: it is neither 'bundled' nor a directory.")


def _own(directory: Path, name: str) -> Checkpoint:
    _complete(directory, tokenizers=(TOKENIZER_FILE,))
    if not read_modules(directory):
        raise EncoderError(f"The encoder in {directory} is incomplete: {MODULES_FILE} is missing or empty.")
    config = EncoderConfig.from_json(read_json(directory / CONFIG_FILE))
    return Checkpoint(directory.resolve(), config, name, directory.resolve(), directory.resolve() / TOKENIZER_FILE)


def _plain(directory: Path, name: str) -> Checkpoint:
    if not (directory / "config.json").is_file():
        raise EncoderError(
            f"{directory} holds no {CONFIG_FILE}, which Encoder.save writes, and no config.json of a model, so it is "
            "no encoder."
        )
    _complete(directory, tokenizers=_TOKENIZERS)
    model = read_json(directory / "config.json")
    config = EncoderConfig(dimensions=hidden_size(model), max_tokens=_limit(directory, model))
    return Checkpoint(directory, config, name, directory, _tokenizer(directory))


def _adapted(directory: Path, name: str, *, follow: bool) -> Checkpoint:
    """An adapter and what it was trained on, as the adapters themselves say (`base_model_name_or_path`)."""
    chain = [_adapter(directory)]
    while (base := _base(chain[-1])) is not None and (base / ADAPTER_FILE).is_file():
        if base in chain:
            raise EncoderError(f"The adapter in {base} names itself as its base; correct its {ADAPTER_FILE}.")
        chain.append(_adapter(base))
    if base is None:
        raise EncoderError(f"{chain[-1] / ADAPTER_FILE} names no base model; add base_model_name_or_path.")
    unmerged = _ON_MNTP.match(directory.name) or _ON_MNTP.match(name)
    if follow and len(chain) == 1 and unmerged:
        raise EncoderError(
            f"The adapter {name!r} was trained on top of an MNTP adapter that it does not name; load "
            f"{unmerged[1]!r} with adapters=[{name!r}]."
        )
    plain = _plain(base, name)
    tokenizer = next((_tokenizer(item) for item in chain if _has_tokenizer(item)), plain.tokenizer)
    settings = directory / "llm2vec_config.json"
    config = _llm2vec(read_json(settings), plain.config) if settings.is_file() else plain.config
    return Checkpoint(directory, config, name, plain.backbone, tokenizer, tuple(reversed(chain)))


def _llm2vec(table: dict[str, Any], config: EncoderConfig) -> EncoderConfig:
    """Settings as LLM2Vec.save writes them."""
    mode = str(table.get("pooling_mode", "mean"))
    if mode not in _LLM2VEC_POOLING:
        raise EncoderError(f"Pooling {mode!r} of LLM2Vec is not supported; choose one with pooling=….")
    limit = min(int(table.get("max_length") or config.max_tokens), config.max_tokens)
    return replace(config, pooling=_LLM2VEC_POOLING[mode], max_tokens=limit)


def _base(adapter: Path) -> Path | None:
    name = str(read_json(adapter / ADAPTER_FILE).get("base_model_name_or_path") or "")
    if not name:
        return None
    beside = next((path for path in (adapter / name, adapter.parent / name) if path.is_dir()), None)
    return beside.resolve() if beside else _directory(name)


def _adapter(directory: Path) -> Path:
    if not (directory / ADAPTER_FILE).is_file():
        raise EncoderError(f"{directory} holds no {ADAPTER_FILE}, so it is no adapter.")
    if not (directory / "adapter_model.safetensors").is_file():
        raise EncoderError(
            f"The adapter in {directory} has no adapter_model.safetensors; convert its weights to safetensors."
        )
    return directory


def _sentence_transformers(directory: Path, name: str) -> Checkpoint:
    """A sentence-transformers model of a decoder: Transformer, WordWeights, Pooling, Dense, Normalize."""
    modules = read_modules(directory)
    kinds = [module.kind for module in modules]
    unknown = next((kind for kind in kinds[1:] if kind not in ("WordWeights", "Pooling", "Dense", "Normalize")), None)
    if unknown:
        raise EncoderError(f"The sentence-transformers model in {directory} has a {unknown} module: not supported.")
    if kinds[:1] != ["Transformer"] or kinds.count("Pooling") != 1:
        raise EncoderError(f"The sentence-transformers model in {directory} is not one Transformer and one Pooling.")
    backbone = modules[0].folder
    _complete(backbone, tokenizers=_TOKENIZERS)
    model, limits = read_json(backbone / "config.json"), _optional(backbone / "sentence_bert_config.json")
    if limits.get("do_lower_case"):
        raise EncoderError(f"The model in {directory} lowers case outside of its tokenizer, which is not supported.")
    pooling = read_json(next(module.folder for module in modules if module.kind == "Pooling") / "config.json")
    weight = Head.read(directory).weight
    mode = _pooling(pooling, directory)
    attention: Attention = "bidirectional" if _two_sided(model) else "causal"
    config = EncoderConfig(
        dimensions=hidden_size(model) if weight is None else len(weight),
        max_tokens=int(limits.get("max_seq_length") or _limit(backbone, model)),
        attention=attention,
        pooling=mode,
        pool_special=not _leaves_specials_out(modules),
        prompts=_prompts(
            _optional(directory / "config_sentence_transformers.json").get("prompts") or {},
            mode,
            pooled=bool(pooling.get("include_prompt", True)),
        ),
    )
    return Checkpoint(directory, config, name, backbone, _tokenizer(backbone))


def _leaves_specials_out(modules: Sequence[Module]) -> bool:
    return any(module.folder.name.endswith(SPECIAL_TOKENS) for module in modules)


def _pooling(table: dict[str, Any], directory: Path) -> Pooling:
    """The mode of a Pooling module, in its present form or as the flags of older versions."""
    modes = table.get("pooling_mode")
    if modes is None:
        flags = (key for key, value in table.items() if key.startswith("pooling_mode_") and value)
        modes = [key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token") for key in flags]
    modes = [modes] if isinstance(modes, str) else modes or ["mean"]
    if len(modes) != 1 or modes[0] not in _POOLING:
        raise EncoderError(
            f"The model in {directory} pools by {' and '.join(map(str, modes))}, which is not supported."
        )
    return _POOLING[modes[0]]


def _two_sided(model: dict[str, Any]) -> bool:
    inner = text_config(model)
    return inner.get("is_causal") is False or inner.get("use_bidirectional_attention") is True


def _prompts(saved: dict[str, Any], pooling: Pooling, *, pooled: bool) -> Prompts:
    """Templates from the named prompts of a sentence-transformers model, which are `pooled` or only read."""
    excluded = pooling == "last" or not pooled  # of one token, no prompt is a part
    query = str(saved.get("query") or "")
    document = next((str(saved[key]) for key in ("document", "passage", "corpus") if saved.get(key)), "")
    if not pooled and pooling != "last" and document:
        raise EncoderError("The model has a document prompt that it does not pool, which is not supported.")
    titled = document.replace("title: none", "title: {title}") if "title: none" in document else document + "{title}\n"
    instruct = re.fullmatch(r"Instruct: (.+)\n(Query: ?)", query, re.DOTALL)
    instructed = f"Instruct: {{instruction}}\n{instruct[2]}{{text}}" if instruct else "{instruction} {text}"
    default = ""
    if excluded and query:
        default = instruct[1] if instruct else query
        instructed = instructed if instruct else "{instruction}{text}"
    return Prompts(
        query="{text}" if excluded else query + "{text}",
        instructed_query=instructed,
        instruction=default,
        document=titled + "{text}",
        untitled_document=document + "{text}",
    )


def _complete(directory: Path, *, tokenizers: Sequence[str]) -> None:
    """Raise EncoderError unless decoder, weights and tokenizer are there."""
    if not (directory / "config.json").is_file():
        raise EncoderError(f"The encoder in {directory} is incomplete: config.json is missing.")
    if not any((directory / name).is_file() for name in tokenizers):
        raise EncoderError(f"The encoder in {directory} is incomplete: {tokenizers[0]} is missing.")
    if any((directory / f"{WEIGHTS_FILE}{ending}").is_file() for ending in ("", ".index.json")):
        return
    if any(directory.glob("pytorch_model*.bin")):
        raise EncoderError(
            f"The weights in {directory} are pickled, and loading those runs code; convert them to safetensors."
        )
    raise EncoderError(f"The encoder in {directory} is incomplete: it has no {WEIGHTS_FILE}.")


def _has_tokenizer(directory: Path) -> bool:
    return any((directory / name).is_file() for name in _TOKENIZERS)


def _tokenizer(directory: Path) -> Path:
    """`tokenizer.json` where it says everything; the directory where transformers adds to it what other files say."""
    alone = (directory / TOKENIZER_FILE).is_file() and not (directory / "tokenizer_config.json").is_file()
    return directory / TOKENIZER_FILE if alone else directory


def _limit(directory: Path, model: dict[str, Any]) -> int:
    """Longest input: what the model was built for, or less where its tokenizer says so."""
    config = text_config(model)
    positions = next((config[key] for key in ("max_position_embeddings", "n_positions") if config.get(key)), _LONGEST)
    stated = _optional(directory / "tokenizer_config.json").get("model_max_length") or positions
    return int(min(positions, stated))


def _optional(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}

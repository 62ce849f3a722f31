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

from ragindex.encoder.architectures import is_encoder
from ragindex.encoder.checkpoint import CONFIG_FILE, TOKENIZER_FILE, Checkpoint, EncoderConfig, hidden_size, read_json
from ragindex.encoder.files import check_complete, has_tokenizer, longest_input, optional, tokenizer_of
from ragindex.encoder.head import MODULES_FILE, read_modules
from ragindex.encoder.hub import fetch, is_hub_id
from ragindex.encoder.llm2vec import llm2vec_config, llm2vec_prompts
from ragindex.encoder.st_directory import read_foreign, read_sentence_transformers
from ragindex.errors import EncoderError

__all__ = ["bundled_directory", "find_checkpoint"]

ADAPTER_FILE = "adapter_config.json"
_LLM2VEC_FILE = "llm2vec_config.json"
_ON_MNTP = re.compile(r"(.+-mntp)-(?:unsup-simcse|supervised)$")


def bundled_directory() -> Path:
    """Where the encoder lies that travels with the package."""
    return Path(__file__).resolve().parent / "bundled"


def find_checkpoint(name: str, *, adapters: Sequence[str] = ()) -> Checkpoint:
    """Read the encoder called `name`: "bundled", a directory, or a hub id.

    adapters: LoRA directories (or hub ids) to merge on top, first one first. Raises EncoderError with what is missing
    and how to get it.
    """
    directory = _directory(name)
    added = tuple(_adapter(_directory(item)) for item in adapters)
    if (directory / CONFIG_FILE).is_file():
        found = _own(directory, name)
    elif (directory / MODULES_FILE).is_file():
        found = read_sentence_transformers(directory, name)
    elif (directory / ADAPTER_FILE).is_file():
        return _as_llm2vec(_adapted(directory, name, follow=not adapters), added)
    elif added or (directory / _LLM2VEC_FILE).is_file():  # LLM2Vec.save may have merged the adapters
        return _as_llm2vec(_plain(directory, name), added)
    else:
        return _plain(directory, name)
    if added and found.is_foreign:
        raise EncoderError(
            f"{name!r} is a sentence-transformers model with modules of its own; no adapter can be merged into it."
        )
    return replace(found, adapters=(*found.adapters, *added))


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
    config = EncoderConfig.from_json(read_json(directory / CONFIG_FILE))
    if config.pooling == "modules":
        return read_foreign(directory, name, config)
    check_complete(directory, tokenizers=(TOKENIZER_FILE,))
    if not read_modules(directory):
        raise EncoderError(f"The encoder in {directory} is incomplete: {MODULES_FILE} is missing or empty.")
    return Checkpoint(directory.resolve(), config, name, directory.resolve(), directory.resolve() / TOKENIZER_FILE)


def _plain(directory: Path, name: str) -> Checkpoint:
    if not (directory / "config.json").is_file():
        raise EncoderError(
            f"{directory} holds no {CONFIG_FILE}, which Encoder.save writes, and no config.json of a model, so it is "
            "no encoder."
        )
    check_complete(directory)
    model = read_json(directory / "config.json")
    if is_encoder(model):
        raise EncoderError(
            f"The {model['model_type']} model in {directory} is no decoder, and it does not say how its tokens become "
            f"a vector; save it with sentence-transformers, which writes {MODULES_FILE}."
        )
    config = EncoderConfig(dimensions=hidden_size(model), max_tokens=longest_input(directory, model))
    return Checkpoint(directory, config, name, directory, tokenizer_of(directory))


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
    tokenizer = next((tokenizer_of(item) for item in chain if has_tokenizer(item)), plain.tokenizer)
    return replace(plain, directory=directory, tokenizer=tokenizer, adapters=tuple(reversed(chain)))


def _as_llm2vec(found: Checkpoint, added: Sequence[Path]) -> Checkpoint:
    """A decoder with all its adapters, the settings beside the last of them that has some (or beside the decoder), and
    the templates of the base model.
    """
    adapters = (*found.adapters, *added)
    based = [str(read_json(item / ADAPTER_FILE).get("base_model_name_or_path") or "") for item in adapters]
    saved = [str(optional(item / "config.json").get("_name_or_path") or "") for item in (*adapters, found.backbone)]
    places = (*reversed(adapters), found.backbone)
    table = next((read_json(file) for item in places if (file := item / _LLM2VEC_FILE).is_file()), {})
    prompts = llm2vec_prompts(
        [*based, *saved, found.name, found.backbone.name],
        model_type=found.model_type,
        pooling_mode=str(table.get("pooling_mode", "mean")),
    )
    return replace(found, config=llm2vec_config(table, replace(found.config, prompts=prompts)), adapters=adapters)


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

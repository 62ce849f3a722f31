"""Reads a sentence-transformers directory: as a decoder that is run here where it is one, else as a foreign encoder.

A decoder with a pooling, linear maps and nothing else is run by `torch_forward` as any of our own. Everything else
(BERT and its like, CLS or max pooling, maps that are not linear, static embeddings) is run as its modules say; see
`ragindex.encoder.foreign`. Loads neither torch nor transformers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ragindex.encoder import foreign
from ragindex.encoder.architectures import is_encoder, is_two_sided
from ragindex.encoder.checkpoint import Attention, Checkpoint, EncoderConfig, Pooling, hidden_size, read_json
from ragindex.encoder.files import check_complete, longest_input, optional, tokenizer_of
from ragindex.encoder.head import SPECIAL_TOKENS, Head, Module
from ragindex.encoder.prompts import Prompts, Task
from ragindex.errors import EncoderError

__all__ = ["read_foreign", "read_sentence_transformers"]

_NATIVE = frozenset({"WordWeights", "Pooling", "Dense", "Normalize"})
_POOLING: Mapping[str, Pooling] = {"mean": "mean", "weightedmean": "weighted-mean", "lasttoken": "last"}
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")
_TITLE = "title: none"
_INSTRUCT = re.compile(r"Instruct: (.+)\n(Query: ?)", re.DOTALL)
# MTEB's kinds of tasks in which all texts are prompted alike.
_SYMMETRIC = frozenset(
    {
        "bitextmining",
        "classification",
        "clustering",
        "multilabelclassification",
        "pairclassification",
        "sts",
        "summarization",
    }
)


def read_sentence_transformers(directory: Path, name: str) -> Checkpoint:
    """The encoder that a directory with `modules.json` is. Raises EncoderError when it cannot be served."""
    modules = foreign.trusted_modules(directory)
    if not _is_native(modules):
        return read_foreign(directory, name)
    backbone = modules[0].folder
    check_complete(backbone)
    foreign.check_transformer(backbone)
    model, limits = read_json(backbone / "config.json"), optional(backbone / "sentence_bert_config.json")
    pooling = _pooling(modules)
    mode = _POOLING[foreign.pooling_modes(pooling)[0]]
    attention: Attention = "bidirectional" if is_two_sided(model) else "causal"
    weight = Head.read(directory).weight
    config = EncoderConfig(
        dimensions=hidden_size(model) if weight is None else len(weight),
        max_tokens=int(limits.get("max_seq_length") or longest_input(backbone, model)),
        attention=attention,
        pooling=mode,
        pool_special=not any(module.folder.name.endswith(SPECIAL_TOKENS) for module in modules),
        prompts=_prompts(directory, one_token=mode == "last", pooled=bool(pooling.get("include_prompt", True))),
    )
    return Checkpoint(directory, config, name, backbone, tokenizer_of(backbone))


def read_foreign(directory: Path, name: str, config: EncoderConfig | None = None) -> Checkpoint:
    """The encoder that the modules are; `config` where it was saved by ragindex, which says the rest.

    Raises EncoderError for one that would run code of its own, that is not complete, or whose vectors are not made to
    be compared by direction.
    """
    modules = foreign.trusted_modules(directory)
    foreign.check_modules(directory, modules)
    backbone = modules[0].folder
    if config is None:
        pooling = _pooling(modules)
        config = EncoderConfig(
            dimensions=foreign.dimensions(modules),
            max_tokens=foreign.longest_input(modules),
            pooling="modules",
            pool_special=modules[0].kind != foreign.STATIC,
            prompts=_prompts(directory, one_token=False, pooled=bool(pooling.get("include_prompt", True))),
        )
    return Checkpoint(directory, config, name, backbone, tokenizer_of(backbone))


def _is_native(modules: Sequence[Module]) -> bool:
    """Whether a decoder, a pooling and linear maps are all that there is."""
    kinds = [module.kind for module in modules]
    if kinds[:1] != ["Transformer"] or not _NATIVE.issuperset(kinds[1:]) or kinds.count("Pooling") != 1:
        return False
    backbone = modules[0].folder
    return (
        not is_encoder(optional(backbone / "config.json"))
        and not foreign.lowers_case(backbone)
        and _POOLING.keys() >= set(foreign.pooling_modes(_pooling(modules)))
        and len(foreign.pooling_modes(_pooling(modules))) == 1
        and all(foreign.is_linear(module.folder) for module in modules if module.kind == "Dense")
    )


def _pooling(modules: Sequence[Module]) -> dict[str, Any]:
    """The settings of the pooling module; empty where there is none."""
    return next((read_json(module.folder / "config.json") for module in modules if module.kind == "Pooling"), {})


def _prompts(directory: Path, *, one_token: bool, pooled: bool) -> Prompts:
    """Templates from the named prompts of a model, which are `pooled` or only read; of one token, no prompt is a
    part.
    """
    saved = optional(directory / foreign.SETTINGS_FILE).get("prompts") or {}
    texts = {str(name): str(prompt) for name, prompt in saved.items() if prompt}
    query = texts.get("query", "")
    document = next((texts[name] for name in _DOCUMENT_PROMPTS if name in texts), "")
    if document and not pooled and not one_token:
        raise EncoderError(f"The model in {directory} has a document prompt that it does not pool: not supported.")
    titled = document.replace(_TITLE, "title: {title}") if _TITLE in document else document + "{title}\n"
    only_read = one_token or not pooled
    instruct = _INSTRUCT.fullmatch(query)
    instructed = f"Instruct: {{instruction}}\n{instruct[2]}{{text}}" if instruct else "{instruction} {text}"
    prompts = Prompts(
        query=query + "{text}",
        instructed_query=instructed,
        document=titled + "{text}",
        untitled_document=document + "{text}",
        pooled="from-text" if only_read else "all",
        tasks={name: _task(name, text, only_read=only_read) for name, text in texts.items() if _is_task(name)},
    )
    if not only_read or not query:
        return prompts
    return replace(
        prompts,
        query="{text}",
        instructed_query=instructed if instruct else "{instruction}{text}",
        instruction=instruct[1] if instruct else query,
    )


def _is_task(name: str) -> bool:
    return name != "query" and not name.lower().endswith(_DOCUMENT_PROMPTS)


def _task(name: str, prompt: str, *, only_read: bool) -> Task:
    symmetric = name.lower() in _SYMMETRIC
    if only_read:
        return Task(prompt, symmetric=symmetric, query="{instruction}{text}")
    return Task(symmetric=symmetric, query=prompt + "{text}")

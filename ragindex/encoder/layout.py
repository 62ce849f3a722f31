"""Writes an encoder's directory: a sentence-transformers model with `ragindex.json` beside it.

    config.json, model.safetensors, tokenizer.json    the decoder, as transformers writes it; already there
    tokenizer_config.json                             makes transformers take tokenizer.json as it is
    modules.json                                      the list of the modules below
    N_WordWeights                                     token weights; near zero for special tokens that are not pooled
    N_Pooling  N_Dense  N_Normalize
    config_sentence_transformers.json                 prompts and similarity
    sentence_bert_config.json                         the limit in tokens
    ragindex.json                                     what that format cannot say

`SentenceTransformer(directory)` gives the same vectors. Where its format cannot express an encoder, its first module
has a class that sentence-transformers refuses: an error there is better than other vectors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from ragindex.encoder.checkpoint import (
    TOKENIZER_FILE,
    WEIGHTLESS,
    WEIGHTS_FILE,
    Counting,
    EncoderConfig,
    hidden_size,
    read_json,
    text_config,
    write_config,
)
from ragindex.encoder.head import MODULES_FILE, POOLER, Head
from ragindex.encoder.prompts import Prompted, Prompts

__all__ = ["append_cut", "inexpressible", "named_prompts", "write_json", "write_layout"]

_TYPES = {
    "Transformer": "sentence_transformers.models.Transformer",
    "WordWeights": "sentence_transformers.models.WordWeights",
    "SpecialTokens": "sentence_transformers.models.WordWeights",
    "Pooling": "sentence_transformers.models.Pooling",
    POOLER: f"ragindex.encoder.pooling.{POOLER}",
    "Dense": "sentence_transformers.models.Dense",
    "Normalize": "sentence_transformers.models.Normalize",
}
_REFUSED = "ragindex.encoder.Encoder"
_POOLING = {"mean": "mean", "weighted-mean": "weightedmean", "last": "lasttoken"}
# Not zero: a text of nothing but special tokens still has a direction. In any other text it is lost in rounding.
_NEXT_TO_NOTHING = 1e-7
# Those that stay causal, in some batches at least, when only their configuration says that they are not.
_NEED_BOTH_SWITCHES = frozenset({"bloom", "codegen", "falcon", "gpt_neo", "gptj", "nemotron", "stablelm"})
_SAMPLES = ("a", "The key", "1", "(x", "é", " b")


class _Specials(NamedTuple):
    """Token ids that the tokenizer puts around a text."""

    before: list[int]
    after: list[int]


def write_layout(directory: Path, config: EncoderConfig, head: Head) -> None:
    """Write everything but decoder and tokenizer into `directory`, where these two lie already.

    Token weights of special tokens that are not pooled are set next to nothing.
    """
    tokenizer = Tokenizer.from_file(str(directory / TOKENIZER_FILE))
    specials = _specials(tokenizer)
    model = read_json(directory / "config.json")
    model["is_causal"] = config.attention == "causal"
    write_json(directory / "config.json", model)
    hidden = hidden_size(model)
    vocabulary = int(text_config(model)["vocab_size"])
    head = _with_specials(head, config, specials)
    if config.dimensions < (hidden if head.weight is None else len(head.weight)):
        whole = head if head.weight is not None else replace(head, weight=np.eye(hidden, dtype=np.float32))
        head = whole.cut(config.dimensions)
    # The folder has another name where it repeats what ragindex.json says, so that the encoder itself has no weights.
    weights_name = "SpecialTokens" if head.token_weights is None else "WordWeights"
    token_weights = head.token_weights
    if token_weights is None and _excluded(config, specials):
        token_weights = np.ones(vocabulary, dtype=np.float32)
        token_weights[_excluded(config, specials)] = _NEXT_TO_NOTHING
    reason = inexpressible(config, head, tokenizer, model)
    modules = [{"idx": 0, "name": "0", "path": "", "type": _REFUSED if reason else _TYPES["Transformer"]}]

    def module(kind: str) -> Path:
        number = len(modules)
        folder = directory / f"{number}_{kind}"
        folder.mkdir(exist_ok=True)
        modules.append({"idx": number, "name": str(number), "path": folder.name, "type": _TYPES[kind]})
        return folder

    if token_weights is not None and config.pooling != "last":
        _write_token_weights(module(weights_name), token_weights, as_numbers=reason is None)
    if config.pooling in WEIGHTLESS:
        pooling = {"embedding_dimension": hidden, "pooling_mode": _POOLING[config.pooling]}
        included = not config.prompts.for_query("").pooled_from
        write_json(module("Pooling") / "config.json", {**pooling, "include_prompt": included})
    else:
        save_file(dict(head.pooler), module(POOLER) / WEIGHTS_FILE)
    if head.weight is not None:
        _write_dense(module("Dense"), head)
    module("Normalize")
    write_json(directory / MODULES_FILE, modules)
    _write_outer(directory, config, tokenizer, int(model.get("pad_token_id") or 0))
    write_config(directory, config)


def append_cut(directory: Path, full: int, dimensions: int) -> None:
    """Add modules to a sentence-transformers model that cut its vectors of `full` values and normalise them again."""
    modules = json.loads((directory / MODULES_FILE).read_text(encoding="utf-8"))
    for kind in ("Dense", "Normalize"):
        number = len(modules)
        folder = directory / f"{number}_{kind}"
        folder.mkdir()
        modules.append({"idx": number, "name": str(number), "path": folder.name, "type": _TYPES[kind]})
        if kind == "Dense":
            _write_dense(folder, Head(weight=np.eye(dimensions, full, dtype=np.float32)))
    write_json(directory / MODULES_FILE, modules)


def inexpressible(config: EncoderConfig, head: Head, tokenizer: Tokenizer, model: dict[str, object]) -> str | None:
    """What a sentence-transformers model cannot say about this encoder; None when it can say everything."""
    specials = _specials(tokenizer)
    excluded = _excluded(config, specials)
    weighted = head.token_weights is not None
    if config.attention == "bidirectional" and model.get("model_type") in _NEED_BOTH_SWITCHES:
        return "two-sided attention of this architecture, which takes more than a setting"
    if config.temperature != 1:
        return "an attention temperature"
    if config.counting != Counting() and config.pooling != "last":
        return "tokens that count by how often and where they occur"
    if config.pooling not in WEIGHTLESS:
        return f"{config.pooling} pooling"
    if _named_prompts(config, tokenizer) is None:
        return "prompts that do more than stand before a text"
    if config.pooling == "last":
        return "pooling of the last token before the special ones" if excluded and specials.after else None
    if config.pooling == "weighted-mean" and (excluded or (weighted and head.bias is not None)):
        return "weights by position that leave special tokens out"
    if config.prompts.for_query("").pooled_from and (excluded or (weighted and head.bias is not None)):
        return "an instruction that is not pooled"
    return None


def _named_prompts(config: EncoderConfig, tokenizer: Tokenizer) -> dict[str, str] | None:
    only_read = None if config.pooling == "last" else bool(config.prompts.for_query("").pooled_from)
    return named_prompts(config.prompts, tokenizer, only_read=only_read)


def named_prompts(prompts: Prompts, tokenizer: Tokenizer, *, only_read: bool | None = None) -> dict[str, str] | None:
    """Prompts as sentence-transformers has them, strings that are put before a text: "query", "document", and one for
    each task that such a string can say. None when it cannot say the first two.

    only_read: whether its pooling leaves all of them out; None where that makes no difference, as of one token.
    """
    query = _prefix(prompts.for_query, tokenizer, only_read=only_read)
    document = _prefix(prompts.for_document, tokenizer, only_read=only_read)
    if query is None or document is None:
        return None
    tasks = {
        name: _prefix(partial(prompts.for_query, task=name), tokenizer, only_read=only_read) for name in prompts.tasks
    }
    return {"query": query, "document": document} | {name: text for name, text in tasks.items() if text}


def _prefix(prompt: Callable[[str], Prompted], tokenizer: Tokenizer, *, only_read: bool | None) -> str | None:
    """What is put before a text, if that is all that the prompt does, and pooling leaves it out as `only_read` says."""
    prefix = prompt("").text
    if prompt(_SAMPLES[0]).text != prefix + _SAMPLES[0]:
        return None
    if only_read is not None and prefix and prompt("").pooled_from != len(prefix) * only_read:
        return None
    return prefix if not only_read or _stands_alone(prefix, tokenizer) else None


def _stands_alone(prefix: str, tokenizer: Tokenizer) -> bool:
    """Whether a prefix has the same tokens with and without a text after it, as sentence-transformers assumes."""
    alone = tokenizer.encode(prefix, add_special_tokens=False).ids
    with_text = (tokenizer.encode(prefix + text, add_special_tokens=False).ids for text in _SAMPLES)
    return all(ids[: len(alone)] == alone for ids in with_text)


def _specials(tokenizer: Tokenizer) -> _Specials:
    encoding = tokenizer.encode("a")
    pooled = np.flatnonzero(np.asarray(encoding.special_tokens_mask) == 0)
    ids = list(encoding.ids)
    return _Specials(ids[: pooled[0]], ids[pooled[-1] + 1 :]) if len(pooled) else _Specials(ids, [])


def _excluded(config: EncoderConfig, specials: _Specials) -> list[int]:
    return [] if config.pool_special else sorted({*specials.before, *specials.after})


def _with_specials(head: Head, config: EncoderConfig, specials: _Specials) -> Head:
    if head.token_weights is None:
        return head
    weights = head.token_weights.astype(np.float32)
    weights[_excluded(config, specials)] = _NEXT_TO_NOTHING
    return replace(head, token_weights=weights)


def _write_token_weights(folder: Path, weights: np.ndarray, *, as_numbers: bool) -> None:
    """As a tensor, which is read here, and as numbers, a megabyte of them, if sentence-transformers may read them."""
    save_file({"emb_layer.weight": np.ascontiguousarray(weights.reshape(-1, 1))}, folder / WEIGHTS_FILE)
    if not as_numbers:
        return
    usual = float(str(np.float32(np.median(weights))))
    # As strings a float32 is shorter than as the float64 it equals, and reads back as the same float32.
    words = {str(token): float(str(value)) for token, value in enumerate(weights) if float(str(value)) != usual}
    names = [str(token) for token in range(len(weights))]
    write_json(
        folder / "config.json", {"vocab": names, "word_weights": words, "unknown_word_weight": usual}, indent=None
    )


def _write_dense(folder: Path, head: Head) -> None:
    assert head.weight is not None
    tensors = {"linear.weight": np.ascontiguousarray(head.weight, dtype=np.float32)}
    if head.bias is not None:
        tensors["linear.bias"] = np.ascontiguousarray(head.bias, dtype=np.float32)
    save_file(tensors, folder / WEIGHTS_FILE)
    table = {
        "in_features": head.weight.shape[1],
        "out_features": len(head.weight),
        "bias": head.bias is not None,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    write_json(folder / "config.json", table)


def _write_outer(directory: Path, config: EncoderConfig, tokenizer: Tokenizer, pad: int) -> None:
    prompts = _named_prompts(config, tokenizer) or {}
    write_json(
        directory / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    # float32, whatever the weights are stored in: that is what the vectors here are computed in on a CPU.
    write_json(
        directory / "sentence_bert_config.json",
        {"max_seq_length": config.max_tokens, "do_lower_case": False, "model_args": {"dtype": "float32"}},
    )
    write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": config.max_tokens,
            "pad_token": tokenizer.id_to_token(pad) or tokenizer.id_to_token(0),
            "padding_side": "right",
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
        },
    )


def write_json(file: Path, table: object, *, indent: int | None = 2) -> None:
    """Write a table as the other programs write theirs."""
    file.write_text(json.dumps(table, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")

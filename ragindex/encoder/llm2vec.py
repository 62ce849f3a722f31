"""What published LLM2Vec adapters (arXiv 2404.05961) leave to the reference package: pooling, and the chat template of
the base model, which that package (0.2.3) picks by the model's name whenever it encodes. Here it is picked once, when
an adapter is loaded, and stored with the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ragindex.encoder.checkpoint import EncoderConfig, Pooling
from ragindex.encoder.prompts import PROMPT_STYLES, Prompts
from ragindex.errors import EncoderError

__all__ = ["llm2vec_config", "llm2vec_prompts"]

_POOLING: Mapping[str, Pooling] = {
    "mean": "mean",
    "weighted_mean": "weighted-mean",
    "last_token": "last",
    "eos_token": "last",
}
_INST = "[INST] {text} [/INST]"
_CHATML = "<|im_start|>user\n{text}<|im_end|>"
# Around instruction and text alike; what follows the text is pooled, what precedes it is not.
_WRAPPERS = {
    "meta-llama/Meta-Llama-3-8B-Instruct": "<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>",
    "meta-llama/Llama-2-7b-chat-hf": _INST,
    "mistralai/Mistral-7B-Instruct-v0.2": _INST,
    "google/gemma-2-9b-it": "<bos><start_of_turn>user\n{text}<end_of_turn>",
    "Qwen/Qwen2-1.5B-Instruct": _CHATML,
    "Qwen/Qwen2-7B-Instruct": _CHATML,
}
_END = {"llama": " </s>", "mistral": " </s>", "gemma": "<eos>", "qwen2": "<|endoftext|>"}
_LLAMA_3 = "meta-llama/Meta-Llama-3-8B"


def llm2vec_prompts(names: Sequence[str], *, model_type: str, pooling_mode: str = "mean") -> Prompts:
    """The templates of an adapter whose base model goes by `names`: hub ids, or folders called like the model.

    pooling_mode: the reference's name for it; "eos_token" ends every text in the base model's end token.
    """
    base = next((known for name in names for known in (*_WRAPPERS, _LLAMA_3) if _is_called(name, known)), "")
    wrapper = _WRAPPERS.get(base, "{text}")
    if pooling_mode == "eos_token" and not wrapper.endswith("<|eot_id|>"):
        wrapper += "<|end_of_text|>" if base == _LLAMA_3 else _END.get(model_type, "")
    return replace(PROMPT_STYLES["llm2vec"], wrapper=wrapper)


def llm2vec_config(table: Mapping[str, Any], config: EncoderConfig) -> EncoderConfig:
    """Settings as LLM2Vec.save writes them (llm2vec_config.json), over those of the base model."""
    mode = str(table.get("pooling_mode", "mean"))
    if mode not in _POOLING:
        raise EncoderError(f"Pooling {mode!r} of LLM2Vec is not supported; choose one with pooling=….")
    whole = not table.get("skip_instruction", True)
    return replace(
        config,
        pooling=_POOLING[mode],
        max_tokens=min(int(table.get("max_length") or config.max_tokens), config.max_tokens),
        pool_special=whole,
        prompts=replace(config.prompts, pooled="all") if whole else config.prompts,
    )


def _is_called(name: str, known: str) -> bool:
    """Whether a name is a model's hub id, or that of a folder which holds a copy under the model's own name."""
    return name == known or name.rstrip("/\\").replace("\\", "/").rpartition("/")[2] == known.rpartition("/")[2]

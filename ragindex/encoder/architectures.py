"""What is known of transformers' architectures by their name (`model_type` in config.json); loads none of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["is_encoder", "is_two_sided", "positions", "text_config"]

# fmt: off
# Read both ways as they are. T5 and its like serve by the encoder half.
_ENCODERS = frozenset({
    "albert", "bert", "big_bird", "camembert", "convbert", "data2vec-text", "deberta", "deberta-v2", "distilbert",
    "electra", "ernie", "eurobert", "flaubert", "fnet", "funnel", "gte", "ibert", "jina_embeddings_v3", "layoutlm",
    "longformer", "longt5", "luke", "megatron-bert", "mobilebert", "modernbert", "mpnet", "mra", "mt5", "nomic_bert",
    "nystromformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "squeezebert", "t5",
    "t5gemma", "umt5", "xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet", "xmod", "yoso",
})
# Have a table of positions, and nothing beyond its end.
_COUNTED = frozenset({
    "albert", "bert", "big_bird", "biogpt", "codegen", "convbert", "distilbert", "electra", "ernie", "flaubert",
    "gpt2", "gpt_bigcode", "gpt_neo", "gptj", "layoutlm", "megatron-bert", "mobilebert", "nystromformer",
    "openai-gpt", "opt", "rembert", "roc_bert", "squeezebert", "xlm", "yoso",
})
# The same, but the first two rows are taken: positions begin after that of padding, which is 1.
_COUNTED_FROM_TWO = frozenset({
    "camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm",
    "xlm-roberta", "xlm-roberta-xl", "xmod",
})
# fmt: on


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config.json that describes the text decoder."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else config


def is_encoder(config: Mapping[str, Any]) -> bool:
    """Whether an architecture reads both ways as it is."""
    return config.get("model_type") in _ENCODERS


def is_two_sided(config: Mapping[str, Any]) -> bool:
    """Whether a decoder's config.json says that it was made to read both ways."""
    inner = text_config(config)
    return inner.get("is_causal") is False or inner.get("use_bidirectional_attention") is True


def positions(config: Mapping[str, Any]) -> int | None:
    """How many tokens a model has positions for; None where positions have no end."""
    inner = text_config(config)
    kind = str(inner.get("model_type"))
    size = next((inner[key] for key in ("max_position_embeddings", "n_positions") if inner.get(key)), None)
    if size is None or kind not in _COUNTED | _COUNTED_FROM_TWO:
        return None
    return int(size) - (2 if kind in _COUNTED_FROM_TWO else 0)

"""Causal pre-training: a small Llama-type decoder learns to predict the next token, from nothing or further on.

    loss = mean over all tokens but a block's first of -log p(token | those before it in the block)

Texts are packed into blocks, one after the other between their special tokens. Within a block a token also reads the
text before its own; it learns to look past the token that ends one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from ragindex.errors import UsageError
from ragindex.train.blocks import rows_of, split_rows, surroundings
from ragindex.train.data.texts import Texts
from ragindex.train.decoder_files import save_decoder
from ragindex.train.language import LanguageModel
from ragindex.train.prediction import PredictionOptions, TokenPrediction
from ragindex.train.vocabulary import find_roles

__all__ = ["SIZES", "Architecture", "CausalOptions", "TrainedDecoder", "causal_training", "fresh_decoder"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """A Llama-type decoder: rotary positions, RMS norm, gated MLP, embeddings that are the head as well.

    hidden: length of a state; heads of the attention divide it into even parts; intermediate: width of the MLP, 8/3 of
    `hidden` rounded up to a multiple of 32 by default.
    """

    layers: int
    hidden: int
    heads: int
    intermediate: int | None = None

    def __post_init__(self) -> None:
        if min(self.layers, self.hidden, self.heads, self.intermediate or 1) < 1:
            raise UsageError("A decoder needs at least one layer, one head and one value in a state.")
        if self.hidden % self.heads or self.hidden // self.heads % 2:
            raise UsageError(
                f"{self.heads} heads do not divide states of {self.hidden} values into even parts; give heads of 64, "
                f"such as --hidden 256 --heads 4."
            )

    @property
    def width(self) -> int:
        """Width of the MLP."""
        return self.intermediate or -(-self.hidden * 8 // 3 // 32) * 32


SIZES: Mapping[str, Architecture] = {
    "nano": Architecture(2, 128, 2),
    "tiny": Architecture(4, 256, 4),
    "small": Architecture(6, 384, 6),
    "medium": Architecture(8, 512, 8),
    "base": Architecture(12, 768, 12),
}
"""Architectures by one dial: about 0.4, 3, 11, 25 and 85 million parameters beside the vocabulary."""


@dataclass(frozen=True, slots=True)
class CausalOptions:
    """block: tokens in a row, and for a new decoder the most it will read; held_out: rows that are measured, not
    trained on; steps: see `PredictionOptions`.
    """

    block: int = 256
    held_out: int = 128
    steps: PredictionOptions = field(default_factory=PredictionOptions)


@dataclass(frozen=True, slots=True)
class TrainedDecoder:
    """What is left of the training: a decoder."""

    model: LanguageModel

    @property
    def source(self) -> str:
        """See `Product`."""
        return self.model.source

    def save(self, directory: Path, *, card: Mapping[str, object]) -> None:
        """See `Product`."""
        save_decoder(self.model, directory, card=card)


def fresh_decoder(
    architecture: Architecture, tokenizer: Tokenizer, *, positions: int, seed: int, device: str | None = None
) -> LanguageModel:
    """A decoder with random weights for a tokenizer; the same arguments give the same weights."""
    roles = find_roles(tokenizer)
    vocabulary = max(tokenizer.get_vocab().values()) + 1
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=architecture.hidden,
        intermediate_size=architecture.width,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.heads,
        max_position_embeddings=positions,
        pad_token_id=roles.pad,
        bos_token_id=roles.begin,
        eos_token_id=roles.end,
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = LlamaForCausalLM(config)
    return LanguageModel(decoder, tokenizer.to_str().encode(), device=device)


def causal_training(model: LanguageModel, texts: Texts, options: CausalOptions | None = None) -> TokenPrediction:
    """The objective that trains `model` on `texts`.

    Raises TrainingError when there is too little text, UsageError for blocks longer than the decoder reads.
    """
    options = options or CausalOptions()
    if model.attention != "causal":
        raise UsageError("Causal training needs a causal decoder; train a bidirectional one with mntp.")
    reach = getattr(model.decoder.config, "max_position_embeddings", None)
    if reach is not None and options.block > reach:
        raise UsageError(f"Blocks of {options.block} tokens are longer than the {reach} that this decoder reads.")
    tokenizer = model.tokenizer
    around = surroundings(tokenizer, end=model.end)
    rows = rows_of(texts, tokenizer, around, length=options.block)
    split = split_rows(rows, held_out=options.held_out, seed=options.steps.seed)
    return TokenPrediction(model, split, options.steps)

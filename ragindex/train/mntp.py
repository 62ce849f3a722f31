"""Masked next-token prediction: a decoder that now reads both ways learns to use what comes after (LLM2Vec, arXiv
2404.05961, section 2.2).

Some tokens are hidden. The token at place i is predicted from the state at place i - 1, as the decoder did before; the
first of a row has no such place and is never hidden. What comes out is an encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from ragindex.errors import TrainingError, UsageError
from ragindex.train.blocks import Layout, rows_of, split_rows, surroundings
from ragindex.train.data.texts import Texts
from ragindex.train.decoder_files import save_adapter, save_encoder
from ragindex.train.language import IGNORED, LanguageModel, TokenBatch
from ragindex.train.prediction import PredictionOptions, TokenPrediction
from ragindex.train.preparing import Lora

__all__ = ["MaskToken", "MaskedEncoder", "MaskedOptions", "Masking", "Scheme", "mask_token", "masked_training"]

Scheme = Literal["bert", "all"]
MaskToken = Literal["blank", "eos", "mask"]

_MASKS = ("<mask>", "[MASK]", "<|mask|>")
_BLANK = "_"
_KEPT, _RANDOM = 0.1, 0.1  # of the hidden tokens under "bert": left as they are, replaced by any other


@dataclass(frozen=True, slots=True, eq=False)
class Masking:
    """Hides each ordinary token with probability `rate`.

    mask: id of the token that stands for a hidden one; ordinary: ids of those that may be hidden, (n,) int64; scheme:
    "bert" puts the mask for 80 % of the hidden tokens, any ordinary token for 10 %, and leaves 10 % as they are (Devlin
    et al., arXiv 1810.04805); "all" puts it for all of them, as LLM2Vec does for Mistral with a rate of 0.8.
    """

    mask: int
    ordinary: Tensor
    rate: float = 0.2
    scheme: Scheme = "bert"

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise UsageError(f"A mask rate of {self.rate:g} leaves nothing to learn; give one between 0 and 1.")
        if self.scheme not in get_args(Scheme):
            raise UsageError(f"Masks are put by {' or '.join(get_args(Scheme))}; got {self.scheme!r}.")

    def __call__(self, batch: TokenBatch, *, generator: torch.Generator | None = None) -> TokenBatch:
        """See `Hiding`: only hidden tokens keep their labels."""
        candidates = torch.isin(batch.ids, self.ordinary)
        candidates[:, 0] = False
        if batch.real is not None:
            candidates &= batch.real
        hidden = candidates & (torch.rand(batch.ids.shape, generator=generator) < self.rate)
        labels = batch.ids.masked_fill(~hidden, IGNORED)
        fate = torch.rand(batch.ids.shape, generator=generator)
        others = self.ordinary[torch.randint(len(self.ordinary), batch.ids.shape, generator=generator)]
        ids = batch.ids.masked_fill(hidden, self.mask)
        if self.scheme == "bert":
            ids = torch.where(hidden & (fate < _KEPT + _RANDOM), others, ids)
            ids = torch.where(hidden & (fate < _KEPT), batch.ids, ids)
        return TokenBatch(ids, labels, batch.real)


@dataclass(frozen=True, slots=True)
class MaskedOptions:
    """block: tokens in a row; layout: of the rows, see `ragindex.train.blocks`; mask: what stands for a hidden token,
    see `mask_token`; rate, scheme: see `Masking`; held_out: rows that are measured, not trained on; lora: train an
    adapter instead of all weights.
    """

    block: int = 256
    layout: Layout = "packed"
    mask: MaskToken | None = None
    rate: float = 0.2
    scheme: Scheme = "bert"
    held_out: int = 128
    lora: Lora | None = None
    steps: PredictionOptions = field(default_factory=PredictionOptions)


@dataclass(frozen=True, slots=True)
class MaskedEncoder:
    """What is left of the training: an encoder, and in its folder "adapter" on request the adapter alone.

    output: where the encoder will lie.
    """

    model: LanguageModel
    output: Path
    with_adapter: bool = False

    @property
    def source(self) -> str:
        """See `Product`."""
        return self.model.source

    def save(self, directory: Path, *, card: Mapping[str, object]) -> None:
        """See `Product`."""
        save_encoder(self.model, directory, card=card)
        if self.with_adapter:
            save_adapter(self.model, directory / "adapter", place=self.output / "adapter")


def masked_training(model: LanguageModel, texts: Texts, options: MaskedOptions | None = None) -> TokenPrediction:
    """The objective that trains `model` on `texts`; with options.lora, it gets its adapter here.

    Raises TrainingError when there is too little text, UsageError for a causal model and for blocks that are longer
    than the encoder reads.
    """
    options = options or MaskedOptions()
    if model.attention != "bidirectional" or model.checkpoint is None:
        raise UsageError("Masked training needs a decoder that reads both ways.")
    limit = model.checkpoint.config.max_tokens
    if options.block > limit:
        raise UsageError(f"Blocks of {options.block} tokens are longer than the {limit} that this decoder reads.")
    tokenizer = model.tokenizer
    end = model.end if options.layout == "packed" else None
    around = surroundings(tokenizer, end=end)
    rows = rows_of(texts, tokenizer, around, length=options.block, layout=options.layout)
    model.check_ids(rows.ids)
    masking = Masking(
        mask=mask_token(model, options.mask),
        ordinary=model.ordinary_tokens(),
        rate=options.rate,
        scheme=options.scheme,
    )
    if options.lora is not None:
        model.adapt(options.lora)
    split = split_rows(rows, held_out=options.held_out, seed=options.steps.seed)
    return TokenPrediction(model, split, options.steps, hiding=masking)


def mask_token(model: LanguageModel, choice: MaskToken | None = None) -> int:
    """The id of the token that stands for hidden ones.

    "blank": the underscore, LLM2Vec's choice for decoders without a mask token; "eos": the token that ends a text;
    "mask": the tokenizer's own mask token, or a new one, whose row is the mean of all rows. None: its own, if it has
    one, or else the underscore. Raises UsageError when the tokenizer lacks what was chosen.
    """
    tokenizer = model.tokenizer
    own = next((token for name in _MASKS if (token := tokenizer.token_to_id(name)) is not None), None)
    if choice == "mask" or (choice is None and own is not None):
        return model.add_token(_MASKS[0]) if own is None else own
    if choice == "eos":
        if model.end is None:
            raise UsageError("This decoder names no token that ends a text; choose another mask token.")
        return model.end
    blank = tokenizer.token_to_id(_BLANK)
    if blank is None:
        raise UsageError(f"This tokenizer has no token {_BLANK!r}; choose the mask token eos or mask.")
    if blank >= model.rows:
        raise TrainingError("The tokenizer's underscore has no row in the decoder; they do not belong together.")
    return int(blank)

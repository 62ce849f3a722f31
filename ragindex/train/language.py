"""A decoder with its language-modelling head as a trainable module, for objectives that predict tokens.

Two-sided attention is switched and proven as everywhere (`ragindex.encoder.backbone`). Logits are computed only where
something is to be predicted, and a part at a time, since a row of them is as long as the vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from ragindex.encoder.adapters import merge_adapters
from ragindex.encoder.backbone import check_attention, set_attention, set_temperature
from ragindex.encoder.checkpoint import Attention, Checkpoint
from ragindex.encoder.devices import choose_device, choose_dtype
from ragindex.encoder.resolve import find_checkpoint
from ragindex.encoder.tokenizer import EncoderTokenizer
from ragindex.errors import TrainingError, UsageError
from ragindex.train.blocks import surroundings
from ragindex.train.decoder_files import load_decoder
from ragindex.train.preparing import Lora, adapted, attention_switch
from ragindex.train.sharding import Place
from ragindex.train.vocabulary import find_roles

__all__ = ["IGNORED", "LanguageModel", "Scores", "TokenBatch", "shifted"]

IGNORED = -100  # a label that nothing is predicted for, as transformers has it
_LOGITS = 1 << 26  # that are alive at a time


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Rows of tokens. ids: int64 (n, length); labels: int64 (n, length), at each place the token that is to be
    predicted there, or IGNORED; real: bool (n, length), false for padding, or None when there is none.
    """

    ids: Tensor
    labels: Tensor
    real: Tensor | None = None

    @classmethod
    def of(cls, rows: Sequence[np.ndarray]) -> TokenBatch:
        """Rows padded on the right; every token of them is a label."""
        lengths = np.array([len(row) for row in rows])
        real = np.arange(lengths.max()) < lengths[:, None]
        ids = np.zeros(real.shape, np.int64)
        ids[real] = np.concatenate(rows)
        labels = np.where(real, ids, IGNORED)
        return cls(torch.from_numpy(ids), torch.from_numpy(labels), None if real.all() else torch.from_numpy(real))

    @property
    def predicted(self) -> int:
        """How many tokens are predicted."""
        return int((shifted(self.labels) != IGNORED).sum())

    def parts(self, rows: int) -> Iterator[TokenBatch]:
        """The batch in parts of at most so many rows."""
        for start in range(0, len(self.ids), rows):
            part = slice(start, start + rows)
            yield TokenBatch(self.ids[part], self.labels[part], None if self.real is None else self.real[part])


@dataclass(frozen=True, slots=True)
class Scores:
    """Sums over predicted tokens: cross-entropy in nats, how many were right, and how many there were."""

    loss: float = 0.0
    right: int = 0
    count: int = 0

    def __add__(self, other: Scores) -> Scores:
        return Scores(self.loss + other.loss, self.right + other.right, self.count + other.count)


def shifted(labels: Tensor) -> Tensor:
    """What the state at each place predicts: the label one place on; nothing at the end. (n, length) as `labels`.

    A decoder learnt to predict so, and masked next-token prediction keeps to it (arXiv 2404.05961, section 2.2).
    """
    return nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)


class LanguageModel(nn.Module):
    """A decoder, its head and its tokenizer. Weights are float32; computing is in bfloat16 where the hardware has it.

    checkpoint: where it came from; None for one that was made from nothing.
    """

    decoder_place = Place("decoder", entries=("loss", "scores"))  # for `ragindex.train.sharding`

    def __init__(
        self,
        decoder: PreTrainedModel,
        tokenizer: bytes,
        *,
        attention: Attention = "causal",
        checkpoint: Checkpoint | None = None,
        device: str | None = None,
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.attention = attention
        self.serialised = self.original_tokenizer = tokenizer
        self.device = choose_device(device)
        self.mixed = choose_dtype(self.device) == torch.bfloat16
        self.lora: Lora | None = None
        self.decoder: PreTrainedModel = cast("Any", decoder).to(device=self.device, dtype=torch.float32).eval()
        if decoder.get_output_embeddings() is None:
            raise TrainingError(f"{self.source} has no language-modelling head, so it can predict no token.")
        set_attention(decoder, attention)
        check_attention(self.inner, attention)
        self._choose_attention = attention_switch(self.inner, self.device)
        self._head_is_all = self._predicts_by_head_alone()

    @classmethod
    def open(cls, name: str | Path, *, attention: Attention = "causal", device: str | None = None) -> LanguageModel:
        """The decoder of what is called `name`: a plain decoder, an encoder directory, an LLM2Vec adapter (merged), a
        hub id.

        Raises EncoderError for what `Encoder.load` refuses, TrainingError when the head is missing.
        """
        found = find_checkpoint(str(name))
        if found.is_foreign:
            raise UsageError(f"{name!r} is run by sentence-transformers and is no decoder; give a decoder.")
        decoder = load_decoder(found)
        inner = cast("PreTrainedModel", decoder.base_model)
        if found.adapters:
            setattr(decoder, decoder.base_model_prefix, merge_adapters(inner, found.adapters))
        if found.config.temperature != 1:
            set_temperature(inner, found.config.temperature)
        tokenizer = EncoderTokenizer(found).serialised()
        return cls(decoder, tokenizer, attention=attention, checkpoint=found, device=device)

    @property
    def source(self) -> str:
        """What it came from, by name."""
        return "nothing" if self.checkpoint is None else self.checkpoint.name

    @property
    def inner(self) -> PreTrainedModel:
        """The decoder without its head; with LoRA in it once `adapt` was called."""
        return cast("PreTrainedModel", getattr(self.decoder, self.decoder.base_model_prefix))

    @property
    def tokenizer(self) -> Tokenizer:
        """A copy of the tokenizer that neither pads nor cuts."""
        tokenizer = Tokenizer.from_str(self.serialised.decode())
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @property
    def rows(self) -> int:
        """Rows of the embedding table."""
        return int(self._table().num_embeddings)

    @property
    def has_tied_head(self) -> bool:
        """Whether the head is the embedding table."""
        return self._head().weight is self._table().weight

    @property
    def end(self) -> int | None:
        """The token that ends a text."""
        end = getattr(self.decoder.config, "eos_token_id", None)
        end = end[0] if isinstance(end, list) and end else end
        return int(end) if isinstance(end, int) else find_roles(self.tokenizer).end

    def check_ids(self, ids: np.ndarray) -> None:
        """Raise TrainingError when a token has no row: the tokenizer is another model's.

        The size of a vocabulary says less: some tokenizers know a token or two that their decoder lacks.
        """
        largest = int(ids.max(initial=0))
        if largest >= self.rows:
            raise TrainingError(
                f"The tokenizer gives token {largest} but the decoder knows {self.rows:,}: they do not belong "
                "together; give the tokenizer that the decoder was trained with."
            )

    def ordinary_tokens(self) -> Tensor:
        """Ids of all tokens that stand for text, (n,) int64: those that have a row, are not marked as special and are
        not put around texts.
        """
        tokenizer = self.tokenizer
        around = surroundings(tokenizer, end=self.end)
        special = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
        special.update(around.before, around.after)
        known = sorted(token for token in tokenizer.get_vocab().values() if token < self.rows)
        return torch.tensor([token for token in known if token not in special], dtype=torch.int64)

    def add_token(self, name: str) -> int:
        """The id of the special token `name`, which becomes part of tokenizer and decoder if it is not known yet.

        Its rows begin as the mean of all others. To be called before `adapt`.
        """
        tokenizer = Tokenizer.from_str(self.serialised.decode())
        token = tokenizer.token_to_id(name)
        if token is None:
            tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False)])
            self.serialised = tokenizer.to_str().encode()
            token = tokenizer.get_vocab()[name]
        if token >= self.rows:
            before = self.rows
            self.decoder.resize_token_embeddings(token + 1, mean_resizing=False)
            with torch.no_grad():
                for weight in {id(item.weight): item.weight for item in (self._table(), self._head())}.values():
                    weight[before:] = weight[:before].mean(dim=0)
        return token

    def adapt(self, lora: Lora) -> None:
        """Train a low-rank adapter of the inner decoder from now on, and nothing else: head and embeddings are frozen,
        as in LLM2Vec.
        """
        for parameter in self.decoder.parameters():
            parameter.requires_grad = False
        setattr(self.decoder, self.decoder.base_model_prefix, adapted(self.inner, lora, self.attention))
        self.lora = lora

    def loss(self, batch: TokenBatch) -> Tensor:
        """Sum of the cross-entropies of all predicted tokens in nats, a scalar in float32 with a gradient."""
        states, wanted = self._predicting(batch)
        parts = self._split(states, wanted)
        if len(parts) == 1:
            return self._cross_entropy(states, wanted)
        total = states.new_zeros((), dtype=torch.float32)
        for rows, tokens in parts:  # their logits are made again for the gradient instead of being kept
            total = total + checkpoint(self._cross_entropy, rows, tokens, use_reentrant=False)
        return total

    @torch.inference_mode()
    def scores(self, batch: TokenBatch) -> Scores:
        """The same as numbers, with how many predictions are right."""
        states, wanted = self._predicting(batch)
        found = Scores()
        for rows, tokens in self._split(states, wanted):
            logits = self._logits(rows)
            loss = cross_entropy(logits, tokens, reduction="sum")
            found += Scores(float(loss), int((logits.argmax(-1) == tokens).sum()), len(tokens))
        return found

    def parameter_groups(self, rate: float, *, weight_decay: float = 0.01) -> list[dict[str, Any]]:
        """Everything trainable in groups for AdamW: matrices decay; embeddings, head and vectors do not."""
        tables = {id(self._table().weight), id(self._head().weight)}
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        decaying = [item for item in trainable if item.ndim > 1 and id(item) not in tables]
        others = [item for item in trainable if item.ndim <= 1 or id(item) in tables]
        groups = [
            {"params": decaying, "lr": rate, "weight_decay": weight_decay},
            {"params": others, "lr": rate, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    def merged(self) -> PreTrainedModel:
        """The decoder with its head and without adapters: itself, or a copy into which LoRA is merged."""
        if self.lora is None:
            return self.decoder
        whole: PreTrainedModel = copy.deepcopy(self.decoder)  # a merge cannot be undone exactly
        setattr(whole, whole.base_model_prefix, getattr(whole, whole.base_model_prefix).merge_and_unload())
        return whole

    def _table(self) -> nn.Embedding:
        return cast("nn.Embedding", self.decoder.get_input_embeddings())

    def _head(self) -> nn.Linear:
        return cast("nn.Linear", self.decoder.get_output_embeddings())

    def _predicting(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """What logits are made of at the places that predict something, and the tokens that are right there: states
        (predicted, hidden), or logits already (predicted, vocabulary), and int64 (predicted,).
        """
        wanted = shifted(batch.labels).to(self.device)
        places = wanted != IGNORED
        mask = None if batch.real is None else batch.real.to(self.device).long()
        model = self.inner if self._head_is_all else self.decoder
        self._choose_attention(batch.ids.shape[1])
        with self._autocast():
            output = model(input_ids=batch.ids.to(self.device), attention_mask=mask, use_cache=False)
        found = output.last_hidden_state if self._head_is_all else output.logits
        return found[places], wanted[places]

    def _split(self, states: Tensor, wanted: Tensor) -> list[tuple[Tensor, Tensor]]:
        rows = max(1, _LOGITS // self.rows)
        return list(zip(states.split(rows), wanted.split(rows), strict=True))

    def _logits(self, states: Tensor) -> Tensor:
        if not self._head_is_all:
            return states.float()
        with self._autocast():
            return cast("Tensor", self._head()(states)).float()

    def _cross_entropy(self, states: Tensor, wanted: Tensor) -> Tensor:
        return cross_entropy(self._logits(states), wanted, reduction="sum")

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)

    @torch.inference_mode()
    def _predicts_by_head_alone(self) -> bool:
        """Whether logits are the head's output. Some architectures scale or cap it (Gemma, Cohere, Granite); of those
        the whole model is asked, which makes logits for every place.
        """
        ids = torch.arange(16, device=self.device).unsqueeze(0) % self.rows
        logits = self.decoder(input_ids=ids, use_cache=False).logits.float()
        states = self.inner(input_ids=ids, use_cache=False).last_hidden_state
        own = self._head()(states).float() if states.shape[-1] == self._head().in_features else None
        return own is not None and own.shape == logits.shape and torch.allclose(own, logits, rtol=1e-3, atol=1e-4)

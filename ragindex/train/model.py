"""An encoder as a differentiable module: decoder, token weights, pooling and head, joined the way `Encoder` does.

Texts are tokenised and prompted by the same code as in inference, so what is trained is what is used; only cutting
differs: a text that is too long for training is cut, not refused. A trained encoder is written back as a directory
that `Encoder.load` and sentence-transformers read.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import normalize
from transformers import PreTrainedModel

from ragindex.encoder.backbone import load_checkpoint
from ragindex.encoder.checkpoint import TOKENIZER_FILE, WEIGHTLESS, Attention, Checkpoint, EncoderConfig, Pooling
from ragindex.encoder.devices import keep_freed_memory
from ragindex.encoder.head import Head
from ragindex.encoder.layout import write_layout
from ragindex.encoder.pooling import Pooler, new_pooling, stored_pooling
from ragindex.encoder.prompts import Prompted, Prompts
from ragindex.encoder.resolve import find_checkpoint
from ragindex.encoder.tokenizer import EncoderTokenizer, Tokenized
from ragindex.encoder.torch_forward import choose_device, choose_dtype, counts_of, pool_states
from ragindex.errors import TrainingError
from ragindex.train.preparing import Lora, adapted, attention_switch, is_idle, set_attention_dropout
from ragindex.train.sharding import Place

__all__ = ["TrainableEncoder", "save_tensors", "stored_dtype"]


class TrainableEncoder(nn.Module):
    """An encoder directory with gradients. `forward` gives unit vectors; everything outside of LoRA's reach is trained
    in full: token weights, trainable pooling and head stay trainable beside an adapter.
    """

    decoder_place = Place("backbone")  # for `ragindex.train.sharding`

    def __init__(self, checkpoint: Checkpoint, *, lora: Lora | None = None, device: str | None = None) -> None:
        super().__init__()
        if checkpoint.is_foreign:
            raise TrainingError(
                f"{checkpoint.name!r} is no decoder, so it cannot be trained here; it can teach one (`--teacher`) or "
                "guide one (`--guide`)."
            )
        self.checkpoint = checkpoint
        self.config: EncoderConfig = checkpoint.config
        self.lora = lora
        self._idle: nn.ModuleList | None = None
        self.tokenizer = EncoderTokenizer(replace(checkpoint, config=replace(self.config, max_tokens=_UNLIMITED)))
        self.device = choose_device(device)
        if self.device.type == "cpu":
            keep_freed_memory()
        # Master weights are float32: updates of a bfloat16 weight are mostly lost in rounding.
        decoder = load_checkpoint(checkpoint, device=self.device, dtype=torch.float32)
        self.backbone: nn.Module = decoder
        self.mixed = choose_dtype(self.device) == torch.bfloat16
        self._choose_attention = attention_switch(decoder, self.device)
        head = Head.read(checkpoint.directory)
        self.log_weights = _parameter(None if head.token_weights is None else _log(head.token_weights))
        self.weight = _parameter(head.weight)
        self.bias = _parameter(head.bias)
        self.pooler = _pooler(self.config.pooling, head, checkpoint)
        if lora is not None:
            self.backbone = adapted(self.backbone, lora, self.config.attention)
        self.to(self.device)

    @classmethod
    def open(
        cls,
        name: str | Path = "bundled",
        *,
        lora: Lora | None = None,
        attention: Attention | None = None,
        pooling: Pooling | None = None,
        prompts: Prompts | None = None,
        max_tokens: int | None = None,
        dropout: float | None = None,
        device: str | None = None,
    ) -> TrainableEncoder:
        """The encoder called `name`, as for `Encoder.load`, ready to be trained.

        attention, pooling, prompts, max_tokens: in place of what is stored; a pooling with weights that the encoder
        lacks begins untrained. dropout: of the attention weights while training (SimCSE needs some). Raises
        EncoderError for what `Encoder.load` refuses.
        """
        found = find_checkpoint(str(name))
        given = {"attention": attention, "pooling": pooling, "prompts": prompts, "max_tokens": max_tokens}
        changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        model = cls(replace(found, config=replace(found.config, **changes)), lora=lora, device=device)
        if dropout is not None:
            set_attention_dropout(model.backbone, dropout)
        return model

    @property
    def source(self) -> str:
        """What it came from, by name."""
        return self.checkpoint.name

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        return self.config.dimensions

    def queries(
        self, texts: Sequence[str], *, instruction: str | None = None, max_tokens: int | None = None
    ) -> list[Tokenized]:
        """Prompted and tokenised queries, cut at `max_tokens` (the encoder's limit by default)."""
        return self._tokenize([self.config.prompts.for_query(text, instruction) for text in texts], max_tokens)

    def documents(
        self, texts: Sequence[str], *, titles: Sequence[str] | None = None, max_tokens: int | None = None
    ) -> list[Tokenized]:
        """Prompted and tokenised documents, cut at `max_tokens` (the encoder's limit by default)."""
        pairs = zip(texts, titles or [""] * len(texts), strict=True)
        return self._tokenize([self.config.prompts.for_document(text, title) for text, title in pairs], max_tokens)

    def forward(self, batch: Sequence[Tokenized]) -> torch.Tensor:
        """Unit vectors (len(batch), dimensions), float32, in the order of `batch`."""
        longest = max(len(item.ids) for item in batch)
        ids = np.zeros((len(batch), longest), dtype=np.int64)
        real = np.zeros((len(batch), longest), dtype=np.int64)
        pooled = np.zeros((len(batch), longest), dtype=np.float32)
        for row, item in enumerate(batch):
            ids[row, : len(item.ids)] = item.ids
            real[row, : len(item.ids)] = 1
            pooled[row, : len(item.ids)] = item.pooled
        tokens = torch.from_numpy(ids).to(self.device)
        mask = None if real.all() else torch.from_numpy(real).to(self.device)
        every = self.pooler is not None and self.pooler.needs_all_layers
        self._choose_attention(longest)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            output = self.backbone(input_ids=tokens, attention_mask=mask, output_hidden_states=every, use_cache=False)
        states = list(output.hidden_states) if every else [output.last_hidden_state]
        return self._pool(tokens, [layer.float() for layer in states], torch.from_numpy(pooled).to(self.device))

    def parameter_groups(
        self, rate: float, *, weight_decay: float = 0.01, table_factor: float = 1.0, head_factor: float = 1.0
    ) -> list[dict[str, Any]]:
        """Everything trainable in groups for AdamW: matrices decay; tables, vectors and scalars do not.

        table_factor: token rows and token weights learn so many times as fast as the layers, head_factor: the head.
        """
        tables = {id(self._embeddings().weight), id(self.log_weights)}
        head = set() if head_factor == 1 else {id(self.weight), id(self.bias)}
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        rows = [parameter for parameter in trainable if id(parameter) in tables]
        outputs = [parameter for parameter in trainable if id(parameter) in head]
        others = [parameter for parameter in trainable if id(parameter) not in tables | head]
        groups = [
            {"params": [item for item in others if item.ndim > 1], "lr": rate, "weight_decay": weight_decay},
            {"params": [item for item in others if item.ndim <= 1], "lr": rate, "weight_decay": 0.0},
            {"params": rows, "lr": rate * table_factor, "weight_decay": 0.0},
            {"params": outputs, "lr": rate * head_factor, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    def leave_out_idle_layers(self) -> int:
        """Train without the layers that do nothing (zero output projections), and keep them so; how many there are.

        A static encoder stays one that way, and its training costs no forward pass. `save` writes the layers back.
        """
        layers = getattr(self.backbone, "layers", None)
        if not isinstance(layers, nn.ModuleList) or not all(map(is_idle, layers)):
            return 0
        self._idle = layers
        self.backbone.layers = nn.ModuleList()
        return len(layers)

    def head(self) -> Head:
        """What comes after the decoder, as arrays."""
        state = {} if self.pooler is None else self.pooler.state_dict()
        pooler = {name: _array(item) for name, item in state.items()}
        return Head(
            token_weights=None if self.log_weights is None else _array(self.log_weights.exp()),
            weight=None if self.weight is None else _array(self.weight),
            bias=None if self.bias is None else _array(self.bias),
            pooler=pooler,
        )

    def save(self, directory: Path, *, card: Mapping[str, object], replacing: bool = False) -> None:
        """Write an encoder directory: adapters merged in float32, weights in the precision of the source.

        card: entries to add to the source's. The directory is complete from the moment it exists; `replacing` puts it
        in the place of an earlier one. Raises TrainingError when it exists otherwise.
        """
        if directory.exists() and any(directory.iterdir()) and not replacing:
            raise TrainingError(f"{directory} is not empty; choose another output.")
        partial = directory.with_name(f".{directory.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self._save_decoder(partial)
        (partial / TOKENIZER_FILE).write_bytes(self.tokenizer.serialised())
        config = replace(self.config, card={**self.config.card, **card})
        write_layout(partial, config, self.head())
        if directory.exists():
            shutil.rmtree(directory)
        partial.rename(directory)

    def _pool(self, ids: torch.Tensor, states: list[torch.Tensor], pooled: torch.Tensor) -> torch.Tensor:
        table = None if self.log_weights is None else self.log_weights.exp()
        weights = counts_of(ids, pooled, table, self.config.counting)
        if self.pooler is None:
            vectors = pool_states(states[-1], pooled, weights, self.config.pooling)
        else:
            vectors = self.pooler(states, pooled if weights is None else pooled * weights)
        if self.weight is not None:
            vectors = vectors @ self.weight.T
        if self.bias is not None:
            vectors = vectors + self.bias
        return normalize(vectors[:, : self.dimensions], dim=-1, eps=1e-12)

    def _tokenize(self, inputs: list[Prompted], max_tokens: int | None) -> list[Tokenized]:
        limit = min(max_tokens or self.config.max_tokens, self.config.max_tokens)
        return [_cut(item, limit) for item in self.tokenizer.tokenize(inputs)]

    def _embeddings(self) -> nn.Embedding:
        table = self.backbone.get_input_embeddings()  # type: ignore[operator]
        assert isinstance(table, nn.Embedding)
        return table

    def _save_decoder(self, directory: Path) -> None:
        backbone = self.backbone
        if self.lora is not None:
            import copy

            # Merged in a copy: training may go on after a save, and a merge cannot be undone exactly.
            backbone = copy.deepcopy(backbone).merge_and_unload()  # type: ignore[operator]
        assert isinstance(backbone, PreTrainedModel)
        if self._idle is not None:
            backbone.layers = self._idle
        config = dict(self.checkpoint.model_config())
        dtype = stored_dtype(self.checkpoint)
        config["dtype"] = str(dtype).removeprefix("torch.")
        (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_tensors(backbone, directory / "model.safetensors", dtype=dtype)
        if self._idle is not None:
            backbone.layers = nn.ModuleList()


_UNLIMITED = 10**9


def save_tensors(model: nn.Module, file: Path, *, dtype: torch.dtype) -> None:
    """A model's state in one safetensors file; in float32 where a value would overflow the wanted type."""
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    largest = max((float(tensor.abs().max()) for tensor in state.values() if tensor.numel()), default=0.0)
    kept = torch.float32 if largest > torch.finfo(dtype).max else dtype
    unique: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in state.items():  # tied weights are one tensor under two names
        if tensor.data_ptr() in seen and tensor.numel():
            continue
        seen.add(tensor.data_ptr())
        unique[name] = (tensor.to(kept) if tensor.is_floating_point() else tensor).contiguous()
    save_file(unique, file, metadata={"format": "pt"})


def _pooler(pooling: Pooling, head: Head, checkpoint: Checkpoint) -> Pooler | None:
    if pooling in WEIGHTLESS:
        return None
    if head.pooler or pooling == "generalised-mean":
        return stored_pooling(pooling, head.pooler).train()
    from ragindex.encoder.checkpoint import hidden_size, text_config

    table = checkpoint.model_config()
    layers = next(int(text_config(table)[key]) for key in ("num_hidden_layers", "n_layer") if key in text_config(table))
    return new_pooling(pooling, hidden=hidden_size(table), layers=layers)


def _cut(item: Tokenized, limit: int) -> Tokenized:
    if len(item.ids) <= limit:
        return item
    pooled = item.pooled[:limit]
    return Tokenized(item.ids[:limit], pooled if pooled.any() else np.ones(limit, dtype=bool))


def stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    """The type that a decoder's weights are stored in."""
    with safe_open(checkpoint.weight_files()[0], framework="pt") as tensors:
        names = tensors.keys()
        kind = tensors.get_slice(next(iter(names))).get_dtype() if names else "F32"
    return {"F16": torch.float16, "BF16": torch.bfloat16}.get(kind, torch.float32)


def _parameter(array: np.ndarray | None) -> nn.Parameter | None:
    return None if array is None else nn.Parameter(torch.from_numpy(np.array(array, dtype=np.float32)))


def _log(weights: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(np.maximum(weights, 1e-7)))


def _array(tensor: torch.Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().cpu().numpy())

"""What training changes about a decoder before it is trained: adapters, dropout, the attention function."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from ragindex.encoder.backbone import check_attention
from ragindex.encoder.checkpoint import Attention
from ragindex.errors import TrainingError

__all__ = ["Lora", "adapted", "attention_switch", "is_idle", "set_attention_dropout"]

_SHORT = 128  # tokens


@dataclass(frozen=True, slots=True)
class Lora:
    """Low-rank adaptation (Hu et al., arXiv 2106.09685) of every linear map of the decoder.

    The defaults are LLM2Vec's (arXiv 2404.05961): rank 16, alpha 32, dropout 0.05. seed: of the half that begins at
    random; the other begins at zero.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    targets: tuple[str, ...] = ("all-linear",)
    seed: int = 7


def attention_switch(decoder: PreTrainedModel, device: torch.device) -> Callable[[int], None]:
    """Chooses the attention function of `decoder` by the length of a batch's rows, where it is torch's fused one.

    On a CPU that one multiplies in float32, and its gradient costs a third of a step on short texts. Plain products do
    not, but keep a matrix for each text, which long texts have no room for.
    """

    def choose(length: int) -> None:
        name = "eager" if length <= _SHORT else "sdpa"
        if decoder.config._attn_implementation != name:
            decoder.set_attn_implementation(name)

    gains = device.type == "cpu" and decoder.config._attn_implementation == "sdpa"
    return choose if gains else lambda length: None  # noqa: ARG005 - as it is


def set_attention_dropout(model: nn.Module, dropout: float) -> None:
    """Dropout of the attention weights in training mode, for every attention layer of `model`."""
    found = False
    for name, module in model.named_modules():
        if isinstance(getattr(module, "attention_dropout", None), float | int):
            module.attention_dropout = dropout
            found = True
        elif isinstance(module, nn.Dropout) and "attn" in name:
            module.p = dropout
            found = True
    if not found and dropout:
        raise TrainingError(f"{type(model).__name__} has no dropout in its attention that could be set.")


def is_idle(layer: nn.Module) -> bool:
    """Whether a decoder layer passes its input through: both of its output projections are there and zero."""
    outputs = [item for name, item in layer.named_parameters() if name.endswith(("o_proj.weight", "down_proj.weight"))]
    return len(outputs) == 2 and not any(bool(item.any()) for item in outputs)


def adapted(backbone: nn.Module, lora: Lora, attention: Attention) -> nn.Module:
    """The decoder with an adapter in it, which alone is trained; every other parameter of it is frozen."""
    from peft import LoraConfig, get_peft_model

    targets: str | list[str] = lora.targets[0] if lora.targets == ("all-linear",) else list(lora.targets)
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets, bias="none"
    )
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # peft asks the decoder for a property that transformers has renamed.
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(lora.seed)
        wrapped: nn.Module = get_peft_model(backbone, config)
    check_attention(wrapped, attention)  # type: ignore[arg-type]
    return wrapped

"""Texts laid end to end: each has the states that it has alone, and a model that cannot show that is not packed."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from test_encoder_backbone import FAMILIES, ONLY_EAGER, build
from tiny import tiny_encoder
from transformers import AttentionInterface, PreTrainedModel

from ragindex.encoder import find_checkpoint, kernels, packing
from ragindex.encoder.backbone import set_attention
from ragindex.encoder.batching import Batch
from ragindex.encoder.kernels import Run, Texts, attend_by_products, choose_varlen, products_pay
from ragindex.encoder.packing import Packed
from ragindex.encoder.padding import Padded
from ragindex.encoder.tokenizer import Tokenized
from ragindex.encoder.torch_forward import TorchForward

# They give attention no way in, or count positions by themselves.
REFUSED = frozenset({"falcon", "stablelm", "gptj", "nemotron"})
CASES = [
    (family, backend)
    for family in FAMILIES
    for backend in ("sdpa", "eager")
    if family not in REFUSED and (backend == "eager" or family not in ONLY_EAGER)
]
LENGTHS = (12, 7, 7, 7, 3, 1, 20, 5)


def texts(lengths: Sequence[int] = LENGTHS, seed: int = 0) -> list[Tokenized]:
    generator = np.random.default_rng(seed)
    return [Tokenized(generator.integers(5, 64, length), np.ones(length, dtype=bool)) for length in lengths]


@torch.inference_mode()
def alone(model: PreTrainedModel, items: Sequence[Tokenized]) -> list[torch.Tensor]:
    return [model(input_ids=torch.from_numpy(item.ids)[None]).last_hidden_state[0].float() for item in items]


@torch.inference_mode()
def together(layout: Packed | Padded, items: Sequence[Tokenized]) -> list[torch.Tensor]:
    rows = layout.states(Batch.of(items))[-1].float()
    return [row[: len(item.ids)] for row, item in zip(rows, items, strict=True)]


def deviation(states: torch.Tensor, expected: torch.Tensor) -> float:
    return float((states - expected).norm(dim=-1).max() / expected.norm(dim=-1).mean())


def switched(family: str, backend: str, attention: str = "bidirectional") -> PreTrainedModel:
    model = build(family, backend)
    set_attention(model, attention)
    return model


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize(("family", "backend"), CASES)
def test_packed_states_are_those_of_a_text_alone(family: str, backend: str, attention: str) -> None:
    """Windows included: those of the families that have one reach four tokens, most texts are longer."""
    model = switched(family, backend, attention)
    items = texts()
    expected = alone(model, items)
    packed = Packed.of(model)
    assert packed is not None
    found = together(packed, items)
    assert max(map(deviation, found, expected)) <= 2e-6

    changed = [*items[:2], *texts((7,), seed=1), *items[3:]]
    for place, (before, after) in enumerate(zip(found, together(packed, changed), strict=True)):
        assert (deviation(after, before) <= 1e-6) is (place != 2)


@pytest.mark.parametrize("family", sorted(REFUSED))
def test_a_model_that_cannot_be_packed_is_left_as_it_was(family: str) -> None:
    model = switched(family, "eager")
    items = texts()
    expected = alone(model, items)
    assert Packed.of(model) is None
    assert model.config._attn_implementation == "eager"
    for states, wanted in zip(together(Padded(model), items), expected, strict=True):
        assert deviation(states, wanted) <= 1e-5


@pytest.mark.parametrize("family", ["llama", "qwen2 windowed", "gemma3_text", "gpt2"])
def test_packed_in_bfloat16(family: str) -> None:
    model = switched(family, "sdpa").bfloat16()
    expected = alone(model, texts())
    packed = Packed.of(model)
    assert packed is not None
    for states, wanted in zip(together(packed, texts()), expected, strict=True):
        assert float(torch.cosine_similarity(states, wanted, dim=-1).min()) > 0.99


def test_attention_that_leaks_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """What packing without masks does: every text reads all of the row."""

    def leaky(module, query, key, value, attention_mask, *, packed, **options):
        return packed.attend(module, query, key, value, None, **options)

    register(monkeypatch, leaky)
    model = switched("llama", "sdpa")
    assert Packed.of(model) is None
    assert model.config._attn_implementation == "sdpa"


def test_attention_that_leaks_between_texts_of_one_length_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaky(module, query, key, value, attention_mask, *, packed, **options):
        parts = []
        for run in packed.texts.runs:
            cut = [part[:, :, run.start : run.stop] for part in (query, key, value)]
            parts.append(packed.attend(module, *cut, None, **options)[0])
        return torch.cat(parts, dim=1), None

    register(monkeypatch, leaky)
    assert Packed.of(switched("llama", "sdpa")) is None


def test_a_slight_leak_is_caught_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than the rounding of bfloat16 moves a state; so the proof changes one text and watches the others."""
    right = packing._attend_packed

    def leaky(module, query, key, value, attention_mask, *, packed, **options):
        states, _ = right(module, query, key, value, attention_mask, packed=packed, **options)
        return states + 0.01 * value.mean(dim=2, keepdim=True).repeat(1, 2, 1, 1).transpose(1, 2), None

    model = switched("llama", "sdpa").bfloat16()
    expected = alone(model, texts())
    register(monkeypatch, leaky)
    monkeypatch.setattr(packing, "_LEAK", 1.0)
    packed = Packed.of(model)
    assert packed is not None
    assert max(map(deviation, together(packed, texts()), expected)) < 0.1
    monkeypatch.undo()
    register(monkeypatch, leaky)
    assert Packed.of(switched("llama", "sdpa").bfloat16()) is None


def register(monkeypatch: pytest.MonkeyPatch, function) -> None:
    monkeypatch.setitem(AttentionInterface._global_mapping, packing._NAME, function)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_counts_positions_by_itself_is_caught(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model = switched("gpt2", "sdpa").to(dtype)
    forward = type(model).forward

    def counting(self, *, position_ids=None, **options):
        return forward(self, **options)

    monkeypatch.setattr(type(model), "forward", counting)
    assert Packed.of(model) is None


def test_a_window_that_packing_would_forget_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof is run with a narrow window: with the model's own, its texts would be too short to feel one."""
    monkeypatch.setattr(Packed, "_mask", lambda self, longest: None)
    model = build("mistral windowed", "sdpa", sliding_window=48)
    set_attention(model, "bidirectional")
    assert Packed.of(model) is None
    assert model.config.sliding_window == 48


def test_the_proof_leaves_the_window_as_it_was() -> None:
    model = build("mistral windowed", "sdpa", sliding_window=12)
    set_attention(model, "bidirectional")
    items = texts((9, 30, 14))
    expected = alone(model, items)
    packed = Packed.of(model)
    assert packed is not None
    assert max(map(deviation, together(packed, items), expected)) <= 2e-6


@pytest.mark.parametrize("pooling", ["mean", "weighted-mean", "last", "generalised-mean"])
def test_vectors_are_those_of_padded_texts(pooling: str, tmp_path: Path) -> None:
    checkpoint = find_checkpoint(str(tiny_encoder(tmp_path / "e", pooling=pooling)))
    forward = TorchForward(checkpoint, device="cpu", dtype=torch.float32)
    assert forward.is_packed
    items = texts()
    for item in items[:4]:
        item.pooled[:2] = False
    vectors, states = forward(items), forward.states(items)
    forward._layout._model.set_attn_implementation("sdpa")
    forward._layout = Padded(forward._layout._model)
    assert not forward.is_packed
    np.testing.assert_allclose(vectors, forward(items), atol=2e-6)
    for packed, padded in zip(states, forward.states(items), strict=True):
        np.testing.assert_allclose(packed, padded, atol=1e-5)


def reference(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, bounds: Sequence[int], scale: float, causal: bool
) -> torch.Tensor:
    """Attention text by text in float64, (tokens, heads, size) in and out."""
    groups = query.shape[1] // key.shape[1]
    parts = []
    for start, stop in pairwise(bounds):
        one = query[start:stop].double().transpose(0, 1)
        keys, values = (
            part[start:stop].double().transpose(0, 1).repeat_interleave(groups, dim=0) for part in (key, value)
        )
        scores = scale * one @ keys.mT
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
        parts.append((scores.softmax(dim=-1) @ values).transpose(0, 1))
    return torch.cat(parts).to(query.dtype)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_products_are_attention(causal: bool, key_heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_SCORES", 200)  # several blocks, and of a long text several for each head
    monkeypatch.setattr(kernels, "_ROWS", 10)
    generator = torch.Generator().manual_seed(0)
    for count, length in ((1, 33), (4, 9), (3, 1)):
        query, key, value = (
            torch.randn(count * length, heads, 16, generator=generator) for heads in (4, key_heads, key_heads)
        )
        rectangles = [part.unflatten(0, (count, length)).transpose(1, 2) for part in (query, key, value)]
        found = attend_by_products(*rectangles, scale=0.3, causal=causal)
        bounds = [length * number for number in range(count + 1)]
        expected = reference(query, key, value, bounds=bounds, scale=0.3, causal=causal)
        torch.testing.assert_close(found.flatten(0, 1), expected, atol=2e-6, rtol=0)


def test_large_scores_lose_nothing_to_bfloat16() -> None:
    """Qwen2's keys have a large part in common. Rounded as they are, its scores would be off by a half."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(64, 2, 64, generator=generator) for _ in range(3))
    key[..., :3] += 200
    query, key, value = query.bfloat16(), key.bfloat16(), value.bfloat16()
    found = attend_by_products(*(part.transpose(0, 1)[None] for part in (query, key, value)), scale=0.125, causal=False)
    expected = reference(query, key, value, bounds=[0, 64], scale=0.125, causal=False)
    assert deviation(found[0].float(), expected.float()) < 0.02


def test_products_are_for_many_scores_in_bfloat16_on_a_cpu() -> None:
    many, few = torch.zeros(1, 4, 128, 16).bfloat16(), torch.zeros(1, 4, 64, 16).bfloat16()
    assert products_pay(many)
    assert not products_pay(few)
    assert not products_pay(many.float())
    assert not products_pay(many.to("meta"))


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize("family", ["llama", "qwen2 windowed"])
def test_packed_states_by_products(family: str, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, so that the comparison is sharp. A layer with a window is left to the model's own function."""
    calls: list[torch.Size] = []

    def spy(query, key, value, *, scale, causal):
        calls.append(query.shape)
        return attend_by_products(query, key, value, scale=scale, causal=causal)

    monkeypatch.setattr(packing, "products_pay", lambda query: True)
    monkeypatch.setattr(packing, "attend_by_products", spy)
    model = switched(family, "sdpa", attention)
    expected = alone(model, texts())
    packed = Packed.of(model)
    assert packed is not None
    calls.clear()
    assert max(map(deviation, together(packed, texts()), expected)) <= 2e-6
    runs = Texts.of(LENGTHS, torch.device("cpu")).runs
    assert len(calls) == len(runs) * (1 if family == "qwen2 windowed" else 2)


def test_texts_in_a_row_know_their_bounds() -> None:
    row = Texts.of([5, 5, 2], torch.device("cpu"))
    assert row.bounds.tolist() == [0, 5, 10, 12]
    assert row.bounds.dtype == torch.int32
    assert row.longest == 5
    assert row.runs == (Run(0, 2, 5), Run(10, 1, 2))
    assert row.runs[0].stop == 10


def flash_attn(monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> None:
    """A package of that name, whose function takes what the real one takes."""

    def flash_attn_varlen_func(
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, *, softmax_scale, causal
    ):
        calls.append("flash_attn")
        assert cu_seqlens_q is cu_seqlens_k
        assert cu_seqlens_q.dtype == torch.int32
        assert max_seqlen_q == max_seqlen_k == int(cu_seqlens_q.diff().max())
        return reference(q, k, v, bounds=cu_seqlens_q.tolist(), scale=softmax_scale, causal=causal)

    module = types.ModuleType("flash_attn")
    module.flash_attn_varlen_func = flash_attn_varlen_func
    monkeypatch.setitem(sys.modules, "flash_attn", module)


def torch_varlen(monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> None:
    """Torch's own function, whose kernel needs a GPU."""
    varlen = pytest.importorskip("torch.nn.attention.varlen")

    def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa):
        calls.append("torch")
        assert enable_gqa
        assert window_size in {(-1, -1), (-1, 0)}
        assert max_q == max_k == int(cu_seq_q.diff().max())
        return reference(query, key, value, bounds=cu_seq_q.tolist(), scale=scale, causal=window_size == (-1, 0))

    monkeypatch.setitem(sys.modules, "flash_attn", None)
    monkeypatch.setattr(varlen, "varlen_attn", varlen_attn)


@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize(("install", "name"), [(flash_attn, "flash_attn"), (torch_varlen, "torch")])
def test_kernels_of_a_gpu_are_given_what_they_take(
    install, name: str, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flash-attn where it is installed, else torch's own; with the arithmetic of the real ones, here on a CPU."""
    calls: list[str] = []
    install(monkeypatch, calls)
    varlen = choose_varlen(torch.device("cuda"), torch.bfloat16)
    assert varlen is not None
    monkeypatch.setattr(packing, "choose_varlen", lambda device, dtype: varlen)
    model = switched("llama", "sdpa", attention)
    expected = alone(model, texts())
    packed = Packed.of(model)
    assert packed is not None
    calls.clear()
    assert max(map(deviation, together(packed, texts()), expected)) <= 2e-6
    assert calls == [name] * model.config.num_hidden_layers


def test_a_kernel_that_fails_leaves_the_model_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*args, **options):
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")

    monkeypatch.setattr(packing, "choose_varlen", lambda device, dtype: failing)
    model = switched("llama", "sdpa")
    assert Packed.of(model) is None
    assert model.config._attn_implementation == "sdpa"


def test_a_gpu_without_a_kernel_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    assert choose_varlen(torch.device("cuda"), torch.bfloat16) is None
    assert choose_varlen(torch.device("cuda"), torch.float32) is None
    model = switched("llama", "sdpa")
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    assert Packed.of(model) is None

"""What training changes about a decoder: which attention function computes a batch, and that both give the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_encoder

from ragindex.train import preparing
from ragindex.train.distill import Corpus, DistillOptions, VectorDistillation
from ragindex.train.model import TrainableEncoder


@pytest.fixture
def encoder(tmp_path: Path) -> TrainableEncoder:
    return TrainableEncoder.open(tiny_encoder(tmp_path / "tiny"), device="cpu")


def test_both_attention_functions_give_the_same_vectors_and_gradients(
    encoder: TrainableEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.mixed = False  # in float32, so that the comparison is sharp
    texts = encoder.documents(["The key is kept in a safe.", "A key.", "It is replaced every ninety days by another."])
    found = []
    for shortest, chosen in ((1, "sdpa"), (1000, "eager")):
        monkeypatch.setattr(preparing, "_SHORT", shortest)
        encoder.zero_grad()
        vectors = encoder(texts)
        assert encoder.backbone.config._attn_implementation == chosen
        vectors[0].sum().backward()
        gradient = torch.cat([item.grad.flatten() for item in encoder.backbone.parameters() if item.grad is not None])
        found.append((vectors.detach(), gradient))
    torch.testing.assert_close(found[0], found[1], atol=2e-6, rtol=1e-5)


def test_long_texts_keep_the_attention_that_needs_no_matrix(encoder: TrainableEncoder) -> None:
    long, short = encoder.documents([" ".join(["key"] * 200), "key"])
    encoder([short])
    assert encoder.backbone.config._attn_implementation == "eager"
    encoder([short, long])
    assert encoder.backbone.config._attn_implementation == "sdpa"


def test_what_is_settled_learns_more_slowly(encoder: TrainableEncoder) -> None:
    texts = encoder.documents([f"Rule {number}." for number in range(20)])
    targets = torch.nn.functional.normalize(torch.randn(20, encoder.dimensions), dim=-1).half().numpy()
    options = DistillOptions(settled=0.25)
    groups = VectorDistillation(encoder, Corpus(texts, targets), options).parameter_groups(1e-3, weight_decay=0.01)
    rates = {id(item): group["lr"] for group in groups for item in group["params"]}
    assert len(rates) == len(list(encoder.parameters()))
    slow = [encoder.backbone.get_input_embeddings().weight, encoder.log_weights, encoder.weight, encoder.bias]
    slow = [item for item in slow if item is not None]
    assert {rates[id(item)] for item in slow} == {2.5e-4}
    fast = set(rates) - {id(item) for item in slow}
    assert {rates[item] for item in fast} == {1e-3}

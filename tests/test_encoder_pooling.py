"""Trainable poolings: their formulas, what is stored of them, and that padding and company change nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import HIDDEN, SENTENCES, tiny_encoder

from ragindex.encoder import Encoder, find_checkpoint, numpy_forward, torch_forward
from ragindex.encoder.checkpoint import Pooling
from ragindex.encoder.head import Head
from ragindex.encoder.layout import write_layout
from ragindex.encoder.pooling import AttentionSet, GeneralisedMean, LatentAttention, MeanQuery, MultiLayer, new_pooling
from ragindex.errors import EncoderError

KINDS: tuple[Pooling, ...] = ("generalised-mean", "latent-attention", "multi-layer", "attention-set", "mean-query")
TEXTS = [*SENTENCES, "key", "", " ".join(SENTENCES[:4])]


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_forward, "choose_dtype", lambda device: torch.float32)


def trained(directory: Path, kind: Pooling, *, seed: int = 0) -> Path:
    """An encoder with random weights in its pooling, as a training script would write it."""
    tiny_encoder(directory)
    checkpoint, head = find_checkpoint(str(directory)), Head.read(directory)
    torch.manual_seed(seed)
    pooler = new_pooling(kind, hidden=HIDDEN, layers=2, heads=4)
    for parameter in pooler.parameters():
        torch.nn.init.normal_(parameter, mean=2.0 if parameter.ndim == 0 else 0.0, std=0.3)
    tensors = {name: tensor.detach().numpy() for name, tensor in pooler.state_dict().items()}
    write_layout(directory, replace(checkpoint.config, pooling=kind), replace(head, pooler=tensors))
    return directory


@pytest.mark.parametrize("kind", KINDS)
def test_a_trained_pooling_is_stored_with_its_encoder(tmp_path: Path, kind: Pooling) -> None:
    directory = trained(tmp_path / "made", kind)
    encoder = Encoder.load(directory, device="cpu")
    together = encoder.encode_documents(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(
        np.concatenate([encoder.encode_documents([text]) for text in TEXTS]), together, atol=1e-5
    )
    assert numpy_forward.supports(find_checkpoint(str(directory))) == (kind == "mean-query")
    assert not np.allclose(Encoder.load(directory, pooling="mean").encode_documents(TEXTS), together, atol=1e-2)
    other = Encoder.load(trained(tmp_path / "other", kind, seed=1), device="cpu")
    assert other.fingerprint != encoder.fingerprint
    assert not np.allclose(other.encode_documents(TEXTS), together, atol=1e-3)
    for number, dimensions in enumerate((None, 8)):
        short = Encoder.load(directory, dimensions=dimensions, device="cpu")
        short.save(tmp_path / f"saved{number}")
        again = Encoder.load(tmp_path / f"saved{number}", device="cpu")
        assert again.fingerprint == short.fingerprint
        np.testing.assert_allclose(again.encode_documents(TEXTS), short.encode_documents(TEXTS), atol=1e-6)
    with pytest.raises((ImportError, OSError, ValueError)):
        SentenceTransformer(str(directory), device="cpu", local_files_only=True)


def test_a_pooling_without_its_weights_is_refused(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    latent = trained(tmp_path / "latent", "latent-attention")
    for directory in (tiny_encoder_dir, latent):
        for kind in ("multi-layer", "attention-set", "mean-query"):
            with pytest.raises(EncoderError, match=f"no weights for {kind} pooling"):
                Encoder.load(directory, pooling=kind).encode_documents(["key"])
    with pytest.raises(EncoderError, match="no weights for generalised-mean pooling"):
        Encoder.load(latent, pooling="generalised-mean").encode_documents(["key"])
    with pytest.raises(EncoderError, match="latent-attention pooling has weights of its own"):
        torch_forward.pool_states(STATES, SHARES, None, "latent-attention")
    with pytest.raises(EncoderError, match="'mean' has no weights to train"):
        new_pooling("mean", hidden=8, layers=1)
    with pytest.raises(EncoderError, match="3 heads do not divide 8 values"):
        new_pooling("latent-attention", hidden=8, layers=1, heads=3)


def test_a_generalised_mean_needs_no_training(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(tiny_encoder_dir, pooling="generalised-mean", device="cpu")
    vectors = encoder.encode_documents(TEXTS)
    encoder.save(tmp_path / "saved")
    again = Encoder.load(tmp_path / "saved", device="cpu")
    assert again.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(again.encode_documents(TEXTS), vectors)


STATES = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
SHARES = torch.tensor([[1.0, 0.5, 0, 0, 2], [0, 1, 1, 1, 0]])
MEANS = torch.stack([(STATES[row] * SHARES[row, :, None]).sum(0) / SHARES[row].sum() for row in range(2)])


def test_generalised_mean_lies_between_the_mean_and_the_largest() -> None:
    torch.testing.assert_close(GeneralisedMean(1.0)([STATES], SHARES), MEANS)
    largest = torch.stack([STATES[row][SHARES[row] > 0].abs().amax(0) for row in range(2)])
    positive = STATES.abs()
    torch.testing.assert_close(GeneralisedMean(200.0)([positive], (SHARES > 0).float()), largest, rtol=0.02, atol=0)
    expected = ((positive[1, 1:4] ** 3).mean(0)) ** (1 / 3)
    torch.testing.assert_close(GeneralisedMean()([positive], SHARES)[1], expected)
    assert torch.equal(GeneralisedMean()([-positive], SHARES), -GeneralisedMean()([positive], SHARES))


def test_mean_query_asks_what_the_formula_says(tmp_path: Path) -> None:
    pooler = MeanQuery(HIDDEN)
    common, odd = torch.ones(HIDDEN), torch.eye(HIDDEN)[0]
    states = torch.stack([common, common, common, odd, 9 * odd]).unsqueeze(0)
    shares = torch.tensor([[1.0, 0.5, 1.0, 1.0, 0.0]])
    found = pooler([states], shares)[0]
    mean = (2.5 * common + odd) / 3.5
    weights = shares[0] * torch.exp(-torch.cosine_similarity(states[0], mean, dim=-1))  # untrained: Q = -I
    assert weights[3] > weights[0]
    torch.testing.assert_close(found, weights @ states[0] / weights.sum())
    # Queries are computed in numpy, documents in torch.
    directory = trained(tmp_path / "made", "mean-query")
    checkpoint = find_checkpoint(str(directory))
    items = Encoder.load(directory, device="cpu").tokenizer.tokenize(
        [checkpoint.config.prompts.for_document(text, "") for text in TEXTS]
    )
    in_numpy = numpy_forward.NumpyForward(checkpoint)(items)
    np.testing.assert_allclose(torch_forward.TorchForward(checkpoint, device="cpu")(items), in_numpy, atol=1e-4)


def test_attention_set_starts_as_the_mean_and_weighs_value_by_value() -> None:
    pooling = AttentionSet(8)
    torch.testing.assert_close(pooling([STATES], SHARES), MEANS)
    torch.nn.init.normal_(pooling.score.weight)
    kept = STATES[1, 1:4]
    weights = (kept @ pooling.score.weight.T).exp()
    torch.testing.assert_close(pooling([STATES], SHARES)[1], (weights * kept).sum(0) / weights.sum(0))


def test_latent_attention_is_its_formula() -> None:
    pooling = LatentAttention(8, latents=6, heads=2)
    attention = pooling.attention
    found = []
    for state in STATES[1, 1:4]:
        query, keys = attention.query.weight @ state, pooling.latents @ attention.key.weight.T
        values = pooling.latents @ attention.value.weight.T
        halves = []
        for half in (slice(0, 4), slice(4, 8)):
            shares = (keys[:, half] @ query[half] / 2.0).softmax(0)
            halves.append(shares @ values[:, half])
        read = attention.output.weight @ torch.cat(halves)
        found.append(pooling.down(torch.nn.functional.gelu(pooling.up(read))))
    torch.testing.assert_close(pooling([STATES], SHARES)[1], torch.stack(found).mean(0))


def test_multi_layer_reads_every_layer() -> None:
    pooling = MultiLayer(8, 2, latents=3, heads=2)
    layers = [STATES, STATES * 2, STATES - 1]
    whole = pooling(layers, SHARES)
    assert whole.shape == (2, 8)
    for number in range(3):
        changed = [layer + (index == number) for index, layer in enumerate(layers)]
        assert not torch.allclose(pooling(changed, SHARES), whole, atol=1e-4)
    junk = [torch.where(SHARES[..., None] > 0, layer, torch.tensor(99.0)) for layer in layers]
    torch.testing.assert_close(pooling(junk, SHARES), whole)

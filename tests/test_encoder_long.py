"""Longer texts and sharper attention as load options: what they change, and that they are kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sentence_transformers import SentenceTransformer
from tiny import SENTENCES, tiny_encoder
from transformers import AutoConfig, AutoModel

from ragindex.encoder import Encoder, RopeScaling, find_checkpoint, numpy_forward, torch_forward
from ragindex.encoder.backbone import load_backbone, set_temperature
from ragindex.encoder.rope import scaled
from ragindex.errors import BackboneError, EncoderError

TEXTS = [" ".join(SENTENCES), SENTENCES[0], "key"]


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_forward, "choose_dtype", lambda device: torch.float32)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With attention that matters, so that positions do too."""
    return tiny_encoder(tmp_path_factory.mktemp("long") / "encoder", mixing=1.0, max_tokens=64)


def one_by_one(encoder: Encoder, texts: list[str]) -> np.ndarray:
    return np.concatenate([encoder.encode_documents([text]) for text in texts])


@pytest.mark.parametrize("scaling", [RopeScaling(4.0, "linear"), RopeScaling(4.0, "ntk")], ids=str)
def test_scaled_positions_change_vectors_and_are_kept(directory: Path, tmp_path: Path, scaling: RopeScaling) -> None:
    plain = Encoder.load(directory, max_tokens=256, device="cpu")
    encoder = Encoder.load(directory, rope_scaling=scaling, device="cpu")
    assert encoder.max_tokens == 4 * 64
    assert Encoder.load(directory, rope_scaling=scaling, max_tokens=100).max_tokens == 100
    assert encoder.fingerprint != plain.fingerprint
    vectors = encoder.encode_documents(TEXTS)
    assert not np.allclose(vectors[:2], plain.encode_documents(TEXTS)[:2], atol=1e-3)
    np.testing.assert_allclose(one_by_one(encoder, TEXTS), vectors, atol=1e-4)
    encoder.save(tmp_path / "saved")
    again = Encoder.load(tmp_path / "saved", device="cpu")
    assert again.fingerprint == encoder.fingerprint
    np.testing.assert_allclose(again.encode_documents(TEXTS), vectors, atol=1e-6)
    theirs = SentenceTransformer(str(tmp_path / "saved"), device="cpu", local_files_only=True)
    np.testing.assert_allclose(theirs.encode_document(TEXTS), vectors, atol=1e-5)


def test_linear_scaling_divides_positions(directory: Path) -> None:
    rope = scaled(find_checkpoint(str(directory)).model_config(), RopeScaling(2.0, "linear"))["rope_parameters"]
    model = load_backbone(
        directory, attention="bidirectional", device=torch.device("cpu"), dtype=torch.float32, rope=rope
    )
    plain = AutoModel.from_pretrained(directory, config=AutoConfig.from_pretrained(directory))
    ids = torch.arange(10, 20)[None]
    with torch.inference_mode():
        halves = plain(input_ids=ids, position_ids=torch.arange(10)[None] / 2).last_hidden_state
        torch.testing.assert_close(model(input_ids=ids).last_hidden_state, halves)


def test_ntk_raises_the_base_by_the_formula() -> None:
    config = {"hidden_size": 64, "num_attention_heads": 4, "rope_theta": 500.0, "rope_scaling": None}
    assert scaled(config, RopeScaling(8.0)) == {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": pytest.approx(500.0 * 8 ** (16 / 14))},
    }
    halved = {"head_dim": 32, "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}
    theta = scaled(halved, RopeScaling(2.0))["rope_parameters"]["rope_theta"]
    assert theta == pytest.approx(1e4 * 2 ** (16 / 14))


def test_only_layers_that_see_far_are_scaled() -> None:
    layers = {"sliding_attention": {"rope_theta": 1e4}, "full_attention": {"rope_theta": 1e6}}
    found = scaled({"rope_parameters": layers, "head_dim": 16}, RopeScaling(4.0, "linear"))["rope_parameters"]
    assert found["sliding_attention"] == {"rope_theta": 1e4}
    assert found["full_attention"] == {"rope_type": "linear", "rope_theta": 1e6, "factor": 4.0}


def test_what_cannot_be_scaled_is_refused(directory: Path, tmp_path: Path) -> None:
    for options in ({"factor": 0.5}, {"factor": float("nan")}, {"factor": 2.0, "method": "yarn"}):
        with pytest.raises(EncoderError, match="give a factor of 1 or more, and linear or ntk"):
            RopeScaling(**options)
    copy = Path(shutil.copytree(directory, tmp_path / "copy"))
    table = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    table["rope_parameters"] = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    (copy / "config.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(EncoderError, match=r"scales its positions already \(linear\)"):
        Encoder.load(copy, rope_scaling=RopeScaling(2.0)).encode_documents(["key"])
    config = AutoConfig.for_model("gpt2", n_embd=32, n_layer=1, n_head=4, vocab_size=64)
    AutoModel.from_config(config).save_pretrained(tmp_path / "gpt2")
    cpu = {"attention": "bidirectional", "device": torch.device("cpu"), "dtype": torch.float32}
    with pytest.raises(BackboneError, match="gpt2 model has no rotary positions"):
        load_backbone(tmp_path / "gpt2", rope={"rope_type": "linear"}, **cpu)
    with pytest.raises(BackboneError, match="Module has no attention scale"):
        set_temperature(torch.nn.Module(), 0.5)


def test_temperature_divides_the_logits(directory: Path, tmp_path: Path) -> None:
    """Which is what queries divided by it do."""
    encoder = Encoder.load(directory, max_tokens=256, temperature=0.5, device="cpu")
    vectors = encoder.encode_documents(TEXTS)
    copy = Path(shutil.copytree(directory, tmp_path / "copy"))
    tensors = {name: np.array(tensor) for name, tensor in load_file(copy / "model.safetensors").items()}
    tensors |= {name: 2 * tensor for name, tensor in tensors.items() if name.endswith("q_proj.weight")}
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    expected = Encoder.load(copy, max_tokens=256, device="cpu").encode_documents(TEXTS)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_allclose(one_by_one(encoder, TEXTS), vectors, atol=1e-5)
    plain = Encoder.load(directory, max_tokens=256, device="cpu")
    assert not np.allclose(plain.encode_documents(TEXTS), vectors, atol=1e-3)
    assert plain.fingerprint != encoder.fingerprint
    assert not numpy_forward.supports(encoder._checkpoint)
    encoder.save(tmp_path / "saved")
    again = Encoder.load(tmp_path / "saved", device="cpu")
    assert again.fingerprint == encoder.fingerprint
    np.testing.assert_allclose(again.encode_documents(TEXTS), vectors, atol=1e-6)
    with pytest.raises((ImportError, OSError, ValueError)):
        SentenceTransformer(str(tmp_path / "saved"), device="cpu", local_files_only=True)
    for impossible in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(EncoderError, match=r"temperature of .* is impossible"):
            Encoder.load(directory, temperature=impossible)

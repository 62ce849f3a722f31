"""An encoder on disk: its fingerprint, saving and loading, and directories that are incomplete or damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors.numpy import load_file, save_file
from tiny import HEAD_DIMENSIONS, SENTENCES, tiny_tokenizer

from ragindex.encoder import Encoder, EncoderConfig, Prompts, find_checkpoint, numpy_forward, torch_forward
from ragindex.errors import BackboneError, EncoderError, UsageError

Damage = Callable[[Path], object]


@pytest.fixture
def copy(tiny_encoder_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_encoder_dir, tmp_path / "copy"))


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_forward, "choose_dtype", lambda device: torch.float32)


def edit_json(name: str, **changes: object) -> Damage:
    def change(directory: Path) -> None:
        file = directory / name
        file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}), encoding="utf-8")

    return change


def edit_tensors(name: str, change: Callable[[dict[str, np.ndarray]], object]) -> Damage:
    def edit(directory: Path) -> None:
        tensors = {key: np.array(value) for key, value in load_file(directory / name).items()}
        change(tensors)
        save_file(tensors, directory / name, metadata={"format": "pt"})

    return edit


def write(name: str, content: bytes) -> Damage:
    return lambda directory: (directory / name).write_bytes(content)


def halve(name: str) -> Damage:
    def cut(directory: Path) -> None:
        content = (directory / name).read_bytes()
        (directory / name).write_bytes(content[: len(content) // 2])

    return cut


def remove(name: str) -> Damage:
    return lambda directory: (directory / name).unlink()


def nudge(tensors: dict[str, np.ndarray]) -> None:
    name = min(tensors)
    tensors[name].flat[0] += 0.5


PROMPTS = Prompts().as_json()


@pytest.mark.parametrize(
    "change",
    [
        edit_tensors("model.safetensors", nudge),
        edit_tensors("3_Dense/model.safetensors", nudge),
        lambda directory: tiny_tokenizer("bpe").save(str(directory / "tokenizer.json")),
        edit_json("ragindex.json", prompts={**PROMPTS, "document": "title: {title} text: {text}"}),
        edit_json("ragindex.json", prompts={**PROMPTS, "instruction": "find"}),
        edit_json("ragindex.json", pooling="last"),
        edit_json("ragindex.json", attention="causal"),
        edit_json("ragindex.json", pool_special=True),
        edit_json("ragindex.json", dimensions=16),
        edit_json("config.json", rope_parameters={"rope_theta": 50.0, "rope_type": "default"}),
    ],
)
def test_fingerprint_changes_with_whatever_decides_a_vector(copy: Path, change: Damage) -> None:
    before = Encoder.load(copy).fingerprint
    change(copy)
    assert Encoder.load(copy).fingerprint != before


def test_fingerprint_counts_dimensions_but_not_names_and_cards(tiny_encoder_dir: Path, copy: Path) -> None:
    encoder = Encoder.load(tiny_encoder_dir)
    assert len(encoder.fingerprint) == 32
    assert Encoder.load(tiny_encoder_dir, dimensions=8).fingerprint != encoder.fingerprint
    assert Encoder.load(tiny_encoder_dir, dimensions=HEAD_DIMENSIONS).fingerprint == encoder.fingerprint
    edit_json("ragindex.json", card={"note": "another"}, matryoshka=[4])(copy)
    (copy / "README.md").write_text("# A copy\n", encoding="utf-8")
    assert Encoder.load(copy).fingerprint == encoder.fingerprint
    assert Encoder.load(copy).name == str(copy)


@pytest.mark.parametrize("dimensions", [None, 12])
def test_saved_encoder_is_the_same_encoder(tiny_encoder_dir: Path, tmp_path: Path, dimensions: int | None) -> None:
    encoder = Encoder.load(tiny_encoder_dir, dimensions=dimensions, device="cpu")
    encoder.save(tmp_path / "deep" / "saved")
    again = Encoder.load(tmp_path / "deep" / "saved", device="cpu")
    assert again.dimensions == encoder.dimensions
    assert again.fingerprint == encoder.fingerprint
    assert again.config.card == encoder.config.card
    assert again.config.matryoshka == ((8,) if dimensions else (8, 16))
    for texts in (["key"], list(SENTENCES) * 2):
        np.testing.assert_allclose(again.encode_documents(texts), encoder.encode_documents(texts), rtol=1e-5)


def test_save_overwrites_nothing(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(tiny_encoder_dir)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for taken in ("full", "file"):
        with pytest.raises(UsageError, match="not an empty directory; choose another"):
            encoder.save(tmp_path / taken)
    (tmp_path / "empty").mkdir()
    encoder.save(str(tmp_path / "empty"))
    assert Encoder.load(tmp_path / "empty").fingerprint == encoder.fingerprint


def test_config_survives_json() -> None:
    config = EncoderConfig(
        dimensions=12,
        max_tokens=99,
        attention="causal",
        pooling="last",
        pool_special=True,
        prompts=Prompts(instruction="é", query="q: {text}"),
        matryoshka=(4, 8),
        card={"a": [1]},
    )
    assert EncoderConfig.from_json(json.loads(json.dumps(config.as_json()))) == config


def test_home_directory_is_expanded(tiny_encoder_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(tiny_encoder_dir, tmp_path / "mine")
    assert find_checkpoint("~/mine").directory == (tmp_path / "mine").resolve()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "neither 'bundled' nor a directory"),
        (remove("config.json"), "incomplete: config.json is missing"),
        (remove("tokenizer.json"), "incomplete: tokenizer.json is missing"),
        (remove("model.safetensors"), "incomplete: it has no model.safetensors"),
        (write("ragindex.json", b"{"), "ragindex.json cannot be read"),
        (write("ragindex.json", b"\xff\xfe"), "ragindex.json cannot be read"),
        (write("ragindex.json", b"[]"), "ragindex.json is not a JSON object"),
        (edit_json("ragindex.json", format=2), "another version of ragindex; upgrade"),
        (edit_json("ragindex.json", poling="mean"), "unknown key"),
        (edit_json("ragindex.json", dimensions="24"), "wrong type"),
        (edit_json("ragindex.json", prompts=None), "wrong type"),
        (edit_json("ragindex.json", prompts={"qeury": "{text}"}), "Unknown prompt template 'qeury'"),
        (edit_json("ragindex.json", matryoshka=None), "wrong type"),
        (write("tokenizer.json", b"{}"), "tokenizer.json is not a readable tokenizer"),
        (halve("tokenizer.json"), "tokenizer.json is not a readable tokenizer"),
        (write("config.json", b"nonsense"), "config.json cannot be read"),
        (write("config.json", b"{}"), "cannot be loaded"),
        (write("model.safetensors", b"junk"), "cannot be loaded"),
        (halve("model.safetensors"), "cannot be loaded"),
        (halve("1_WordWeights/model.safetensors"), "1_WordWeights/model.safetensors cannot be read"),
        (halve("3_Dense/model.safetensors"), "3_Dense/model.safetensors cannot be read"),
        (remove("3_Dense/model.safetensors"), "3_Dense/model.safetensors is missing"),
        (remove("3_Dense/config.json"), "3_Dense/config.json cannot be read"),
        (edit_json("3_Dense/config.json", activation_function="torch.nn.Tanh"), "3_Dense is not linear"),
        (write("modules.json", b"[]"), "modules.json is missing or empty"),
        (remove("modules.json"), "modules.json is missing or empty"),
        (write("modules.json", b"[{}]"), "modules.json is not a readable list of modules"),
        (write("modules.json", b'[{"type": "Dense", "path": "../elsewhere"}]'), "a folder outside of the encoder"),
        (
            edit_tensors("model.safetensors", lambda tensors: tensors.pop("layers.1.mlp.up_proj.weight")),
            "incomplete: layers.1.mlp.up_proj.weight is missing",
        ),
        (edit_tensors("model.safetensors", lambda tensors: tensors["norm.weight"].fill(np.nan)), "not finite"),
        (edit_json("config.json", hidden_size=64), "cannot be loaded"),
        (edit_json("ragindex.json", dimensions=99), "give 24 dimensions, the configuration says 99"),
        (
            lambda directory: tiny_tokenizer("bpe").save(str(directory / "tokenizer.json")),
            "tokenizer gives token \\d+ but the model knows",
        ),
    ],
)
@pytest.mark.parametrize("texts", [["Photosynthesis"], list(SENTENCES) * 2], ids=["few", "many"])
def test_damage_is_one_clear_sentence(copy: Path, damage: Damage, message: str, texts: list[str]) -> None:
    """Whether numpy or torch would have served the texts."""
    damage(copy)
    with pytest.raises(EncoderError, match=message) as caught:
        Encoder.load(copy, device="cpu").encode_documents(texts)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def bfloat16(directory: Path) -> None:
    file = directory / "model.safetensors"
    tensors = {name: tensor.bfloat16() for name, tensor in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})


def prefixed(tensors: dict[str, np.ndarray]) -> None:
    for name in list(tensors):
        tensors[f"model.{name}"] = tensors.pop(name)


def half(tensors: dict[str, np.ndarray]) -> None:
    for name, tensor in tensors.items():
        tensors[name] = tensor.astype(np.float16)


LEGACY_ROPE = {"rope_parameters": None, "rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 4.0}}


@pytest.mark.parametrize(
    ("change", "in_numpy"),
    [
        (lambda directory: None, True),
        (edit_tensors("model.safetensors", half), True),
        (edit_json("config.json", rope_parameters=None, rope_theta=500.0), True),
        (bfloat16, False),
        (edit_tensors("model.safetensors", prefixed), False),
        (edit_json("config.json", **LEGACY_ROPE), False),
        (edit_json("config.json", rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}), False),
        (edit_json("config.json", hidden_act="gelu"), False),
    ],
    ids=["float32", "float16", "other theta", "bfloat16", "prefixed names", "old rope", "rope", "other activation"],
)
def test_few_and_many_texts_agree_however_the_model_was_written(copy: Path, change: Damage, in_numpy: bool) -> None:
    change(copy)
    assert numpy_forward.supports(find_checkpoint(str(copy))) is in_numpy
    encoder = Encoder.load(copy, device="cpu")
    np.testing.assert_allclose(
        encoder.encode_documents([SENTENCES[0]])[0], encoder.encode_documents(list(SENTENCES) * 2)[0], atol=1e-4
    )


def test_a_model_of_the_wrong_kind_is_a_backbone_error(copy: Path) -> None:
    edit_json("config.json", model_type="no-such-model")(copy)
    with pytest.raises(BackboneError, match="cannot be loaded"):
        Encoder.load(copy, device="cpu").encode_documents(["key"])

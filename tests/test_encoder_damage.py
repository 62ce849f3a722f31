"""Parts of an encoder that do not belong together, or are of a kind that cannot be used: one clear sentence each."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny import HEAD_DIMENSIONS, tiny_encoder
from transformers import AutoTokenizer

from ragindex.encoder import Encoder, EncoderConfig
from ragindex.errors import EncoderError

Damage = Callable[[Path], object]


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """With the modules 1_WordWeights, 2_Pooling and 3_Dense after the decoder."""
    return tiny_encoder(tmp_path / "encoder")


@pytest.fixture
def decoder(encoder: Path) -> Path:
    """What remains when nothing says how it is pooled."""
    for name in ("ragindex.json", "modules.json"):
        (encoder / name).unlink()
    return encoder


def write(file: Path, table: object) -> None:
    file.write_text(json.dumps(table), encoding="utf-8")


def rename_dense(encoder: Path) -> None:
    save_file({"weight": np.zeros((4, 4), np.float32)}, encoder / "3_Dense" / "model.safetensors")


def rename_weights(encoder: Path) -> None:
    save_file({"weights": np.zeros(4, np.float32)}, encoder / "1_WordWeights" / "model.safetensors")


def second_dense(encoder: Path) -> None:
    """A linear map of 5 values after one that gives another number of them."""
    shutil.copytree(encoder / "3_Dense", encoder / "5_Dense")
    save_file({"linear.weight": np.zeros((3, 5), np.float32)}, encoder / "5_Dense" / "model.safetensors")
    modules = json.loads((encoder / "modules.json").read_text(encoding="utf-8"))
    write(encoder / "modules.json", [*modules, {**modules[3], "idx": 5, "name": "5", "path": "5_Dense"}])


def words_without_weights(encoder: Path) -> None:
    (encoder / "1_WordWeights" / "model.safetensors").unlink()
    write(encoder / "1_WordWeights" / "config.json", {"vocab": ["a", "b"]})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rename_dense, r"3_Dense/model\.safetensors holds no linear\.weight"),
        (rename_weights, r"1_WordWeights/model\.safetensors holds no emb_layer\.weight"),
        (second_dense, rf"A linear map of 5 values follows one that gives {HEAD_DIMENSIONS}\."),
        (words_without_weights, r"1_WordWeights/config\.json holds no readable word weights: 'word_weights'"),
    ],
)
def test_a_head_that_does_not_fit(damage: Damage, message: str, encoder: Path) -> None:
    damage(encoder)
    with pytest.raises(EncoderError, match=message):
        Encoder.load(encoder).encode_documents(["the key"])


def test_a_tokenizer_that_transformers_cannot_read(decoder: Path) -> None:
    (decoder / "tokenizer.json").unlink()
    write(decoder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    (decoder / "vocab.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(EncoderError, match=r"The tokenizer in .*encoder cannot be loaded: .*valid UTF-8"):
        Encoder.load(decoder)


def test_a_tokenizer_without_a_fast_form(decoder: Path) -> None:
    (decoder / "tokenizer.json").unlink()
    write(decoder / "tokenizer_config.json", {"tokenizer_class": "ByT5Tokenizer"})
    with pytest.raises(EncoderError, match=r"The tokenizer in .*encoder has no fast form \(tokenizer\.json\)"):
        Encoder.load(decoder)


def test_a_tokenizer_brings_no_code_and_asks_no_network(decoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its configuration may name a class of its own; that is never run."""
    asked: list[dict[str, object]] = []
    usual = AutoTokenizer.from_pretrained

    def remembered(*arguments: object, **options: object) -> object:
        asked.append(options)
        return usual(*arguments, **options)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", remembered)
    table = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
    write(decoder / "tokenizer_config.json", table)
    (decoder / "own.py").write_text("raise SystemExit('ran')\n", encoding="utf-8")
    with contextlib.suppress(EncoderError):
        Encoder.load(decoder)
    assert asked == [{"trust_remote_code": False, "local_files_only": True}]


def test_a_decoder_that_does_not_say_how_long_its_states_are(decoder: Path) -> None:
    config = json.loads((decoder / "config.json").read_text(encoding="utf-8"))
    del config["hidden_size"]
    write(decoder / "config.json", config)
    with pytest.raises(EncoderError, match=r"does not say how long its states are \(hidden_size\)"):
        Encoder.load(decoder)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_none(temperature: float, encoder: Path) -> None:
    with pytest.raises(EncoderError, match=r"An attention temperature of .* is impossible; give one above 0"):
        EncoderConfig(dimensions=4, temperature=temperature)
    with pytest.raises(EncoderError, match="is impossible"):
        Encoder.load(encoder, temperature=temperature)

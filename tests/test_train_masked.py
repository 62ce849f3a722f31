"""Masked next-token prediction: a decoder becomes an encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from language_kit import STEP, exact, plain_decoder, pretrain, random_batch, some_texts, stopping
from safetensors.torch import load_file
from tiny import SENTENCES, tiny_encoder

from ragindex import Encoder
from ragindex.errors import TrainingError, UsageError
from ragindex.train.data.texts import Texts
from ragindex.train.language import LanguageModel
from ragindex.train.mntp import MaskedEncoder, MaskedOptions, mask_token, masked_training
from ragindex.train.preparing import Lora
from ragindex.train.schedule import LoopSettings
from ragindex.train.session import Plan, Summary, run_objective
from ragindex.train.tuning import tuning


@pytest.fixture(scope="module")
def texts() -> Texts:
    return some_texts()


def _masked(
    decoder: Path,
    texts: Texts,
    output: Path,
    *,
    options: MaskedOptions,
    settings: LoopSettings,
    with_adapter: bool = False,
    stop_at: int | None = None,
) -> Summary:
    model = exact(LanguageModel.open(decoder, attention="bidirectional"))
    objective = masked_training(model, texts, options)
    if stop_at is not None:
        stopping(objective, stop_at)
    product = MaskedEncoder(model, output, with_adapter=with_adapter)
    return run_objective(objective, product, Plan("mntp", output, settings, {"lora": options.lora is not None}))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, texts: Texts) -> Path:
    """A decoder that knows a little."""
    output = tmp_path_factory.mktemp("pretrained") / "decoder"
    pretrain(texts, output, settings=LoopSettings(steps=60, rate=1e-2))
    return output


def test_a_decoder_becomes_an_encoder_that_reads_both_ways(tmp_path: Path, pretrained: Path, texts: Texts) -> None:
    output = tmp_path / "encoder"
    options = MaskedOptions(block=32, steps=STEP)
    summary = _masked(pretrained, texts, output, options=options, settings=LoopSettings(steps=60, rate=1e-2))
    assert summary.after["held_out_loss"] < summary.before["held_out_loss"] - 1
    encoder = Encoder.load(output)
    assert (encoder.config.attention, encoder.config.pooling) == ("bidirectional", "mean")
    assert list(encoder.config.card) == ["clm", "mntp"]  # how it was made, from the beginning
    assert json.loads((output / "config.json").read_text(encoding="utf-8"))["is_causal"] is False
    assert not (output / "lm_head.safetensors").exists()
    again = exact(LanguageModel.open(output, attention="bidirectional"))
    assert again.has_tied_head
    assert masked_training(again, texts, options).evaluate()["held_out_loss"] == pytest.approx(
        summary.after["held_out_loss"], rel=1e-4
    )


@pytest.mark.parametrize("layout", ["packed", "apart"])
def test_masked_training_goes_on_after_a_stop(tmp_path: Path, pretrained: Path, texts: Texts, layout: Any) -> None:
    settings = LoopSettings(steps=10, rate=1e-2, evaluations=2)
    options = MaskedOptions(block=32, layout=layout, lora=Lora(rank=4, dropout=0.1), steps=STEP)
    _masked(pretrained, texts, tmp_path / "whole", options=options, settings=settings)
    with pytest.raises(KeyboardInterrupt):
        _masked(pretrained, texts, tmp_path / "broken", options=options, settings=settings, stop_at=4)
    _masked(pretrained, texts, tmp_path / "broken", options=options, settings=settings)
    whole, broken = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_an_adapter_leaves_head_and_embeddings_alone(pretrained: Path, texts: Texts) -> None:
    model = LanguageModel.open(pretrained, attention="bidirectional")
    masked_training(model, texts, MaskedOptions(block=32, lora=Lora(rank=4), steps=STEP))
    trained = [name for name, item in model.named_parameters() if item.requires_grad]
    assert trained
    assert all("lora_" in name and ".layers." in name for name in trained)


def test_the_adapter_alone_gives_what_the_merged_encoder_gives(tmp_path: Path, pretrained: Path, texts: Texts) -> None:
    output = tmp_path / "encoder"
    options = MaskedOptions(block=32, mask="blank", lora=Lora(rank=4), steps=STEP)
    settings = LoopSettings(steps=10, rate=2e-2)
    _masked(pretrained, texts, output, options=options, settings=settings, with_adapter=True)
    files = {file.name for file in (output / "adapter").iterdir()}
    assert files == {"config.json", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}
    names = load_file(output / "adapter" / "adapter_model.safetensors")
    assert all(name.startswith("base_model.model.layers.") for name in names)
    merged, adapted, base = (
        Encoder.load(path).encode_documents(SENTENCES) for path in (output, output / "adapter", pretrained)
    )
    np.testing.assert_allclose(merged, adapted, atol=5e-3)
    assert np.abs(merged - base).max() > 0.02
    stage = exact(LanguageModel.open(output / "adapter", attention="bidirectional"))  # MNTP goes on from either
    whole = exact(LanguageModel.open(output, attention="bidirectional"))
    torch.testing.assert_close(stage.loss(random_batch(300)), whole.loss(random_batch(300)), rtol=1e-4, atol=1e-3)


def test_a_mask_that_was_added_is_part_of_the_encoder(tmp_path: Path, texts: Texts) -> None:
    source = tiny_encoder(tmp_path / "source", attention="causal", head=False)
    output = tmp_path / "encoder"
    options = MaskedOptions(block=32, mask="mask", lora=Lora(rank=4), steps=STEP)
    _masked(source, texts, output, options=options, settings=LoopSettings(steps=2, rate=1e-3), with_adapter=True)
    encoder = Encoder.load(output)
    assert encoder.config.attention == "bidirectional"
    assert encoder.encode_documents(SENTENCES[:2]).shape == (2, 32)
    again = LanguageModel.open(output, attention="bidirectional")
    assert (again.rows, again.tokenizer.token_to_id("<mask>")) == (251, 250)
    assert mask_token(again) == 250
    # The adapter's base has no row for it.
    assert (output / "adapter" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert Encoder.load(output / "adapter").encode_documents(SENTENCES[:2]).shape == (2, 32)


@pytest.mark.parametrize("lora", [None, Lora(rank=4)])
def test_a_head_of_its_own_lies_beside_the_encoder(tmp_path: Path, texts: Texts, lora: Lora | None) -> None:
    decoder = plain_decoder(tmp_path / "decoder", tied=False)
    output = tmp_path / "encoder"
    options = MaskedOptions(block=32, lora=lora, steps=STEP)
    settings = LoopSettings(steps=5, rate=1e-2)
    summary = _masked(decoder, texts, output, options=options, settings=settings)
    assert (output / "lm_head.safetensors").is_file()
    assert "lm_head.weight" not in load_file(output / "model.safetensors")
    model = exact(LanguageModel.open(output, attention="bidirectional"))
    measured = masked_training(model, texts, MaskedOptions(block=32, steps=STEP)).evaluate()
    assert measured["held_out_loss"] == pytest.approx(summary.after["held_out_loss"], rel=1e-4)
    assert Encoder.load(output).encode_queries(SENTENCES[:1]).shape == (1, 32)
    (output / "lm_head.safetensors").unlink()
    with pytest.raises(TrainingError, match=r"lacks lm_head\.weight; .* start from the decoder that it was made of"):
        LanguageModel.open(output, attention="bidirectional")


def test_what_an_encoder_has_beside_its_decoder_stays(tmp_path: Path, texts: Texts) -> None:
    source = tiny_encoder(tmp_path / "source", pooling="weighted-mean")
    output = tmp_path / "encoder"
    options = MaskedOptions(block=32, mask="mask", steps=STEP)
    _masked(source, texts, output, options=options, settings=LoopSettings(steps=2, rate=1e-6))
    before, after = Encoder.load(source), Encoder.load(output)
    assert after.config.pooling == "weighted-mean"
    np.testing.assert_allclose(
        before.encode_documents(SENTENCES), after.encode_documents(SENTENCES), atol=5e-3
    )  # hardly trained, so head and token weights must be there


def test_blocks_longer_than_the_encoder_reads_are_refused(pretrained: Path, texts: Texts) -> None:
    model = LanguageModel.open(pretrained, attention="bidirectional")
    with pytest.raises(UsageError, match="longer than the 64"):
        masked_training(model, texts, MaskedOptions(block=65, steps=STEP))


def test_a_large_decoder_gets_an_adapter(monkeypatch: pytest.MonkeyPatch, pretrained: Path) -> None:
    found = LanguageModel.open(pretrained).checkpoint
    assert found is not None
    assert tuning(found) is None
    assert tuning(found, rank=8) == Lora(rank=8, alpha=16, dropout=0.05)
    monkeypatch.setattr("ragindex.train.tuning.LARGE", 1000)
    assert tuning(found) == Lora()
    assert tuning(found, rank=0) is None

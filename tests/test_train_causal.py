"""Causal pre-training: decoders from nothing, and decoders trained further."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from language_kit import STEP, configure, exact, fresh_model, plain_decoder, pretrain, some_texts
from safetensors.torch import load_file, save_file
from tiny import SENTENCES
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from ragindex import Encoder
from ragindex.errors import TrainingError, UsageError
from ragindex.train.clm import Architecture, CausalOptions, TrainedDecoder, causal_training
from ragindex.train.data.texts import Texts
from ragindex.train.language import LanguageModel, TokenBatch
from ragindex.train.prediction import PredictionOptions
from ragindex.train.schedule import LoopSettings
from ragindex.train.session import Plan, run_objective


@pytest.fixture(scope="module")
def texts() -> Texts:
    return some_texts()


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    """A plain decoder whose head is its embedding table."""
    return plain_decoder(tmp_path / "decoder")


def test_a_decoder_learns_the_text_and_every_program_reads_it(tmp_path: Path, texts: Texts) -> None:
    output = tmp_path / "decoder"
    summary = pretrain(texts, output, settings=LoopSettings(steps=60, rate=1e-2))
    assert summary.after["held_out_perplexity"] < 0.2 * summary.before["held_out_perplexity"]
    assert summary.after["held_out_perplexity"] == pytest.approx(math.exp(summary.after["held_out_loss"]), rel=1e-4)
    theirs, info = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] | info["unexpected_keys"]
    assert theirs.get_output_embeddings().weight is theirs.get_input_embeddings().weight
    words = Tokenizer.from_file(str(output / "tokenizer.json"))
    assert AutoTokenizer.from_pretrained(output)(SENTENCES[0])["input_ids"] == words.encode(SENTENCES[0]).ids
    ids = torch.tensor([words.encode(SENTENCES[0]).ids])
    mine = exact(LanguageModel.open(output)).scores(TokenBatch(ids, ids))
    assert mine.loss / mine.count == pytest.approx(float(theirs(input_ids=ids, labels=ids).loss.detach()), rel=1e-5)
    assert mine.loss / mine.count < 0.5 * math.log(400)
    encoder = Encoder.load(output)
    assert (encoder.dimensions, encoder.max_tokens) == (32, 64)
    assert encoder.config.attention == "bidirectional"
    assert encoder.encode_queries([SENTENCES[0]]).shape == (1, 32)
    card = json.loads((output / "card.json").read_text(encoding="utf-8"))
    assert card["clm"]["steps"] == 60
    assert "held_out_loss" in (output / "README.md").read_text(encoding="utf-8")
    assert (output / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_new_decoder_depends_on_its_seed_alone(texts: Texts) -> None:
    def weights(seed: int) -> torch.Tensor:
        return torch.cat([item.detach().reshape(-1) for item in fresh_model(texts, seed=seed).parameters()])

    state = torch.random.get_rng_state()
    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("layers", "hidden", "heads"), [(0, 32, 2), (2, 32, 3), (2, 30, 10)])
def test_impossible_architectures_are_refused(layers: int, hidden: int, heads: int) -> None:
    with pytest.raises(UsageError):
        Architecture(layers, hidden, heads)


def test_steps_do_not_depend_on_how_much_is_computed_at_a_time(decoder: Path, texts: Texts) -> None:
    def gradient(chunk: int) -> list[torch.Tensor]:
        model = exact(LanguageModel.open(decoder))
        steps = PredictionOptions(tokens=256, chunk=chunk)
        objective = causal_training(model, texts, CausalOptions(block=32, steps=steps))
        objective.step(next(objective.batches(0)), torch.Tensor.backward)
        return [item.grad for item in model.parameters() if item.grad is not None]

    for whole, part in zip(gradient(256), gradient(64), strict=True):
        torch.testing.assert_close(whole, part, rtol=1e-4, atol=1e-5)


def test_training_goes_on_after_a_stop_and_ends_with_equal_weights(tmp_path: Path, texts: Texts) -> None:
    settings = LoopSettings(steps=12, rate=1e-2, evaluations=3)
    pretrain(texts, tmp_path / "whole", settings=settings)
    with pytest.raises(KeyboardInterrupt):
        pretrain(texts, tmp_path / "broken", settings=settings, stop_at=5)
    assert not (tmp_path / "broken" / "config.json").exists()  # no decoder before it is finished
    pretrain(texts, tmp_path / "broken", settings=settings)
    whole, broken = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_a_decoder_is_trained_further(tmp_path: Path, texts: Texts) -> None:
    first = tmp_path / "first"
    pretrain(texts, first, settings=LoopSettings(steps=30, rate=1e-2))
    model = exact(LanguageModel.open(first))
    objective = causal_training(model, texts, CausalOptions(block=32, steps=STEP))
    plan = Plan("clm", tmp_path / "second", LoopSettings(steps=30, rate=5e-3), {})
    summary = run_objective(objective, TrainedDecoder(model), plan)
    known = json.loads((first / "card.json").read_text(encoding="utf-8"))["clm"]["after"]
    assert summary.before["held_out_loss"] == pytest.approx(known["held_out_loss"], rel=1e-4)
    assert summary.after["held_out_loss"] < summary.before["held_out_loss"]
    with pytest.raises(UsageError, match="longer than the 64 that this decoder reads"):
        causal_training(model, texts, CausalOptions(block=128, steps=STEP))


def test_half_precision_stays_what_it_was(tmp_path: Path, decoder: Path, texts: Texts) -> None:
    tensors = load_file(decoder / "model.safetensors")
    halves = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    save_file(halves, decoder / "model.safetensors", metadata={"format": "pt"})
    configure(decoder, dtype="bfloat16")
    model = LanguageModel.open(decoder)
    assert all(item.dtype == torch.float32 for item in model.parameters())
    TrainedDecoder(model).save(tmp_path / "again", card={})
    saved = load_file(tmp_path / "again" / "model.safetensors")
    assert all(tensor.dtype == torch.bfloat16 for tensor in saved.values())
    assert json.loads((tmp_path / "again" / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
    assert all(item.dtype == torch.float32 for item in model.parameters())


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, decoder: Path, texts: Texts) -> None:
    model = LanguageModel.open(decoder)
    objective = causal_training(model, texts, CausalOptions(block=32, steps=STEP))
    with torch.no_grad():
        model.inner.norm.weight[0] = math.nan
    plan = Plan("clm", tmp_path / "out", LoopSettings(steps=3), {})
    with pytest.raises(TrainingError, match="not finite at step 1; lower the learning rate"):
        run_objective(objective, TrainedDecoder(model), plan)
    assert not (tmp_path / "out" / "config.json").exists()

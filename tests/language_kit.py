"""Decoders, texts and short runs for the tests of learning to predict tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny import SENTENCES, tiny_encoder

from ragindex.train.clm import Architecture, CausalOptions, TrainedDecoder, causal_training, fresh_decoder
from ragindex.train.data.texts import Texts
from ragindex.train.language import LanguageModel, TokenBatch
from ragindex.train.prediction import PredictionOptions, TokenPrediction
from ragindex.train.schedule import LoopSettings
from ragindex.train.session import Plan, Summary, run_objective
from ragindex.train.simcse import SimCseTraining
from ragindex.train.vocabulary import VocabularyOptions, train_tokenizer

STEP = PredictionOptions(tokens=256, chunk=256)


def some_texts() -> Texts:
    """A few dozen sentences, no two alike."""
    return Texts.of(f"{sentence} It is so since {1000 + number}." for number in range(12) for sentence in SENTENCES)


def plain_decoder(directory: Path, *, tied: bool = True) -> Path:
    """A tiny encoder without all that makes it one; untied, its head is a table of its own."""
    tiny_encoder(directory, head=False)
    for file in directory.iterdir():
        if file.name not in ("config.json", "model.safetensors", "tokenizer.json") and file.is_file():
            file.unlink()
    configure(directory, is_causal=True)
    if not tied:
        tensors = load_file(directory / "model.safetensors")
        renamed = {f"model.{name}": tensor for name, tensor in tensors.items()}
        generator = torch.Generator().manual_seed(1)
        renamed["lm_head.weight"] = torch.randn(tensors["embed_tokens.weight"].shape, generator=generator) / 8
        save_file(renamed, directory / "model.safetensors", metadata={"format": "pt"})
        configure(directory, tie_word_embeddings=False)
    return directory


def configure(directory: Path, **changes: object) -> None:
    """Change values of config.json."""
    table = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    (directory / "config.json").write_text(json.dumps({**table, **changes}), encoding="utf-8")


def exact(model: LanguageModel) -> LanguageModel:
    """In float32, whatever the machine has."""
    model.mixed = False
    return model


def random_batch(tokens: int = 250) -> TokenBatch:
    """Three rows, the middle one shorter."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(4, tokens, (length,), generator=generator).numpy() for length in (12, 9, 12)]
    return TokenBatch.of(rows)


def fresh_model(texts: Texts, *, seed: int = 7) -> LanguageModel:
    """A decoder from nothing, its tokenizer learnt from the texts."""
    words = train_tokenizer(texts, VocabularyOptions(size=400))
    return exact(fresh_decoder(Architecture(2, 32, 2), words, positions=64, seed=seed))


def pretrain(texts: Texts, output: Path, *, settings: LoopSettings, stop_at: int | None = None) -> Summary:
    """Train a fresh decoder; stop_at interrupts before the step of that number."""
    model = fresh_model(texts)
    objective = causal_training(model, texts, CausalOptions(block=32, steps=STEP))
    if stop_at is not None:
        stopping(objective, stop_at)
    return run_objective(objective, TrainedDecoder(model), Plan("clm", output, settings, {"block": 32}))


def stopping(objective: TokenPrediction | SimCseTraining, steps: int) -> None:
    """Interrupt, as Ctrl-C does, when this many steps were taken."""
    taken, step = [], objective.step

    def stop(batch: list[int], backward: Any) -> Mapping[str, float]:
        if len(taken) == steps:
            raise KeyboardInterrupt
        taken.append(batch)
        return step(batch, backward)

    objective.step = stop  # type: ignore[method-assign]

"""SimCSE: two dropout views of a sentence; what is learnt, measured and refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from language_kit import stopping
from safetensors.torch import load_file
from tiny import SENTENCES, tiny_encoder
from torch import Tensor, nn

from ragindex import Encoder
from ragindex.cli import main
from ragindex.encoder.tokenizer import Tokenized
from ragindex.errors import TrainingError, UsageError
from ragindex.evaluation.sts import StsPairs
from ragindex.train.model import TrainableEncoder
from ragindex.train.preparing import Lora
from ragindex.train.schedule import LoopSettings
from ragindex.train.session import Plan, Summary, run_objective
from ragindex.train.simcse import SimCseOptions, SimCseTraining, alignment, text_sentences, uniformity

TEXTS = tuple(f"{sentence} {number}" for number in range(5) for sentence in SENTENCES)
OPTIONS = SimCseOptions(batch=16, max_tokens=48)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny_encoder(tmp_path / "tiny", head=False)


def _exact(model: TrainableEncoder) -> TrainableEncoder:
    model.mixed = False
    return model


class Views(nn.Module):
    """Stands for an encoder: gives vectors that were made before, first one view of all, then the other."""

    def __init__(self, views: list[Tensor]) -> None:
        super().__init__()
        self.lora = None
        self.scale = nn.Parameter(torch.ones(()))
        self._views, self._calls = views, 0

    def documents(self, texts: list[str], *, max_tokens: int) -> list[Tokenized]:
        return [Tokenized(np.array([int(text)]), np.ones(1, bool)) for text in texts]

    def forward(self, batch: list[Tokenized]) -> Tensor:
        self._calls += 1
        rows = [int(item.ids[0]) for item in batch]
        return self.scale * self._views[(self._calls - 1) % 2][rows]


def test_the_loss_is_info_nce_between_the_views() -> None:
    """By hand: unit vectors in the plane at given angles, t = 0.5."""
    angles = torch.tensor([[0.0, 40.0, 90.0], [10.0, 60.0, 80.0]]) * math.pi / 180
    padding = torch.zeros(2, 22)  # sentences that are in no batch
    every = torch.cat([angles, padding], dim=1)
    views = [torch.stack([row.cos(), row.sin()], dim=1) for row in every]
    texts = [str(number) for number in range(25)]
    objective = SimCseTraining(Views(views), texts, SimCseOptions(batch=3, temperature=0.5))  # type: ignore[arg-type]
    places = [objective._texts.index(str(number)) for number in range(3) if str(number) in objective._texts]
    chosen = [int(objective._texts[place]) for place in places]
    assert len(chosen) >= 2
    expected = 0.0
    for i in chosen:
        logits = {j: math.cos(float(angles[0, i] - angles[1, j])) / 0.5 for j in chosen}
        expected -= math.log(math.exp(logits[i]) / sum(map(math.exp, logits.values()))) / len(chosen)
    numbers = objective.step(places, Tensor.backward)
    assert numbers["loss"] == pytest.approx(expected, rel=1e-5)


def test_alignment_and_uniformity_by_hand() -> None:
    square = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    turned = torch.roll(square, 1, dims=0)
    assert alignment(square, square) == 0
    assert alignment(square, turned) == pytest.approx(2.0)
    # Of six pairs four are at squared distance 2 and two at 4.
    expected = math.log((4 * math.exp(-4) + 2 * math.exp(-8)) / 6)
    assert uniformity(square) == pytest.approx(expected, rel=1e-5)
    assert uniformity(square[:1].repeat(3, 1)) == pytest.approx(0.0, abs=1e-6)


def test_sentences_are_of_some_length_and_none_comes_twice() -> None:
    texts = [
        "# A heading that is none\n\nThe first sentence stands here. Short one. And the second one too!",
        "- the FIRST sentence stands here\n- 12 34 56\n",
        f"{'very ' * 200}long.",
    ]
    found = text_sentences(texts)
    assert found == ["The first sentence stands here.", "And the second one too!"]


def test_batches_hold_each_sentence_once(source: Path) -> None:
    objective = SimCseTraining(TrainableEncoder.open(source), TEXTS, OPTIONS)
    first = list(objective.batches(0))
    rows = [row for batch in first for row in batch]
    assert len(rows) == len(set(rows)) == 45  # 5 are held out
    assert [len(batch) for batch in first] == [16, 16, 13]
    assert first == list(objective.batches(0))
    assert first != list(objective.batches(1))


def test_equal_views_are_refused(source: Path) -> None:
    model = TrainableEncoder.open(source, dropout=0.0)
    objective = SimCseTraining(model, TEXTS, OPTIONS)
    model.train()
    with pytest.raises(TrainingError, match=r"views of every sentence are equal.* nothing to learn"):
        objective.step(next(objective.batches(0)), Tensor.backward)


def test_a_static_encoder_has_no_views(tmp_path: Path) -> None:
    """Its layers put nothing out, so their dropout drops nothing."""
    model = TrainableEncoder.open(tiny_encoder(tmp_path / "static", mixing=0.0, head=False), dropout=0.3)
    objective = SimCseTraining(model, TEXTS, OPTIONS)
    model.train()
    with pytest.raises(TrainingError, match="views of every sentence are equal"):
        objective.step(next(objective.batches(0)), Tensor.backward)


def test_the_dropout_of_an_adapter_is_enough_once_it_has_begun(source: Path) -> None:
    def steps(dropout: float) -> None:
        model = _exact(TrainableEncoder.open(source, lora=Lora(rank=4, dropout=dropout), dropout=0.0)).train()
        objective = SimCseTraining(model, TEXTS, OPTIONS)
        optimiser = torch.optim.SGD([item for item in model.parameters() if item.requires_grad], lr=1.0)
        for _ in range(2):
            objective.step(next(objective.batches(0)), Tensor.backward)
            optimiser.step()

    steps(0.1)
    with pytest.raises(TrainingError, match="views of every sentence are equal"):
        steps(0.0)


def test_cached_gradients_are_those_of_the_whole_batch(source: Path) -> None:
    def gradient(chunk: int) -> list[Tensor]:
        model = _exact(TrainableEncoder.open(source, dropout=0.3)).train()
        # Texts of one length, so that dropout draws the same for them whether they come together or apart.
        words = ("kettle", "water", "mountain", "key", "snapshot", "backup", "index", "query")
        texts = [f"{words[number % len(words)]} boils {number}" for number in range(24)]
        options = SimCseOptions(batch=8, chunk=chunk)
        objective = SimCseTraining(model, texts, options)
        torch.manual_seed(3)
        objective.step(next(objective.batches(0)), Tensor.backward)
        return [item.grad for item in model.parameters() if item.grad is not None]

    torch.manual_seed(0)
    plain = gradient(10_000)
    assert any(float(item.abs().max()) > 1e-3 for item in plain)
    one = gradient(100)  # a chunk for each view: the same draws, in two passes
    for mine, theirs in zip(one, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def _train(
    source: Path, output: Path, settings: LoopSettings, *, stop_at: int | None = None, lora: Lora | None = None
) -> Summary:
    model = _exact(TrainableEncoder.open(source, lora=lora, dropout=0.3))
    sts = StsPairs(SENTENCES[:4], SENTENCES[1:5], (0.0, 1.0, 2.0, 3.0))
    objective = SimCseTraining(model, TEXTS, OPTIONS, sts=sts)
    if stop_at is not None:
        stopping(objective, stop_at)
    return run_objective(objective, model, Plan("simcse", output, settings, {}))


def test_vectors_spread_and_stay_near_their_other_view(tmp_path: Path, source: Path) -> None:
    output = tmp_path / "out"
    summary = _train(source, output, LoopSettings(steps=30, rate=3e-3))
    assert summary.before.keys() == {"held_out_alignment", "held_out_uniformity", "sts_spearman"}
    assert summary.after["held_out_uniformity"] < summary.before["held_out_uniformity"] - 0.05
    before, after = Encoder.load(source), Encoder.load(output)
    assert np.abs(before.encode_documents(SENTENCES) - after.encode_documents(SENTENCES)).max() > 0.05
    assert after.config.card["simcse"]["after"] == dict(summary.after)
    assert json.loads((output / "config.json").read_text(encoding="utf-8")).get("attention_dropout", 0.0) == 0.0
    vectors = torch.from_numpy(after.encode_documents(list(TEXTS)))
    assert uniformity(vectors) < uniformity(torch.from_numpy(before.encode_documents(list(TEXTS))))


@pytest.mark.parametrize("lora", [None, Lora(rank=4, dropout=0.1)])
def test_training_goes_on_after_a_stop_and_ends_with_equal_weights(
    tmp_path: Path, source: Path, lora: Lora | None
) -> None:
    settings = LoopSettings(steps=8, rate=1e-2, evaluations=2)
    _train(source, tmp_path / "whole", settings, lora=lora)
    with pytest.raises(KeyboardInterrupt):
        _train(source, tmp_path / "broken", settings, stop_at=3, lora=lora)
    _train(source, tmp_path / "broken", settings, lora=lora)
    whole, broken = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], broken[name]) for name in whole)


def test_measuring_changes_nothing(source: Path) -> None:
    model = TrainableEncoder.open(source, dropout=0.3)
    objective = SimCseTraining(model, TEXTS, OPTIONS)
    model.eval()
    state = torch.random.get_rng_state()
    first = objective.evaluate()
    assert first == objective.evaluate()
    assert not model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first["held_out_alignment"] > 0


def test_too_few_sentences_and_batches_of_one_are_refused(source: Path) -> None:
    with pytest.raises(TrainingError, match="Only 10 different sentences were found, at least 20 are needed"):
        SimCseTraining(TrainableEncoder.open(source), SENTENCES, OPTIONS)
    with pytest.raises(UsageError, match="at least two sentences"):
        SimCseOptions(batch=1)


def test_the_command_trains_and_reports(tmp_path: Path, source: Path) -> None:
    notes = tmp_path / "notes.jsonl"
    rows = [{"text": f"{sentence[:-1]} in room {number}."} for number in range(4) for sentence in SENTENCES]
    notes.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sts = tmp_path / "pairs.tsv"
    sts.write_text("".join(f"{n}\t{SENTENCES[n]}\t{SENTENCES[n + 1]}\n" for n in range(5)), encoding="utf-8")
    arguments = ["train", "simcse", "--encoder", source, "--text", notes, "--steps", 2, "--batch", 8, "--sts", sts]
    result = CliRunner().invoke(main, [*map(str, arguments), "--output", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert made.keys() == {"encoder", "steps", "seconds", "sentences", "before", "after"}
    assert made["after"].keys() == {"held_out_alignment", "held_out_uniformity", "sts_spearman"}
    assert Encoder.load(tmp_path / "out").encode_queries(["key"]).shape == (1, 32)
    result = CliRunner().invoke(main, [*map(str, arguments), "--output", str(tmp_path / "equal"), "--dropout", "0"])
    assert result.exit_code == 2
    assert "views of every sentence are equal" in result.stderr

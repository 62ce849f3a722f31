"""Training with the model in shards (FSDP): what comes out is what comes out without, in half of the memory each."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from test_train_contrastive import some
from tiny import SENTENCES, tiny_encoder
from torch import nn

from ragindex import Encoder
from ragindex.cli import main
from ragindex.errors import TrainingError
from ragindex.train.data.examples import write_examples
from ragindex.train.model import TrainableEncoder
from ragindex.train.sharding import Shards, in_step, recompute_layers

pytestmark = pytest.mark.timeout(900)  # several processes, each of which loads torch

HERE = Path(__file__).parent
COMPARED = ("plain", "cached", "lora", "simcse", "masked", "masked-lora", "causal", "recomputed")


@contextmanager
def crew(folder: Path, output: Path, job: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes of sharded_crew.py, as torchrun would start them; killed in the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = []
    for number in range(2):
        own = {"RANK": str(number), "LOCAL_RANK": str(number), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(HERE / "sharded_crew.py"), str(folder), str(output), job]
        with said_by(output, number).open("wb") as said:
            children.append(subprocess.Popen(command, env={**os.environ, **common, **own}, stderr=said, cwd=HERE))
    try:
        yield children
    finally:
        for child in children:
            child.kill()
            child.wait()


def said_by(output: Path, number: int) -> Path:
    """What a process wrote to stderr."""
    return output.with_name(f"{output.name}-{number}.txt")


def finish(folder: Path, output: Path, job: str) -> None:
    with crew(folder, output, job) as children:
        codes = [child.wait() for child in children]
    assert codes == [0, 0], "".join(said_by(output, number).read_text() for number in range(2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("sharding")
    tiny_encoder(found / "tiny")
    return found


@pytest.fixture(scope="module")
def results(folder: Path) -> Mapping[str, list[dict[str, Any]]]:
    """What each process found, by job."""
    (folder / "all").mkdir()
    finish(folder, folder / "all", "all")
    return {
        job: [json.loads((folder / "all" / f"{job}-{number}.json").read_text()) for number in range(2)]
        for job in (*COMPARED, "unsharded", "memory", "saved")
    }


@pytest.mark.parametrize("job", COMPARED)
def test_sharded_training_ends_where_training_with_whole_models_does(results: Any, job: str) -> None:
    found = results[job][0]
    assert found["difference"] < 1e-5
    assert found["moved"] > 1e-4
    assert found["clipped"] > 0  # the norm over shards is that of the whole
    assert found["rows"]  # measured and logged at the same steps
    assert found["numbers"] < 1e-5


@pytest.mark.parametrize("job", ["cached", "lora", "masked"])
def test_processes_with_unequal_work_do_not_wait_for_each_other_forever(results: Any, job: str) -> None:
    assert results[job][0]["passes"] != results[job][1]["passes"]


def test_each_process_holds_half_of_everything(results: Any) -> None:
    for held in results["memory"]:
        for part in ("weights", "gradients", "moments"):
            assert held[part] == pytest.approx(held["whole"] / 2, rel=0.02)
    assert results["memory"][0]["whole"] > 20_000


def test_what_is_saved_is_what_would_be_without_shards(folder: Path, results: Any) -> None:
    found = results["saved"][0]
    assert found["difference"] < 1e-5
    before, after = found["measured"]
    assert before != after  # both were measured, by both processes together
    assert {"config.json", "model.safetensors", "ragindex.json", "tokenizer.json"} <= set(found["files"]["encoder"])
    assert "adapter" in found["files"]["mntp"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(found["files"]["clm"])
    adapted = Encoder.load(folder / "all" / "mntp").encode_documents(SENTENCES[:2])
    assert np.abs(adapted - Encoder.load(folder / "tiny").encode_documents(SENTENCES[:2])).max() > 1e-4


def test_a_killed_run_goes_on_and_ends_with_equal_weights(folder: Path) -> None:
    finish(folder, folder / "undisturbed", "go-on")
    broken = folder / "broken"
    with crew(folder, broken, "begin") as children:
        deadline = time.monotonic() + 600
        while not list(broken.glob("run/checkpoints/*[0-9]")) and time.monotonic() < deadline:
            assert all(child.poll() is None for child in children), said_by(broken, 0).read_text()
            time.sleep(0.05)
        for child in children:
            child.send_signal(signal.SIGKILL)
    finish(folder, broken, "go-on")
    assert 0 < int((broken / "resumed").read_text()) < 12
    assert (broken / "weights").read_bytes() == (folder / "undisturbed" / "weights").read_bytes()


def test_layers_are_computed_a_second_time_when_nothing_of_them_is_kept(folder: Path) -> None:
    model = TrainableEncoder.open(folder / "tiny")
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    next(item for item in model.modules() if type(item).__name__ == "LlamaMLP").register_forward_pre_hook(count)
    items = model.train().documents(SENTENCES[:2])
    gradients = []
    for expected in (1, 3):
        model.zero_grad()
        model(items)[0, 0].backward()
        assert calls == expected
        gradients.append([item.grad for item in model.parameters() if item.grad is not None])
        recompute_layers(model)
    torch.testing.assert_close(*gradients)


def test_what_has_no_decoder_is_not_sharded() -> None:
    with pytest.raises(TrainingError, match="Linear has no decoder"):
        Shards(nn.Linear(2, 2))


def test_a_step_alone_has_its_own_parts() -> None:
    assert list(in_step(["a", "b"], nn.Linear(2, 2))) == [("a", 1.0), ("b", 1.0)]


def test_a_run_goes_on_without_shards(results: Any) -> None:
    assert results["unsharded"][0]["difference"] < 1e-5


def test_by_the_same_command(folder: Path, tmp_path: Path) -> None:
    """In two processes that share the model, and in one, which has nothing to share it with."""
    write_examples(tmp_path / "pairs.jsonl", some(40, negatives=(0, 1, 2)))
    command = ["contrastive", tmp_path / "pairs.jsonl", "--encoder", folder / "tiny", "--held-out", 0.2, "--steps", 3]
    command += ["--fsdp", "--gradient-checkpointing", "--json", "--chunk", 64]
    two = [*command, "--output", tmp_path / "two", "--batch", 6, "--processes", 2]
    done = subprocess.run(
        [sys.executable, "-m", "ragindex", "train", *map(str, two)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 3
    assert "Warning" not in done.stderr
    one = [*command, "--output", tmp_path / "one", "--batch", 12]
    result = CliRunner().invoke(main, ["train", *map(str, one)])
    assert result.exit_code == 0, result.output
    together, alone = (Encoder.load(tmp_path / name).encode_queries(SENTENCES[:5]) for name in ("two", "one"))
    np.testing.assert_allclose(together, alone, atol=2e-3)

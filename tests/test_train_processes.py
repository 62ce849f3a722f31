"""Training in several processes: the same result as in one, one that writes, one sentence when one fails."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file
from test_train_contrastive import some
from tiny import HEAD_DIMENSIONS, tiny_encoder

from ragindex.__main__ import main as run_program
from ragindex.cli import main
from ragindex.train import processes
from ragindex.train.data.examples import write_examples

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ragindex", "train", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    tiny_encoder(folder / "tiny", layers=1)
    write_examples(folder / "pairs.jsonl", some(40, negatives=(0, 1, 2)))
    return folder


def weights(encoder: Path) -> np.ndarray:
    state = load_file(encoder / "model.safetensors")
    return np.concatenate([state[name].astype(np.float64).ravel() for name in sorted(state)])


def test_alone_there_is_nothing_to_gather() -> None:
    part = torch.ones(2, 3)
    assert processes.gathered(part) is part
    assert (processes.rank(), processes.world_size()) == (0, 1)
    assert processes.in_turn(lambda: 3) == 3


def test_two_processes_learn_what_one_learns_from_batches_twice_as_large(workshop: Path) -> None:
    common = ("contrastive", workshop / "pairs.jsonl", "--encoder", workshop / "tiny", "--held-out", 0, "--json")
    loss = ("--steps", 4, "--rate", 1e-3, "--directions", "q-d,q-q,d-d", "--learn-temperature", "--spread", 3)
    two = start(*common, *loss, "--output", workshop / "two", "--batch", 8, "--processes", 2, "--chunk", 64)
    shown, said = two.communicate(timeout=300)
    assert two.returncode == 0, said
    assert json.loads(shown)["steps"] == 4  # one process alone has written to stdout
    alone_in(workshop / "one", *common, *loss, "--batch", 16)
    begun, alone, together = (weights(workshop / name) for name in ("tiny", "one", "two"))
    assert np.linalg.norm(together - alone) < 0.01 * np.linalg.norm(alone - begun)
    log = [json.loads(line) for line in (workshop / "two" / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [1, 4]  # and one to the log


def test_two_processes_distil_what_one_does(workshop: Path) -> None:
    """Whose parts of a batch are of unequal length, but equally many."""
    shards = workshop / "shards"
    shards.mkdir()
    vectors = np.random.default_rng(0).standard_normal((50, HEAD_DIMENSIONS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    save_file({"vectors": vectors.astype(np.float16)}, shards / "00000.safetensors")
    with gzip.open(shards / "00000.json.gz", "wt", encoding="utf-8") as out:
        json.dump([example.positive for example in some(50)], out)  # 40 are learnt from, all in one step
    common = ("distill", "--vectors", shards, "--encoder", workshop / "tiny", "--similarity", 0.3, "--steps", 3)
    two = start(*common, "--output", workshop / "d2", "--tokens", 2000, "--processes", 2)
    _, said = two.communicate(timeout=300)
    assert two.returncode == 0, said
    alone_in(workshop / "d1", *common, "--tokens", 4000)
    begun, alone, together = (weights(workshop / name) for name in ("tiny", "d1", "d2"))
    assert np.linalg.norm(together - alone) < 0.01 * np.linalg.norm(alone - begun)


def alone_in(output: Path, *arguments: object) -> None:
    result = CliRunner().invoke(main, ["train", *map(str, arguments), "--output", str(output)])
    assert result.exit_code == 0, result.output


def test_one_process_that_fails_ends_all_with_one_sentence(workshop: Path) -> None:
    child = start(
        *("contrastive", workshop / "pairs.jsonl", "--encoder", workshop / "tiny", "--output", workshop / "nan"),
        *("--steps", 9, "--rate", 1e30, "--processes", 2, "--batch", 8, "--held-out", 0),
    )
    shown, said = child.communicate(timeout=300)
    assert child.returncode == 2
    assert shown == ""
    assert said.count("is not finite at step") == 1
    assert "Traceback" not in said


def test_sigterm_stops_all_after_the_same_step_and_they_go_on(workshop: Path) -> None:
    arguments = (
        *("contrastive", workshop / "pairs.jsonl", "--encoder", workshop / "tiny", "--output", workshop / "stopped"),
        *("--steps", 400, "--processes", 2, "--batch", 8, "--held-out", 0),
    )
    child = start(*arguments)
    log = workshop / "stopped" / "run" / "log.jsonl"
    wait_for(lambda: log.is_file() and '"step": 1,' in log.read_text(), child)
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=300)
    assert child.returncode == 130
    assert "the same command goes on from there" in said
    assert len(list((workshop / "stopped" / "run" / "checkpoints").iterdir())) == 1


def test_a_recipe_prints_one_value_also_when_a_stage_has_processes(workshop: Path) -> None:
    stage = (
        f'[contrastive]\nexamples = ["{workshop / "pairs.jsonl"}"]\nsteps = 2\nbatch = 8\nprocesses = 2\nfsdp = true\n'
    )
    (workshop / "recipe.toml").write_text(stage, encoding="utf-8")
    arguments = ("--output", workshop / "stages", "--encoder", workshop / "tiny", "--json")
    shown, said = start("recipe", workshop / "recipe.toml", *arguments).communicate(timeout=300)
    assert [row["state"] for row in json.loads(shown)["stages"]] == ["finished"], said
    assert str(workshop / "stages" / "1-contrastive") in said  # what the stage prints is for people here


@pytest.mark.parametrize("status", [0, 3])
def test_a_thread_that_is_late_does_not_change_how_a_process_ends(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], status: int
) -> None:
    """One of gloo's is still at work after the last that was waited for."""
    script = f"""
import atexit, time
import torch
from torch import distributed
from ragindex.train.processes import join, leave
join()
atexit.register(print, "ended", flush=True)
held = distributed.group.WORLD  # as caches behind sharded tensors do
def late(_):
    end = time.monotonic() + 1
    while time.monotonic() < end:
        pass
distributed.all_reduce(torch.ones(1), async_op=True).get_future().then(late)
distributed.all_reduce(torch.ones(1))  # by another thread
leave({status})
"""
    run_instead(monkeypatch, "-c", script)
    found = processes.launch([], processes=2)
    shown, said = capfd.readouterr()
    assert found.status == status, said
    assert shown == "ended\n"  # by the main process
    assert "terminate" not in said


def test_a_command_leaves_as_one_of_several_does(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(processes, "leave", left.append)
    for arguments, status in ((["--version"], 0), (["--wrong"], 2)):
        monkeypatch.setattr(sys, "argv", ["ragindex", *arguments])
        with pytest.raises(SystemExit, match=str(status)):
            run_program()
        assert left.pop() == status


def test_a_process_alone_does_not_leave() -> None:
    processes.leave(3)


def run_instead(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """What `launch` starts from here on."""
    real = subprocess.Popen

    def popen(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return real([command[0], *arguments], **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(processes.subprocess, "Popen", popen)


def test_numbers_of_one_process_are_the_largest_there_are() -> None:
    assert processes.most([3, 1]) == [3, 1]


def wait_for(found: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not found() and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.05)
    assert found(), child.communicate()


@pytest.mark.parametrize(
    ("codes", "said", "ending"),
    [
        ((0, 0), "", (0, "")),
        ((0, 2), "ragindex: no room", (2, "ragindex: no room")),
        ((75, 2), "first line\nragindex: no room", (2, "ragindex: no room")),
        ((2, 2), "ragindex: the same", (2, "")),
        ((2, 75), "", (2, "")),
        ((75, 0), "", (1, "The processes lost each other.")),
        ((0, 3), "", (3, "Process 1 of 2 ended with 3.")),
    ],
)
def test_what_is_said_when_processes_end(
    monkeypatch: pytest.MonkeyPatch, codes: tuple[int, int], said: str, ending: tuple[int, str]
) -> None:
    program = "import os, sys; rank = int(os.environ['RANK']); print({said!r}, file=sys.stderr) if rank else 0; "
    script = program.format(said=said) + f"sys.exit({list(codes)}[rank])" if said else _exits(codes)
    run_instead(monkeypatch, "-S", "-c", script)
    found = processes.launch([], processes=2)
    assert (found.status, found.message) == ending


def _exits(codes: tuple[int, int]) -> str:
    return f"import os, sys; sys.exit({list(codes)}[int(os.environ['RANK'])])"

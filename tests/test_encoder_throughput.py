"""What makes encoding fast must not be felt: memory that runs out, fixed shapes, compiled layers, several devices."""

from __future__ import annotations

import multiprocessing
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_encoder
from torch import nn

from ragindex import Encoder, Index
from ragindex.config import Settings
from ragindex.encoder import Checkpoint, devices, find_checkpoint
from ragindex.encoder.batching import Batch, Budget, FixedShapes, Part, in_order
from ragindex.encoder.devices import choose_device, send
from ragindex.encoder.tokenizer import Tokenized
from ragindex.encoder.torch_forward import TorchForward
from ragindex.encoder.workers import ProcessForward, load_forward
from ragindex.errors import EncoderError, UsageError

VOCABULARY = 200


def texts(lengths: list[int], seed: int = 0) -> list[Tokenized]:
    generator = np.random.default_rng(seed)
    return [Tokenized(generator.integers(5, VOCABULARY, length), np.ones(length, dtype=bool)) for length in lengths]


MIXED = [9, 3, 40, 3, 1, 17, 40, 9, 9, 100, 2, 33, 16, 15, 64, 65, 7]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return find_checkpoint(str(tiny_encoder(tmp_path_factory.mktemp("encoder") / "e")))


def test_a_batch_is_a_rectangle_padded_on_the_right() -> None:
    first, second = Tokenized(np.array([7, 8, 9]), np.array([False, True, True])), Tokenized(np.array([5]), np.ones(1))
    batch = Batch.of([first, second])
    assert batch.ids.tolist() == [[7, 8, 9], [5, 0, 0]]
    assert batch.real.tolist() == [[True, True, True], [True, False, False]]
    assert batch.pooled.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert batch.lengths == [3, 1]
    assert (batch.ids.dtype, batch.pooled.dtype) == (np.int64, np.float32)
    assert Batch.of([first, second], length=5).ids.tolist() == [[7, 8, 9, 0, 0], [5, 0, 0, 0, 0]]


class Device:
    """Holds so many padded tokens at once, and notes what it was given."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens
        self.given: list[int] = []

    def __call__(self, items: list[Tokenized], length: int | None = None) -> torch.Tensor:
        used = len(items) * (length or max(len(item.ids) for item in items))
        self.given.append(used)
        if used > self._tokens:
            raise torch.OutOfMemoryError
        return torch.tensor([[float(item.ids.sum())] for item in items])


def test_memory_that_runs_out_halves_the_batch_from_then_on() -> None:
    device, budget, items = Device(300), Budget(1000), texts(MIXED)
    expected = [[float(item.ids.sum())] for item in items]
    assert in_order(budget.compute(items, device)).tolist() == expected
    failed = [used for used in device.given if used > 300]
    assert failed == [1000, 500]
    assert budget.tokens <= 300
    device.given.clear()
    assert in_order(budget.compute(items, device)).tolist() == expected
    assert max(device.given) <= 300  # learned once: the second time nothing fails


@pytest.mark.parametrize("schedule", [Budget(1000), FixedShapes()])
def test_a_text_that_does_not_fit_by_itself_is_named(schedule: Budget | FixedShapes) -> None:
    with pytest.raises(EncoderError, match=r"A text of \d+ tokens does not fit into the device's memory; cut it into"):
        list(schedule.compute(texts([600, 4]), Device(500)))


def test_other_failures_are_not_taken_for_missing_memory() -> None:
    def broken(items: list[Tokenized]) -> torch.Tensor:
        raise RuntimeError("index out of range")

    with pytest.raises(RuntimeError, match="index out of range"):
        list(Budget(1000).compute(texts([4]), broken))


def test_rows_come_back_in_the_order_of_the_texts() -> None:
    parts = [Part([2, 0], torch.tensor([[2.0], [0.0]])), Part([1], torch.tensor([[1.0]]))]
    assert in_order(iter(parts)).tolist() == [[0], [1], [2]]


def test_fixed_shapes_follow_from_the_length_alone() -> None:
    shapes: dict[int, set[tuple[int, int | None]]] = {}

    def run(items: list[Tokenized], length: int | None = None) -> torch.Tensor:
        for item in items:
            shapes.setdefault(len(item.ids), set()).add((len(items), length))
        return torch.tensor([[float(item.ids.sum())] for item in items])

    lengths = [1, 16, 17, 17, 30, 64, 100, 511, 512, 513, 1025]
    items = texts(lengths)
    assert in_order(FixedShapes().compute(items, run)).tolist() == [[float(item.ids.sum())] for item in items]
    for item in items:
        list(FixedShapes().compute([item], run))
    shape = {16: (32, 16), 32: (16, 32), 64: (8, 64), 128: (4, 128)}
    shape |= {length: (1, length) for length in (512, 1024, 1536)}
    rounded = {1: 16, 16: 16, 17: 32, 30: 32, 64: 64, 100: 128, 511: 512, 512: 512, 513: 1024, 1025: 1536}
    assert shapes == {length: {shape[columns]} for length, columns in rounded.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stable_vectors_are_the_same_bit_for_bit_in_any_company(checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    forward = TorchForward(checkpoint, device="cpu", dtype=dtype, execution="stable")
    items = texts(MIXED)
    together = forward(items)
    alone = np.concatenate([forward([item]) for item in items])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[::-1], forward(items[::-1]))
    free = TorchForward(checkpoint, device="cpu", dtype=dtype)(items)
    np.testing.assert_allclose(np.einsum("ij,ij->i", together, free), 1, atol=1e-5 if dtype == torch.float32 else 2e-3)
    for states, item in zip(forward.states(items), items, strict=True):
        assert len(states) == len(item.ids)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A compiler that runs what it is given and notes how large that is: torch's own takes a minute and a C++ one."""
    graphs: list[int] = []
    compile_module = nn.Module.compile

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(
        nn.Module, "compile", lambda self, *, dynamic: compile_module(self, backend=backend, dynamic=dynamic)
    )
    torch._dynamo.reset()
    yield graphs
    torch._dynamo.reset()


@pytest.mark.parametrize("packed", [True, False])
def test_layers_are_compiled_once_for_all_shapes(
    packed: bool, checkpoint: Checkpoint, compiler: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = texts(MIXED)
    if not packed:
        monkeypatch.setattr("ragindex.encoder.torch_forward.Packed.of", lambda model: None)
    expected = TorchForward(checkpoint, device="cpu", dtype=torch.float32)(items)
    forward = TorchForward(checkpoint, device="cpu", dtype=torch.float32, execution="compiled")
    assert forward.is_packed is packed
    made = len(compiler)
    assert made >= 2
    np.testing.assert_allclose(forward(items), expected, atol=2e-6)
    for size in (2, 3, 5, 17):
        np.testing.assert_allclose(forward(items[:size]), expected[:size], atol=2e-6)
    assert len(compiler) == made


def test_a_compiler_that_fails_is_an_encoder_error(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., object]:
        raise RuntimeError("No working C++ compiler found.")

    compile_module = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, *, dynamic: compile_module(self, backend=backend, dynamic=dynamic)
    )
    torch._dynamo.reset()
    with pytest.raises(EncoderError, match=r"LlamaModel cannot be compiled here \(.+\); leave the execution at 'free'"):
        TorchForward(checkpoint, device="cpu", execution="compiled")
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def processes(checkpoint: Checkpoint) -> Iterator[ProcessForward]:
    forward = load_forward(checkpoint, device="cpu, cpu")
    assert isinstance(forward, ProcessForward)
    yield forward
    forward.close()


def test_several_devices_give_what_one_gives(processes: ProcessForward, checkpoint: Checkpoint) -> None:
    assert len(multiprocessing.active_children()) == 2
    items = texts([3, 90, 40, 9, 17] * 80)
    one = load_forward(checkpoint, device="cpu")
    assert isinstance(one, TorchForward)
    vectors = processes(items)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.einsum("ij,ij->i", vectors, one(items)), 1, atol=2e-3)
    np.testing.assert_allclose(np.einsum("ij,ij->i", processes(items[:1]), one(items[:1])), 1, atol=2e-3)
    for states, expected in zip(processes.states(items[:7]), one.states(items[:7]), strict=True):
        assert states.shape == expected.shape
        np.testing.assert_allclose(states, expected, atol=0.1)


def test_an_encoder_and_a_store_take_several_devices(tmp_path: Path, checkpoint: Checkpoint) -> None:
    name = str(checkpoint.directory)
    text = "The key is kept in a safe, and every ninety days it is replaced by another. "
    longer = [text * (1 + number % 5) for number in range(60)]
    vectors = Encoder.load(name, device="cpu,cpu").encode_documents(longer)
    expected = Encoder.load(name, device="cpu").encode_documents(longer)
    np.testing.assert_allclose(np.einsum("ij,ij->i", vectors, expected), 1, atol=2e-3)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text(text * 40, encoding="utf-8")
    settings = Settings(device="cpu,gpu")
    index = Index.open(tmp_path / ".ragindex", encoder=name, settings=settings)
    with index, pytest.raises(UsageError, match="The device 'gpu' cannot be used"):
        index.add(tmp_path / "notes")


def test_texts_have_the_same_bits_in_any_company(checkpoint: Checkpoint) -> None:
    encoder = Encoder.load(str(checkpoint.directory), device="cpu", execution="stable")
    several = ["The key is kept in a safe. " * (number + 1) for number in range(6)]
    together = encoder.encode_documents(several)
    for text, vector in zip(several, together, strict=True):
        np.testing.assert_array_equal(encoder.encode_documents([text])[0], vector)


def test_a_process_that_dies_is_an_encoder_error_and_the_next_call_starts_anew(processes: ProcessForward) -> None:
    items = texts([90] * 200)  # several shares of work, so that each process is asked
    before = processes(items)
    child = multiprocessing.active_children()[0]
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    with pytest.raises(EncoderError, match=r"process that encodes on cpu ended unexpectedly \(exit code -9\)"):
        processes(items)
    assert multiprocessing.active_children() == []
    np.testing.assert_array_equal(processes(items), before)
    processes.close()
    assert multiprocessing.active_children() == []


def test_what_goes_wrong_in_a_process_is_told(tmp_path: Path) -> None:
    directory = tiny_encoder(tmp_path / "e")
    checkpoint = find_checkpoint(str(directory))
    (directory / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(EncoderError, match="cannot be loaded"):
        ProcessForward(checkpoint, devices=["cpu"])
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("name", ["gpu", "cpu:x", "cuda:99", "cpu:1", "cpu,gpu", "cpu,", "cuda:99,cpu"])
def test_devices_that_are_not_there_are_named_at_once(name: str, checkpoint: Checkpoint) -> None:
    with pytest.raises(UsageError, match=r"The device '.*' cannot be used: torch "):
        load_forward(checkpoint, device=name)
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library manages memory in another way")
def test_freed_memory_is_kept_for_the_next_layer() -> None:
    """Counted in page faults, in a process of its own since the C library remembers."""
    program = """
import resource
import torch
from ragindex.encoder.devices import keep_freed_memory

def layer():
    blocks = [torch.zeros(1 << 20) for _ in range(12)]

def faults():
    layer()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        layer()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

without = faults()
keep_freed_memory()
print(without, faults())
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    without, kept = map(int, result.stdout.split())
    assert without > 1_000
    assert kept < without / 10


def test_the_device_is_the_one_that_was_named() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    array = np.arange(6).reshape(2, 3)
    sent = send(array, torch.device("cpu"))
    assert sent.tolist() == array.tolist()
    assert devices.padded_tokens(torch.device("cuda")) > devices.padded_tokens(torch.device("cpu"))

"""Several processes, one model: vectors of all of them for one softmax, and how a command starts them.

Every process embeds its own part of a batch. In the softmax it contrasts its own queries with the documents of all, so
the batch is as large as all parts together. `ragindex.train.loop` takes the mean of the gradients. Only the main one,
of rank 0, writes.

Every process holds the whole model, unless it is spread over them (`ragindex.train.sharding`).
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, Any, TypeVar

import torch
from torch import Tensor, distributed

__all__ = [
    "Ending",
    "from_main",
    "gathered",
    "in_turn",
    "join",
    "launch",
    "leave",
    "lost_peer",
    "most",
    "rank",
    "world_size",
]

Result = TypeVar("Result")

_LOST = 75  # exit status of a process that ended because another one did
_PATIENCE = timedelta(days=1)  # while one prepares what all need; a lost peer is noticed otherwise
_GRACE = 10.0  # seconds that the others have to end by themselves once one has failed


def join() -> None:
    """Find the other processes, if this one was started among several (by `launch`, torchrun or accelerate). To be
    called before a model is opened: it settles which accelerator is this process's own.
    """
    from accelerate import PartialState

    PartialState(cpu=not torch.accelerator.is_available(), timeout=_PATIENCE)


def leave(status: int) -> None:
    """End this process with that status if it is one of several; otherwise nothing happens.

    The interpreter is not taken down first. A thread of gloo that still holds a tensor while that goes on would end
    the process by SIGABRT, whatever its status (github.com/pytorch/pytorch/pull/179291). The group's end waits for its
    threads, but only where nothing refers to the group any more, and caches behind sharded tensors do.
    """
    if world_size() == 1:
        return
    if status == 0:  # others may wait for one that has failed
        distributed.destroy_process_group()
    atexit._run_exitfuncs()  # as multiprocessing does in its processes
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or its reader is gone
            stream.flush()
    os._exit(status)


def world_size() -> int:
    """How many processes train together; 1 when this one is alone."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process among them, from 0."""
    return distributed.get_rank() if world_size() > 1 else 0


def in_turn(action: Callable[[], Result]) -> Result:
    """What `action` returns; the main process does it first, the others when it is done."""
    if world_size() == 1:
        return action()
    if rank() == 0:
        result = action()
        distributed.barrier()
        return result
    distributed.barrier()
    return action()


def from_main(make: Callable[[], bytes]) -> bytes:
    """What `make` returns in the main process, which alone calls it; for what two processes would not make alike."""
    if world_size() == 1:
        return make()
    content = make() if rank() == 0 else b""
    length = torch.tensor([len(content)], device=_meeting_place())
    distributed.broadcast(length, 0)
    held = torch.frombuffer(bytearray(content or int(length)), dtype=torch.uint8).to(_meeting_place())
    distributed.broadcast(held, 0)
    return bytes(held.cpu().numpy())


def most(numbers: Sequence[int]) -> list[int]:
    """The largest that each of these numbers is in any process. To be called by all of them, with equally many."""
    if world_size() == 1:
        return list(numbers)
    held = torch.tensor(numbers, dtype=torch.int64, device=_meeting_place())
    distributed.all_reduce(held, distributed.ReduceOp.MAX)
    return [int(number) for number in held.tolist()]


def gathered(part: Tensor) -> Tensor:
    """The parts of all processes, one after the other in the order of their ranks: (world * n, …).

    With a gradient: what another process makes of this one's vectors comes back to them. All parts must have the same
    shape. Alone, the tensor itself.
    """
    if world_size() == 1:
        return part
    found: Tensor = _Gathering.apply(part.to(_meeting_place()))  # type: ignore[no-untyped-call]
    return found.to(part.device)


class _Gathering(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:  # noqa: ARG004 - as autograd calls it
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(world_size())]
        distributed.all_gather(parts, part.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total.chunk(world_size())[rank()]


def _meeting_place() -> str:
    """The device that tensors are exchanged on: NCCL moves nothing from a CPU."""
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"


@contextmanager
def lost_peer() -> Iterator[None]:
    """Around what several processes do: one that loses another ends in silence, since that one has said why."""
    try:
        yield
    except RuntimeError as error:
        if world_size() > 1 and (isinstance(error, distributed.DistError) or "gloo" in str(error).lower()):
            raise SystemExit(_LOST) from error
        raise


@dataclass(frozen=True, slots=True)
class Ending:
    """How several processes ended. status: exit status of all of them; message: what the one that failed first said,
    "" when it was the main one, whose words are on stderr, or none failed.
    """

    status: int
    message: str = ""


def launch(arguments: Sequence[str], *, processes: int, patience: float = 0.05) -> Ending:
    """Run `python -m ragindex ARGUMENTS` in so many processes that find each other by `join`, and wait for them.

    What the main process says goes where this one's stdout and stderr go, also if stdout is redirected to another file.
    SIGINT and SIGTERM are handed on to all. When one fails, the others are ended. patience: seconds between two looks
    at them.
    """
    crew = _Crew(arguments, processes)
    try:
        with _handed_on(crew):
            return crew.wait(patience)
    finally:
        crew.end()


class _Crew:
    def __init__(self, arguments: Sequence[str], processes: int) -> None:
        port = _free_port()
        self._said: list[IO[bytes]] = []
        self._children: list[subprocess.Popen[bytes]] = []
        for number in range(processes):
            said: Any = tempfile.TemporaryFile() if number else None  # noqa: SIM115 - closed by `end`
            if said is not None:
                self._said.append(said)
            # A session of its own: a terminal's Ctrl-C reaches the parent only, which hands it on once.
            child = subprocess.Popen(  # noqa: S603 - this program, with the arguments it was given
                [sys.executable, "-m", "ragindex", *arguments],
                env=_environment(number, processes, port),
                stdout=subprocess.DEVNULL if number else _stdout(),
                stderr=said,
                start_new_session=True,
            )
            self._children.append(child)

    def signal(self, number: int) -> None:
        for child in self._children:
            with suppress(ProcessLookupError):
                child.send_signal(number)

    def wait(self, patience: float) -> Ending:
        first: int | None = None
        deadline = 0.0
        while any(child.poll() is None for child in self._children):
            if first is None:
                first = self._failed()
                deadline = time.monotonic() + _GRACE
            elif time.monotonic() > deadline:
                self._kill()
            time.sleep(patience)
        return self._ending(self._failed() if first is None else first)

    def end(self) -> None:
        self._kill()
        for said in self._said:
            said.close()

    def _kill(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()
                child.wait()

    def _failed(self) -> int | None:
        """Rank of a process that has failed by itself, the main one if it is among them."""
        failed = [rank for rank, child in enumerate(self._children) if child.poll() not in (None, 0, _LOST)]
        return failed[0] if failed else None

    def _ending(self, first: int | None) -> Ending:
        codes = [child.returncode for child in self._children]
        if first is None:
            lost = any(codes)
            return Ending(1 if lost else 0, "The processes lost each other." if lost else "")
        status = codes[first] if codes[first] > 0 else 128 - codes[first]
        own = self._failed()
        if own == 0 and codes[0] > 0:  # it has said so itself
            return Ending(status)
        return Ending(status, self._last_words(first) or f"Process {first} of {len(codes)} ended with {codes[first]}.")

    def _last_words(self, number: int) -> str:
        if number == 0:
            return ""
        said = self._said[number - 1]
        said.seek(0)
        lines = said.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""


@contextmanager
def _handed_on(crew: _Crew) -> Iterator[None]:
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, lambda heard, _: crew.signal(heard))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _environment(number: int, processes: int, port: int) -> dict[str, str]:
    """The variables of torchrun, which torch.distributed and accelerate read."""
    threads = max(1, (os.cpu_count() or 1) // processes)
    return {
        "OMP_NUM_THREADS": str(threads),
        **os.environ,
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _stdout() -> int | None:
    """The file behind sys.stdout; None, the one that is inherited, when there is no file behind it."""
    try:
        return sys.stdout.fileno()
    except OSError:
        return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""One encoder on several devices at once: a process for each, fed from here.

Processes rather than threads, since Python drives a model and one interpreter drives one device. They are spawned, as
CUDA does not survive a fork; so a program that uses them keeps its own work under `if __name__ == "__main__":`.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Literal

import numpy as np
import torch

from ragindex.encoder.batching import token_budget_batches
from ragindex.encoder.checkpoint import Checkpoint
from ragindex.encoder.devices import choose_device, padded_tokens
from ragindex.encoder.tokenizer import Tokenized
from ragindex.encoder.torch_forward import Execution, TorchForward
from ragindex.errors import EncoderError, RagIndexError

__all__ = ["ProcessForward", "load_forward"]

_SHARES = 8  # of the work for each device, so that a fast one does more and none waits long for the last
_PATIENCE = 10.0  # seconds for a process to end by itself

_Wanted = Literal["vectors", "states"]


def load_forward(
    checkpoint: Checkpoint, *, device: str | None = None, execution: Execution = "free"
) -> TorchForward | ProcessForward:
    """A decoder on one device, or on several: "cuda:0,cuda:1"."""
    devices = [name.strip() for name in (device or "").split(",")]
    if len(devices) > 1:
        return ProcessForward(checkpoint, devices=devices, execution=execution)
    return TorchForward(checkpoint, device=device, execution=execution)


class ProcessForward:
    """What `TorchForward` gives, computed by a process for each device. Calls from several threads are served one after
    the other.

    Raises UsageError for a device that is not there, EncoderError when a process cannot load the model or ends before
    its time; the next call then starts new ones.
    """

    is_static = False

    def __init__(self, checkpoint: Checkpoint, *, devices: Sequence[str], execution: Execution = "free") -> None:
        self._checkpoint = checkpoint
        self._devices = tuple(devices)
        self._execution = execution
        found = [choose_device(name) for name in devices]
        together = sum(device.type == "cpu" for device in found)  # they share the cores
        self._threads = max(1, torch.get_num_threads() // max(1, together))
        self._least = max(map(padded_tokens, found))
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        weakref.finalize(self, _end, self._workers)
        self._open()

    def __call__(self, batch: Sequence[Tokenized]) -> np.ndarray:
        """Unit vectors, float32 (len(batch), d), in the order of `batch`."""
        return np.stack(self._spread("vectors", batch))

    def states(self, batch: Sequence[Tokenized]) -> list[np.ndarray]:
        """Last hidden states, float32 (length, hidden) of each text, in the order of `batch`."""
        return self._spread("states", batch)

    def close(self) -> None:
        """End the processes. They also end with this object, and with the program."""
        _end(self._workers)

    def _spread(self, wanted: _Wanted, batch: Sequence[Tokenized]) -> list[np.ndarray]:
        lengths = [len(item.ids) for item in batch]
        size = max(self._least, sum(lengths) // (_SHARES * len(self._devices)))
        shares = deque(token_budget_batches(lengths, size))
        found: list[np.ndarray] = [np.empty(0)] * len(batch)

        def work(worker: _Worker) -> None:
            while shares:
                try:
                    places = shares.popleft()
                except IndexError:  # another thread took the last one
                    return
                for place, rows in zip(places, worker.ask(wanted, [batch[place] for place in places]), strict=True):
                    found[place] = rows

        with self._lock:
            try:
                self._open()
                with ThreadPoolExecutor(len(self._workers), thread_name_prefix="ragindex-device") as pool:
                    try:
                        list(pool.map(work, self._workers))
                    finally:
                        shares.clear()  # after a failure nobody begins another one
            except BaseException:
                self.close()  # one of them may be in the middle of an answer
                raise
        return found

    def _open(self) -> None:
        if self._workers:
            return
        serve = partial(_serve, self._checkpoint, self._execution, self._threads)
        try:
            self._workers.extend(_Worker(name, serve) for name in self._devices)
            for worker in self._workers:
                worker.answer()
        except BaseException:
            self.close()
            raise


class _Worker:
    """A process that has the model on a device; asked by one thread at a time."""

    def __init__(self, device: str, serve: partial[None]) -> None:
        context = multiprocessing.get_context("spawn")
        self._device = device
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(device, theirs), daemon=True, name=f"ragindex {device}")
        self._process.start()
        theirs.close()  # the process has its own; this way its end is noticed

    def ask(self, wanted: _Wanted, items: Sequence[Tokenized]) -> Sequence[np.ndarray]:
        """The vectors or states of some texts."""
        try:
            self._connection.send((wanted, _flat(items)))
        except OSError as error:
            raise self._ended() from error
        found: Sequence[np.ndarray] = self.answer()
        return found

    def answer(self) -> Any:
        """What the process says next. Raises EncoderError when it says what went wrong, or nothing any more."""
        try:
            kind, content = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error
        if kind == "error":
            raise EncoderError(content)
        return content

    def end(self) -> None:
        """Have it end, by force if it does not."""
        self._connection.close()
        self._process.join(_PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _ended(self) -> EncoderError:
        self._process.join(_PATIENCE)
        return EncoderError(
            f"The process that encodes on {self._device} ended unexpectedly (exit code {self._process.exitcode}), as "
            "when memory runs out; encode again, or on fewer devices."
        )


def _end(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().end()


def _serve(checkpoint: Checkpoint, execution: Execution, threads: int, device: str, connection: Connection) -> None:
    """The whole life of a process: load the model, then answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the one that asks decides
    with connection:
        try:
            torch.set_num_threads(threads)
            forward = TorchForward(checkpoint, device=device, execution=execution)
            connection.send(("ready", None))
            while True:
                wanted, flat = connection.recv()
                items = _items(*flat)
                connection.send((wanted, forward(items) if wanted == "vectors" else forward.states(items)))
        except (EOFError, BrokenPipeError):  # the other side has closed, or is gone
            return
        except RagIndexError as error:
            connection.send(("error", str(error)))
        except Exception as error:  # noqa: BLE001 - whatever it is, the one who waits for an answer has to hear it
            reason = f"{type(error).__name__}: {error}".strip().partition("\n")[0].rstrip(".")
            connection.send(("error", f"The encoder cannot be run on {device} ({reason})."))


def _flat(items: Sequence[Tokenized]) -> tuple[np.ndarray, ...]:
    """Ids, pooled marks and lengths: three arrays travel faster than thousands."""
    ids = np.concatenate([item.ids for item in items])
    pooled = np.concatenate([item.pooled for item in items])
    return ids, pooled, np.array([len(item.ids) for item in items])


def _items(ids: np.ndarray, pooled: np.ndarray, lengths: np.ndarray) -> list[Tokenized]:
    cuts = np.cumsum(lengths)[:-1]
    return [Tokenized(*pair) for pair in zip(np.split(ids, cuts), np.split(pooled, cuts), strict=True)]

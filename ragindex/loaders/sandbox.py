"""Runs parsers that may crash, hang or eat memory in worker processes that can be killed."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from ragindex.config import Limits
from ragindex.errors import LoadError
from ragindex.loaders.formats import format_of
from ragindex.loaders.frames import document_from, read_frame, write_frame
from ragindex.loaders.reading import load
from ragindex.types import Document

__all__ = ["LoaderPool"]

_START_SECONDS = 60.0


class LoaderPool:
    """`load` for untrusted files: formats with fragile parsers are read in a subprocess, all others in this process.

    `workers` processes are started when first needed and kept; one that crashed, hung or ran out of memory is replaced.
    Threads may share a pool: each call waits for a free worker.
    """

    _command: ClassVar[Sequence[str]] = (sys.executable, "-m", "ragindex.loaders.worker")

    def __init__(self, limits: Limits, workers: int = 1) -> None:
        self._limits = limits
        self._free: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        self._workers = max(1, workers)
        self._lock = threading.Lock()
        self._closed = False
        self._refusing = False
        self._busy: set[_Worker] = set()
        for _ in range(self._workers):
            self._free.put(None)

    def load(self, path: Path, name: str) -> Document:
        """Like `ragindex.loaders.load`; raises LoadError also for a parser that crashed or broke a limit."""
        if not _needs_worker(path):
            try:
                return load(path, name=name, limits=self._limits)
            except MemoryError as error:
                raise LoadError("not enough memory to read it") from error
        worker = self._free.get()
        try:
            self._check_open()
            if worker is None or not worker.alive:
                worker = _Worker(self._command, self._limits)
            with self._lock:
                self._busy.add(worker)
            self._check_open()  # an abort that came before the line above did not see this worker
            return worker.load(path, name)
        finally:
            if worker is not None:
                with self._lock:
                    self._busy.discard(worker)
            if worker is not None and not worker.alive:
                worker = None
            self._free.put(worker)

    def abort(self) -> None:
        """Give up the files that are being read, in whatever thread, and refuse new ones; `close` is still due."""
        with self._lock:
            self._refusing = True
            for worker in self._busy:
                worker.interrupt()

    def _check_open(self) -> None:
        with self._lock:
            if self._closed or self._refusing:
                raise LoadError("the loader was closed")

    def close(self) -> None:
        """End the workers, waiting for files that are being read; calling it twice is harmless."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for worker in [self._free.get() for _ in range(self._workers)]:
            if worker is not None:
                worker.stop()
            # A late `load` must find a slot and be told, not wait for ever.
            self._free.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Worker:
    """One subprocess and the pipes to it. Used by one thread at a time."""

    def __init__(self, command: Sequence[str], limits: Limits) -> None:
        self._limits = limits
        self.alive = True
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the command is this interpreter
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # Its own session: an interrupt from the terminal reaches this process, which decides what ends.
                start_new_session=True,
                env=_environment(),
            )
        except OSError as error:
            raise LoadError(f"the parser process cannot be started: {error.strerror or error}") from error
        try:
            # Start-up (imports on a cold disk) is not charged to the first file.
            self._ask({"limits": asdict(limits)}, _START_SECONDS)
        except _LostError as lost:
            raise LoadError(f"the parser process did not start: {lost.reason}") from lost

    def load(self, path: Path, name: str) -> Document:
        """Raises LoadError; afterwards `alive` says whether the worker can be used again."""
        try:
            answer = self._ask({"path": os.fspath(path), "name": name}, self._limits.seconds)
        except _LostError as lost:
            raise LoadError(lost.reason) from lost
        if answer.get("memory"):
            # What a parser left behind after running out of memory is not to be trusted.
            self.kill()
            raise LoadError(f"parser used more than {self._limits.memory_mb} MB")
        if "reason" in answer:
            raise LoadError(str(answer["reason"]))
        return document_from(answer["document"])

    def interrupt(self) -> None:
        """End the process under the thread that waits for its answer; that thread cleans up."""
        self._process.kill()

    def stop(self) -> None:
        """Let the worker end by itself, and kill it when it does not."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(timeout=2)
        except (OSError, subprocess.TimeoutExpired):
            pass
        self.kill()

    def kill(self) -> None:
        """End the process now and free its pipes."""
        self.alive = False
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    # A request that could not be written is still buffered; it has no reader any more.
                    continue

    def _ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """One request, one answer. Raises _LostError, with the worker dead, when there is no answer in time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self._process.kill()

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            write_frame(self._process.stdin, json.dumps(request).encode())
            answer = read_frame(self._process.stdout)
            decoded = json.loads(answer) if answer is not None else None
        except (OSError, ValueError):
            decoded = None
        except BaseException:
            # An interrupt between question and answer: the next file must not be given the answer to this one.
            self.kill()
            raise
        finally:
            timer.cancel()
        if isinstance(decoded, dict) and not expired.is_set():
            return decoded
        reason = self._post_mortem(seconds, timed_out=expired.is_set())
        self.kill()
        raise _LostError(reason)

    def _post_mortem(self, seconds: float, *, timed_out: bool) -> str:
        if timed_out:
            return f"parser ran longer than {seconds:g} s"
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "parser gave no answer"
        if status == -getattr(signal, "SIGKILL", 9):
            return "parser was killed (signal 9), probably because the machine ran out of memory"
        return f"parser crashed (signal {-status})" if status < 0 else f"parser crashed (exit status {status})"


class _LostError(Exception):
    """The worker is gone; internal, turned into LoadError by the caller."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _needs_worker(path: Path) -> bool:
    known = format_of(path)
    if known is None or known.isolate_above is None:
        return False
    try:
        return path.stat().st_size > known.isolate_above
    except OSError:
        # `load` finds the words for a file that cannot be read.
        return False


def _environment() -> dict[str, str]:
    """The worker must find this very package, wherever the parent process found it."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *(path for path in sys.path if path and path != root)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"}

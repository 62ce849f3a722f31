"""A training run on disk: what was asked, what was logged, and checkpoints to go on from after a kill.

    OUTPUT/run/config.json      command, options, versions, fingerprints of the data
    OUTPUT/run/log.jsonl        one JSON object a logged step
    OUTPUT/run/loss.png         the same as a picture
    OUTPUT/run/checkpoints/N/   model.safetensors, optimiser.safetensors, state.json: gone when the run is finished

A checkpoint is written beside its place and renamed into it, so one that exists is whole. Nothing here is pickled.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ragindex.errors import TrainingError, UsageError
from ragindex.train.run_tensors import RunTensors

__all__ = ["Checkpoint", "Run", "data_fingerprint", "writing"]

_PACKAGES = ("torch", "transformers", "accelerate", "peft", "ragindex")
_KEPT = 2  # checkpoints: the newest, and one more should the disk have lied about it


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run stood: `state` is whatever the loop needs beside the tensors; JSON-ready."""

    step: int
    directory: Path
    state: Mapping[str, Any]


class Run:
    """The directory of one run. `begin` decides whether it is new or goes on."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.directory = output / "run"
        self.log_file = self.directory / "log.jsonl"
        self._checkpoints = self.directory / "checkpoints"

    def begin(self, command: str, options: Mapping[str, Any], data: Mapping[str, str]) -> Checkpoint | None:
        """Claim the directory; the newest checkpoint when an interrupted run of the same kind left one.

        options: everything that decides the result, JSON-ready; data: fingerprints of the inputs by name. Raises
        UsageError when the directory holds something else, a finished run, or a run with other options.
        """
        config = {"command": command, "options": dict(options), "data": dict(data)}
        config = json.loads(json.dumps(config))  # as it reads back
        known = self._known()
        if known is not None:
            self._same(known, config)
            return self._newest()
        if self.output.exists() and any(self.output.iterdir()):
            raise UsageError(f"{self.output} is not empty and holds no run of this command; choose another --output.")
        self.directory.mkdir(parents=True, exist_ok=True)
        versions = {name: _version(name) for name in _PACKAGES}
        _write_json(self.directory / "config.json", {**config, "versions": versions})
        return None

    @contextmanager
    def held(self) -> Iterator[None]:
        """While the block runs no other process may train into this directory. Raises UsageError when one does."""
        with (self.directory / "config.json").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"Another process is training into {self.output}; wait for it, or choose another --output."
                ) from error
            yield  # the lock goes with the file, and with the process

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one object to log.jsonl."""
        with writing(self.log_file), self.log_file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({key: _plain(value) for key, value in row.items()}) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """What was logged so far; a line cut by a kill is left out."""
        if not self.log_file.is_file():
            return []
        rows = []
        for line in self.log_file.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
        return rows

    def rewind(self, step: int) -> None:
        """Forget what was logged after `step`: the run repeats it."""
        kept = [row for row in self.rows() if int(row.get("step", 0)) <= step]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        _replace(self.log_file, text)

    def save(self, step: int, tensors: RunTensors, state: Mapping[str, Any]) -> Checkpoint:
        """Write a checkpoint and drop the older ones but one. Raises TrainingError when the disk is full."""
        target = self._checkpoints / f"{step:09d}"
        partial = target.with_suffix(".partial")
        with writing(target):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            tensors.write(partial)
            _write_json(partial / "state.json", {"step": step, **state})
            for file in partial.iterdir():
                _sync(file)
            if target.exists():
                shutil.rmtree(target)
            partial.rename(target)
            _sync(self._checkpoints)
        for old in self._complete()[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return Checkpoint(step, target, state)

    def finish(self) -> None:
        """Drop the checkpoints and draw the picture; the log stays."""
        shutil.rmtree(self._checkpoints, ignore_errors=True)
        steps = max((int(row["step"]) for row in self.rows()), default=0)
        _write_json(self.directory / "finished.json", {"steps": steps})

    def _known(self) -> dict[str, Any] | None:
        file = self.directory / "config.json"
        if not file.is_file():
            return None
        if (self.directory / "finished.json").is_file():
            raise UsageError(f"{self.output} holds a finished run; choose another --output, or delete it first.")
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except ValueError as error:
            raise UsageError(f"{file} cannot be read: {error}; delete {self.output} to start anew.") from error

    def _same(self, known: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        if known.get("command") != config["command"]:
            raise UsageError(
                f"{self.output} holds an unfinished run of `{known.get('command')}`; choose another --output."
            )
        for part, what in (("options", "--{}"), ("data", "the content of {}")):
            old, new = dict(known.get(part, {})), dict(config[part])
            changed = next((key for key in {**old, **new} if old.get(key) != new.get(key)), None)
            if changed is not None:
                name = what.format(changed.replace("_", "-") if part == "options" else changed)
                raise UsageError(
                    f"{self.output} holds an unfinished run, but {name} differs from it; repeat that run's command to "
                    "go on, or choose another --output."
                )

    def _complete(self) -> list[Path]:
        if not self._checkpoints.is_dir():
            return []
        return sorted(folder for folder in self._checkpoints.iterdir() if folder.name.isdigit())

    def _newest(self) -> Checkpoint | None:
        for folder in reversed(self._complete()):
            try:
                state = dict(json.loads((folder / "state.json").read_text(encoding="utf-8")))
                return Checkpoint(int(state["step"]), folder, state)
            except (OSError, ValueError, KeyError):
                continue  # damaged: the one before it will do
        return None


def data_fingerprint(files: Sequence[Path]) -> str:
    """Hex digest over the contents of files, and of everything below folders, in the order of their names."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(files):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(file.name.encode())
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def _write_json(file: Path, table: Mapping[str, Any]) -> None:
    with writing(file):
        _replace(file, json.dumps(table, indent=2, ensure_ascii=False) + "\n")


def _replace(file: Path, text: str) -> None:
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Around what writes `target`: a disk that is full, or forbids it, becomes a TrainingError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TrainingError(
            f"{target} cannot be written ({reason}); free some space and repeat the command, it goes on from the last "
            "checkpoint."
        ) from error

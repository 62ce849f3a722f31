"""Recipes: several training stages in order, from one TOML file; what each was made from, so that none is repeated.

    [clm]                      a table a stage, named after its command
    text = ["wiki.jsonl.gz"]   the command's own options, without the dashes
    steps = 2000

    [again]
    command = "contrastive"    where a name says something else, or a command comes twice
    examples = ["{mine}"]      what the stage called mine has made

A stage starts from what the stage before it made, unless it names another encoder.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from ragindex.errors import UsageError
from ragindex.train.run import data_fingerprint, writing

__all__ = ["Record", "Stage", "State", "read_recipe", "stage_fingerprint"]

State = Literal["finished", "begun", "to do"]
_RECORD = "recipe.json"


@dataclass(frozen=True, slots=True)
class Stage:
    """A table of a recipe. number: its place, from 1; options: as in the file, without `command`."""

    number: int
    name: str
    command: str
    options: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """What its output is called."""
        return f"{self.number}-{self.name}"


def read_recipe(file: Path) -> list[Stage]:
    """The stages of a recipe in their order. Raises UsageError when the file is no recipe."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{file} cannot be read as TOML: {error}.") from error
    loose = next((key for key, value in table.items() if not isinstance(value, dict)), None)
    if loose is not None:
        raise UsageError(f"{file} has {loose!r} outside of a table; every stage is a table, such as [mntp].")
    if not table:
        raise UsageError(f"{file} has no stages; every stage is a table, such as [mntp].")
    odd = next((name for name in table if not name.replace("-", "").replace("_", "").isalnum()), None)
    if odd is not None:
        raise UsageError(f"{file} has a stage called {odd!r}; a name is letters, digits and dashes.")
    return [
        Stage(number, name, str(options.get("command", name)), {k: v for k, v in options.items() if k != "command"})
        for number, (name, options) in enumerate(table.items(), start=1)
    ]


def stage_fingerprint(command: str, arguments: Sequence[str], inputs: Sequence[Path], *, previous: str) -> str:
    """Changes with the command, its arguments (without its output), the content of its inputs, and the stage before."""
    table = [command, list(arguments), [data_fingerprint([path]) for path in inputs], previous]
    return blake2b(json.dumps(table).encode(), digest_size=16).hexdigest()


class Record:
    """Which stages of a recipe's output are finished, and what they were made from: OUTPUT/recipe.json."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._file = output / _RECORD
        self._stages: dict[str, dict[str, Any]] = {}
        if self._file.is_file():
            try:
                self._stages = dict(json.loads(self._file.read_text(encoding="utf-8")))
            except ValueError as error:
                raise UsageError(f"{self._file} cannot be read: {error}; choose another --output.") from error
        elif output.exists() and any(output.iterdir()):
            raise UsageError(f"{output} is not empty and holds no recipe's output; choose another --output.")

    def state(self, stage: Stage, fingerprint: str) -> State:
        """Where a stage stands. Raises UsageError when it was made, or begun, from something else."""
        known = self._stages.get(stage.folder)
        made = self._output / stage.folder
        if known is None:
            return "to do"
        if known["fingerprint"] != fingerprint:
            raise UsageError(
                f"{made} was made with other options, data or stages before it; delete it and what follows it, or "
                "choose another --output."
                if made.exists()
                else f"{self._file} knows another stage {stage.name!r}; choose another --output."
            )
        # A run that was finished, but killed before it was noted here, is finished.
        return "finished" if known["finished"] or (made / "run" / "finished.json").is_file() else "begun"

    def note(self, stage: Stage, fingerprint: str, *, finished: bool) -> None:
        """Remember that a stage has begun, or is finished."""
        self._stages[stage.folder] = {"fingerprint": fingerprint, "finished": finished}
        with writing(self._file):
            self._output.mkdir(parents=True, exist_ok=True)
            partial = self._file.with_suffix(".partial")
            partial.write_text(json.dumps(self._stages, indent=2) + "\n", encoding="utf-8")
            partial.replace(self._file)

"""The log that the processes of a soak share: what the writer is about to do to which document, and what is done."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Fact", "Log", "append", "marker"]

_VOWELS, _CONSONANTS = "aiou", "bdfgkmprtvz"


@dataclass(frozen=True, slots=True)
class Fact:
    """What a line of the log says of a document: its marker ("" when it is gone), and when; `done` once committed."""

    number: int
    path: str
    marker: str
    at: float
    done: bool


@dataclass
class Log:
    """The log as one process has read it: the last word on every document, and on every marker."""

    file: Path
    read: int = 0
    rest: bytes = b""
    planned: dict[str, int] = field(default_factory=dict)  # the number of the last plan for a path
    facts: dict[str, Fact] = field(default_factory=dict)
    gone: dict[str, Fact] = field(default_factory=dict)  # markers, and what ended them
    news: list[Fact] = field(default_factory=list)
    commits: set[float] = field(default_factory=set)  # when they were announced
    last: int = 0

    def follow(self) -> None:
        """Read what was written since."""
        with self.file.open("rb") as stream:
            stream.seek(self.read)
            data = stream.read()
        self.read += len(data)
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            fact = Fact(*json.loads(line))
            self.last = max(self.last, fact.number)
            if not fact.done:
                self.planned[fact.path] = fact.number
                continue
            before = self.facts.get(fact.path)
            if before is not None and before.marker and before.marker != fact.marker:
                self.gone[before.marker] = fact
            self.facts[fact.path] = fact
            self.commits.add(fact.at)
            self.news.append(fact)

    def settled(self, fact: Fact) -> bool:
        """Whether nothing was planned for its document since."""
        return self.planned.get(fact.path, 0) <= fact.number

    def unsettled(self) -> list[str]:
        """Documents of which it is not known whether the last plan was carried out."""
        return [path for path, number in self.planned.items() if number > self._done(path)]

    def _done(self, path: str) -> int:
        fact = self.facts.get(path)
        return -1 if fact is None else fact.number


def marker(number: int) -> str:
    """A word that nothing else contains and no stemmer shortens."""
    letters = []
    for _ in range(6):
        number, consonant = divmod(number, len(_CONSONANTS))
        number, vowel = divmod(number, len(_VOWELS))
        letters.append(_CONSONANTS[consonant] + _VOWELS[vowel])
    return "".join(letters) + "x"


def append(file: Path, facts: Sequence[Fact]) -> None:
    """Write lines; readers see all of them or none."""
    lines = [json.dumps([fact.number, fact.path, fact.marker, fact.at, fact.done]) for fact in facts]
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, "".join(line + "\n" for line in lines).encode())
    finally:
        os.close(descriptor)

"""Draws short texts (passages, sentences, pseudo-queries) from training records, for distillation.

A record is one JSON line, `{"title", "text"}` or `{"query", "positive"}`, in a `.jsonl` or `.jsonl.gz` file. Sources
differ a thousandfold in size, so a file is drawn with probability proportional to the square root of its characters.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ragindex.errors import TrainingError
from ragindex.train.data.lines import DataLine, read_lines

__all__ = ["CropMixture", "Record", "draw_crops", "read_records"]

_NO_RECORD = "is not a record with title and text, or query and positive."
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(])")


@dataclass(frozen=True, slots=True)
class Record:
    """A training record: a short handle (title or query) and the text it belongs to."""

    handle: str
    text: str


@dataclass(frozen=True, slots=True)
class CropMixture:
    """Shares of the kinds of crop, and the lengths of passages in words.

    The density of lengths falls with their square, so that lengths from n to 2n get as many words in all as those from
    2n to 4n: a long text costs as much as many short ones, and has one vector to learn from, as each of them has.
    """

    passages: float = 0.45
    sentences: float = 0.25
    shortest: int = 8
    longest: int = 150


def read_records(path: Path) -> list[Record]:
    """All records of a file. Raises TrainingError naming the line that is not a record."""
    return [_record(line) for line in read_lines(path)]


def _record(line: DataLine) -> Record:
    try:
        row = json.loads(line.data)
        record = Record(row["query"], row["positive"]) if "query" in row else Record(row["title"], row["text"])
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{line.where} {_NO_RECORD}") from error
    if not (isinstance(record.handle, str) and isinstance(record.text, str)):
        raise TrainingError(f"{line.where} {_NO_RECORD}")
    return record


def draw_crops(files: Sequence[Path], *, seed: int, mixture: CropMixture | None = None) -> Iterator[str]:
    """An endless stream of crops; the same seed and files give the same stream."""
    mixture = mixture or CropMixture()
    sources = [read_records(path) for path in files]
    weights = [math.sqrt(sum(len(record.text) for record in records)) for records in sources]
    if not any(weights):
        raise TrainingError("There is no training text in the given files.")
    generator = random.Random(seed)  # noqa: S311 - sampling, not secrecy
    while True:
        record = generator.choice(generator.choices(sources, weights)[0])
        crop = _crop(record, mixture, generator)
        if len(crop) > 2:
            yield crop


def _crop(record: Record, mixture: CropMixture, generator: random.Random) -> str:
    kind = generator.random()
    if kind < mixture.passages:
        words = record.text.split()
        length = round(1 / generator.uniform(1 / mixture.longest, 1 / mixture.shortest))
        start = generator.randrange(max(1, len(words) - length + 1)) if generator.random() < 0.5 else 0
        passage = " ".join(words[start : start + length])
        return f"{record.handle}\n{passage}" if generator.random() < 0.3 else passage
    if kind < mixture.passages + mixture.sentences:
        return generator.choice(_SENTENCE_END.split(record.text[:4000])).strip()[:600]
    if generator.random() < 0.6:
        return record.handle.strip()[:300]
    words = record.text.split()
    length = generator.randint(3, 12)
    start = generator.randrange(max(1, len(words) - length + 1))
    return " ".join(words[start : start + length])

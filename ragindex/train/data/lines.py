"""Reads the lines of data files, packed or not, and says where each one stands."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ragindex.errors import TrainingError

__all__ = ["DataLine", "is_data_file", "read_lines", "stem"]


class DataLine(NamedTuple):
    """One line with its end; `where` is "file:line"."""

    where: str
    data: bytes


def read_lines(path: Path) -> Iterator[DataLine]:
    """The lines of a file, one in memory at a time; `.gz` is unpacked. Only line feeds end a line, as JSON may hold
    other separators.

    Raises TrainingError when the file cannot be read or its packing is damaged.
    """
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                yield DataLine(f"{path}:{number}", line)
    except (OSError, EOFError, zlib.error) as error:
        raise TrainingError(f"{path} cannot be read after line {number}: {error}.") from error


def is_data_file(path: Path) -> bool:
    """Whether a file is JSON Lines by its name."""
    return path.name.endswith((".jsonl", ".jsonl.gz")) and path.is_file()


def stem(path: Path) -> str:
    """The name of a data file without its endings."""
    return path.name.removesuffix(".gz").removesuffix(".jsonl")

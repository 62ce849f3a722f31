"""What the benchmarks share: interleaved timing, medians, Markdown tables, stores to try things on."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

__all__ = ["CLOCKS", "Times", "command_line", "fresh", "interleaved", "milliseconds", "peak", "run", "table", "versus"]

# By the wall, or by the processor time of this process: on a busy machine, what it would take alone.
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}

Given = ParamSpec("Given")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Times:
    """Wall times of one thing, in seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        """The time that 95 % stay below, nearest rank."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]


def interleaved(
    tasks: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Times]:
    """Run every task once per round, so that a change of load on the machine meets all of them alike.

    The first `warm_up` rounds are not counted.
    """
    found: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(warm_up + rounds):
        for name, task in tasks.items():
            began = clock()
            task()
            if number >= warm_up:
                found[name].append(clock() - began)
    return {name: Times(tuple(seconds)) for name, seconds in found.items()}


def run(command: Sequence[str], *, scratch: Path, folder: Path | None = None) -> str:
    """Run a command to its end in `folder` and return its stderr. Raises CalledProcessError when it fails.

    Byte code is kept in `scratch`: an installed package has it, a checkout may not, and then compiling would be timed.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(scratch / "byte-code")
    result = subprocess.run(list(command), cwd=folder, env=environment, check=True, capture_output=True)
    return result.stderr.decode()


def fresh(work: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> Result:
    """What the work returns in a process of its own, which begins with nothing in memory."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *given, **named).result()


def peak() -> int:
    """The most memory in bytes that this process has held at once, mapped files with it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def command_line(*arguments: str) -> list[str]:
    """The `ragindex` command of this interpreter with arguments."""
    return [sys.executable, "-m", "ragindex", *arguments]


def versus(times: Mapping[str, Times], baseline: str) -> list[Sequence[str]]:
    """Rows for `table`: name, median, 95 %, and the median as a multiple of the baseline's."""
    base = times[baseline].median
    return [
        (name, milliseconds(item.median), milliseconds(item.p95), f"{item.median / base:.2f}")
        for name, item in times.items()
    ]


def milliseconds(seconds: float) -> str:
    """A time for a table, in milliseconds."""
    return f"{1000 * seconds:,.2f}" if seconds < 0.1 else f"{1000 * seconds:,.0f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cells[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)),
        ]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(header), f"|{rule}|", *map(line, rows)])

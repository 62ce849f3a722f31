"""How long a query takes from an empty process: `ragindex query` against the imports that it could have made.

    python benchmarks/cold.py [--rounds 7]

Prints medians of interleaved runs as multiples of `import numpy, faiss`, the heavy packages that a query loads, and
its slowest imports. Asserts nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

from _common import command_line, interleaved, milliseconds, run, table, versus

from ragindex.measure import MODES
from ragindex.resources import resource

_BASELINE = "import numpy, faiss"
_HEAVY = ("torch", "transformers", "faiss", "tantivy", "tokenizers", "numpy", "sqlalchemy", "alembic", "pathspec",
          "selectolax", "pypdfium2", "watchfiles", "tqdm", "multiprocessing", "asyncio")  # fmt: skip
_QUESTION = ("how", "do", "I", "claim", "travel", "expenses")
# Runs the command line in this process and says what it loaded.
_PROBE = f"""
import sys
from ragindex.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("loaded:", *(name for name in {_HEAVY!r} if name in sys.modules), file=sys.stderr)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds; the medians are printed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragindex-cold-") as folder:
        report(Path(folder), options.rounds)


def report(scratch: Path, rounds: int) -> None:
    store = scratch / "store"
    corpus = resource("sample_corpora") / "handbook" / "corpus"
    run(command_line("index", str(corpus), "--store", str(store)), scratch=scratch)
    asked = {mode: command_line("query", *_QUESTION, "--store", str(store), "--mode", mode) for mode in MODES}
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        _BASELINE: [sys.executable, "-c", _BASELINE],
        "import torch": [sys.executable, "-c", "import torch"],
        "ragindex --version": command_line("--version"),
        **{f"ragindex query, {mode}": command for mode, command in asked.items()},
    }
    tasks = {name: partial(run, command, scratch=scratch) for name, command in commands.items()}
    times = interleaved(tasks, rounds=rounds)
    print(table(("process", "median ms", "95 % ms", f"× {_BASELINE}"), versus(times, _BASELINE)))
    for mode, command in asked.items():
        probe = [sys.executable, "-c", _PROBE, *command[3:]]
        present = run(probe, scratch=scratch).rpartition("loaded:")[2].split()
        absent = [name for name in _HEAVY if name not in present]
        print(f"\n{mode} query loads {', '.join(present)}; does not load {', '.join(absent)}")
    trace = run([sys.executable, "-X", "importtime", *asked["hybrid"][1:]], scratch=scratch)
    print()
    print(table(("slowest imports of a hybrid query", "own ms"), _slowest(trace)))


def _slowest(trace: str, *, count: int = 15) -> list[tuple[str, str]]:
    """Modules by the time they took themselves, from what `python -X importtime` wrote."""
    found: list[tuple[int, str]] = []
    for line in trace.splitlines():
        cells = line.removeprefix("import time:").split("|")
        if len(cells) == 3 and cells[0].strip().isdigit():
            found.append((int(cells[0]), cells[2].strip()))
    rows = [(name, milliseconds(own / 1e6)) for own, name in sorted(found, reverse=True)[:count]]
    total = milliseconds(sum(own for own, _ in found) / 1e6)
    return [*rows, (f"all {len(found)} modules", total)]


if __name__ == "__main__":
    main()

"""How long a second run over unchanged files takes, against `git status` of the same files.

    python benchmarks/incremental.py [--files 10000] [--rounds 7]

Makes a git repository of small text files, indexes it once and then runs each of these alternately: `git status
--porcelain`, a second `Index.add` in this process, and the whole `ragindex index` command. Prints medians as multiples
of git's; asserts nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from _common import command_line, interleaved, run, table, versus

from ragindex import Index

_BASELINE = "git status --porcelain"
_WORDS = "rotate the signing key before it expires and restart every service that holds a copy of it"
_FOLDER_FILES = 50
_OLD = 60  # seconds; git and ragindex both read files again that changed a moment ago


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds; the medians are printed")
    parser.add_argument("--encoder", default="bundled", help="encoder of the first run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragindex-incremental-") as folder:
        repository = Path(folder) / "repository"
        make_repository(repository, options.files)
        measure(repository, Path(folder), options.encoder, options.rounds)


def make_repository(repository: Path, files: int) -> None:
    """Commit small Markdown files, fifty in a folder."""
    generator = random.Random(0)
    before = time.time() - _OLD
    for number in range(files):
        file = (
            repository / f"part-{number // _FOLDER_FILES // 10:03d}" / f"{number // _FOLDER_FILES:04d}" / f"{number}.md"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"# Note {number}\n\n{' '.join(generator.choices(_WORDS.split(), k=30))}\n", encoding="utf-8")
        os.utime(file, (before, before))
    (repository / ".gitignore").write_text(".ragindex/\n*.log\nbuild/\n", encoding="utf-8")
    for command in ("init --quiet", "add .", "-c user.name=b -c user.email=b@example.org commit --quiet -m files"):
        subprocess.run(["git", *command.split()], cwd=repository, check=True)


def measure(repository: Path, scratch: Path, encoder: str, rounds: int) -> None:
    store = repository / ".ragindex"
    with Index.open(store, encoder=encoder) as index:
        first = index.add(repository)
        print(f"first run: {first.added:,} files, {first.chunks:,} chunks, {first.seconds:.1f} s\n")
        again = index.add(repository)
        assert again.unchanged == first.added, again
        status = ["git", "status", "--porcelain"]
        tasks: dict[str, Callable[[], object]] = {
            _BASELINE: partial(run, status, scratch=scratch, folder=repository),
            "Index.add, same process": partial(index.add, repository),
            "ragindex index, new process": partial(run, command_line("index", "."), scratch=scratch, folder=repository),
            "ragindex --version": partial(run, command_line("--version"), scratch=scratch, folder=repository),
        }
        times = interleaved(tasks, rounds=rounds)
    print(table((f"{first.added:,} unchanged files", "median ms", "95 % ms", "× git status"), versus(times, _BASELINE)))


if __name__ == "__main__":
    main()

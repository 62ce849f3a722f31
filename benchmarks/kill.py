"""Kills index runs at random moments and checks the store after each: `python benchmarks/kill.py [--runs 50]`.

A child process indexes a folder that changes between runs (edits, additions, renames, deletions) and is killed with
SIGKILL after a random part of the time that an undisturbed run takes. After every kill the store must verify; at the
end one undisturbed run must bring it to the same documents and, with snapshots made again, the same hits as a store
made from scratch.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ragindex import Index

VOCABULARY = """
    key backup kettle leave config session mountain receipt vaccine index query passage snapshot service signing manager
    sugar oxygen travel expense document virus title question answer restore rotate water light read write
"""
WORDS = VOCABULARY.split()
QUERIES = tuple(f"{one} {other}" for one, other in zip(WORDS[::2], WORDS[1::2], strict=False))

# Reports when the work begins, so that delays count from there and not from the imports.
CHILD = """
import sys
from ragindex import Index

class Began:
    def start(self, files): print("began", flush=True)
    def advance(self, *, files=0, chunks=0, tokens=0): pass
    def finish(self): pass

with Index.open(sys.argv[1] + "/.ragindex", encoder=sys.argv[2]) as index:
    index.add(sys.argv[1], progress=Began())
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: seconds from its beginning to its end, and whether the kill came before that."""

    seconds: float
    killed: bool


def main() -> int:
    arguments = _arguments()
    generator = random.Random(arguments.seed)
    problems: list[str] = []
    kills = survived = 0
    with tempfile.TemporaryDirectory(prefix="ragindex-kill-") as scratch:
        folder = Path(scratch) / "home"
        folder.mkdir()
        grow(folder, generator, arguments.files)
        whole = rebuilt(folder, arguments.encoder)
        print(f"An undisturbed run over {arguments.files} files takes {whole.seconds:.1f} s.")
        for number in range(1, arguments.runs + 1):
            outcome = run(folder, arguments.encoder, kill_after=generator.uniform(0, whole.seconds * 0.9))
            kills += outcome.killed
            with Index.open(folder / ".ragindex", create=False) as index:
                found = index.verify()
                index.search("rotate the signing key")
            survived += found.ok
            problems += [f"run {number}: {problem}" for problem in found.problems]
            state = "killed" if outcome.killed else "done"
            print(f"{number:3}  {state:6} after {outcome.seconds:5.2f} s  {found.documents:5} documents  ok={found.ok}")
            change(folder, generator, arguments.files // 10)
        run(folder, arguments.encoder, kill_after=None)
        problems += differences(folder, arguments.encoder)
    for problem in problems:
        print(problem)
    print(f"{arguments.runs} runs, {kills} killed at work, {survived} sound afterwards, {len(problems)} problems.")
    return 1 if problems else 0


def run(folder: Path, encoder: str, *, kill_after: float | None) -> Outcome:
    """Index `folder` in a child process."""
    command = [sys.executable, "-c", CHILD, str(folder), encoder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() != "began\n":
            raise SystemExit("The child process did not begin; its error is above.")
        began = time.monotonic()
        try:
            process.wait(timeout=kill_after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
    return Outcome(time.monotonic() - began, process.returncode == -signal.SIGKILL)


def rebuilt(folder: Path, encoder: str) -> Outcome:
    """Index a copy of `folder` from scratch, beside it."""
    copy = folder.with_name("whole")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".ragindex"))
    return run(copy, encoder, kill_after=None)


def differences(folder: Path, encoder: str) -> list[str]:
    """What distinguishes the store of `folder` from one made from scratch."""
    rebuilt(folder, encoder)
    with Index.open(folder / ".ragindex") as one, Index.open(folder.with_name("whole") / ".ragindex") as other:
        problems = list(one.verify().problems)
        # BM25 counts deleted chunks until the lexical index merges its segments, which is history and no damage.
        one.repair()
        other.repair()
        mine, fresh = ({row["path"]: row["sha256"] for row in index.documents()} for index in (one, other))
        if mine != fresh:
            problems.append(f"{len(mine.items() ^ fresh.items())} documents differ from an undisturbed run.")
        unlike = [query for query in QUERIES if answers(one, query) != answers(other, query)]
        problems += [f"The hits of {query!r} differ from an undisturbed run." for query in unlike]
    return problems


def answers(index: Index, query: str) -> list[tuple[str, int, str, float]]:
    """The hits of a query, without ids that depend on the order of arrival."""
    return sorted((hit.path, hit.char_start, hit.text, round(hit.score, 3)) for hit in index.search(query, k=10))


def grow(folder: Path, generator: random.Random, count: int) -> None:
    """Add text files that differ from each other."""
    for _ in range(count):
        name = f"{generator.randrange(10**12):012}"
        lines = (" ".join(generator.choices(WORDS, k=12)) for _ in range(generator.randrange(1, 60)))
        (folder / f"{name}.txt").write_text(f"Note {name}\n" + "\n".join(lines) + "\n", encoding="utf-8")


def change(folder: Path, generator: random.Random, count: int) -> None:
    """Edit, rename, delete and add `count` files each, so that every run has something of each kind to do."""
    files = generator.sample(sorted(folder.glob("*.txt")), 3 * count)
    for file in files[:count]:
        with file.open("a", encoding="utf-8") as stream:
            stream.write(f"Edited {generator.randrange(10**6)}\n")
    for file in files[count : 2 * count]:
        file.rename(file.with_name(f"{generator.randrange(10**12):012}.txt"))
    for file in files[2 * count :]:
        file.unlink()
    grow(folder, generator, count)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50, help="how many runs are killed [50]")
    parser.add_argument("--files", type=int, default=1000, help="files at the beginning [1000]")
    parser.add_argument("--encoder", default="bundled", help="name or directory [bundled]")
    parser.add_argument("--seed", type=int, default=0, help="of the changes and the delays [0]")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

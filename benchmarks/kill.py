"""Kills index runs at random moments and checks the store after each: `python benchmarks/kill.py [--runs 200]`.

A child process indexes a folder that changes between runs (edits, additions, renames, deletions) and is killed with
SIGKILL at a random moment: mostly at work, now and then while it starts. It notes every commit as soon as that has
returned. After every kill the store must verify, hold exactly what was noted last (and, of the commit that was under
way, all or nothing), and answer as a copy of its catalogue does that has no snapshots. At the end one undisturbed run
must bring it to the same documents and, with snapshots made again, the same hits as a store made from scratch.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from ragindex import Index
from ragindex.errors import StoreError
from ragindex.types import Mode

VOCABULARY = """
    key backup kettle leave config session mountain receipt vaccine index query passage snapshot service signing manager
    sugar oxygen travel expense document virus title question answer restore rotate water light read write
"""
WORDS = VOCABULARY.split()
QUERIES = tuple(f"{one} {other}" for one, other in zip(WORDS[::2], WORDS[1::2], strict=False))
EARLY = 0.15  # share of the kills that come from the start of the process on, the others from the start of the work

# Tells when the work begins, so that delays count from there and not from the imports; and notes what each commit is
# about to do (a plan) and that it has returned (done).
CHILD = """
import json, os, sys
from ragindex import Index
from ragindex.config import Settings
from ragindex.ingest import run
from ragindex.store.catalog import Catalog

folder, encoder, tokens, chunks = sys.argv[1:]
run._COMMIT_CHUNKS = int(chunks)
commit = Catalog.commit

def noted(catalog, collection, batch):
    gone = [*batch.removes, *(move.old for move in batch.moves), *(failure.path for failure in batch.failures)]
    there = {move.new: move.state.sha256 for move in batch.moves}
    there |= {write.document.path: write.state.sha256 for write in batch.writes}
    entry = {path: None for path in gone} | there
    note({"planned": entry})
    generation = commit(catalog, collection, batch)
    note({"done": entry})
    return generation

def note(entry):
    notes = os.open(folder + ".notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(notes, json.dumps(entry).encode() + b"\\n")
    os.close(notes)

class Began:
    def start(self, files): print("began", flush=True)
    def advance(self, *, files=0, chunks=0, tokens=0): pass
    def finish(self): pass

Catalog.commit = noted
settings = Settings(chunk_tokens=int(tokens), overlap=int(tokens) // 8) if int(tokens) else Settings()
with Index.open(folder + "/.ragindex", encoder=encoder, settings=settings) as index:
    index.add(folder, progress=Began())
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run: seconds from its beginning to its end, and whether the kill came before that."""

    seconds: float
    killed: bool


@dataclass(frozen=True, slots=True)
class Expected:
    """What the notes of all runs say: the hash of each document that must be there, and what the commit that was under
    way would have made of it (None: gone).
    """

    documents: dict[str, str] = field(default_factory=dict)
    pending: dict[str, str | None] = field(default_factory=dict)


def main() -> int:
    arguments = _arguments()
    generator = random.Random(arguments.seed)
    problems: list[str] = []
    kills = early = survived = under_way = 0
    with tempfile.TemporaryDirectory(prefix="ragindex-kill-") as scratch:
        folder = Path(scratch) / "home"
        folder.mkdir()
        grow(folder, generator, arguments.files)
        usual = rebuilt(folder, arguments).seconds
        print(f"An undisturbed run over {arguments.files} files takes {usual:.1f} s.")
        for number in range(1, arguments.runs + 1):
            starting = generator.random() < EARLY
            outcome = run(folder, arguments, kill_after=generator.uniform(0, 0.95 * usual), starting=starting)
            # Later runs have less to do than the first one, and more when those before them were killed.
            usual = 1.1 * usual if outcome.killed else outcome.seconds
            kills, early = kills + outcome.killed, early + (outcome.killed and starting)
            expected = noted(folder)
            under_way += bool(expected.pending)
            found = examined(folder, expected)
            survived += not found
            problems += [f"run {number}: {problem}" for problem in found]
            state = "killed" if outcome.killed else "done"
            print(
                f"{number:3}  {state:6} after {outcome.seconds:5.2f} s  {len(expected.documents):5} documents noted  "
                f"{'sound' if not found else found[0]}",
                flush=True,
            )
            change(folder, generator, arguments.files // 10)
        run(folder, arguments, kill_after=None)
        problems += examined(folder, noted(folder))
        problems += differences(folder, arguments)
    for problem in problems:
        print(problem)
    print(
        f"{arguments.runs} runs, {kills} killed ({early} while starting, {under_way} within a commit), "
        f"{survived} sound afterwards, {len(problems)} problems."
    )
    return 1 if problems else 0


def run(folder: Path, arguments: argparse.Namespace, *, kill_after: float | None, starting: bool = False) -> Outcome:
    """Index `folder` in a child process. starting: the delay counts from the start of the process."""
    command = [sys.executable, "-c", CHILD, str(folder), arguments.encoder, str(arguments.tokens)]
    command += [str(arguments.commit)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if not starting and process.stdout.readline() != "began\n":
            raise SystemExit("The child process did not begin; its error is above.")
        began = time.monotonic()
        try:
            process.wait(timeout=kill_after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"The child process failed with {process.returncode}; its error is above.")
    return Outcome(time.monotonic() - began, process.returncode == -signal.SIGKILL)


def noted(folder: Path) -> Expected:
    """What the notes beside the folder say."""
    notes = _notes(folder)
    documents: dict[str, str] = {}
    pending: dict[str, str | None] = {}
    for line in notes.read_bytes().splitlines() if notes.exists() else []:
        entry = json.loads(line)
        pending = entry.get("planned", {})
        for path, digest in entry.get("done", {}).items():
            documents.pop(path, None)
            if digest is not None:
                documents[path] = digest
    return Expected(documents, pending)


def _notes(folder: Path) -> Path:
    return folder.with_name(folder.name + ".notes")


def examined(folder: Path, expected: Expected) -> list[str]:
    """What is wrong with the store after a kill."""
    try:
        with Index.open(folder / ".ragindex", create=False) as index:
            problems = list(index.verify().problems)
            held = {row["path"]: row["sha256"] for row in index.documents()}
            if held == {path: digest for path, digest in (expected.documents | expected.pending).items() if digest}:
                with _notes(folder).open("a", encoding="utf-8") as notes:  # it was committed before it could say so
                    notes.write(json.dumps({"done": expected.pending}) + "\n")
            elif held != expected.documents:
                wrong = held.items() ^ expected.documents.items()
                problems.append(f"{len(wrong)} documents are lost, old or strange, {min(wrong)} among them.")
            return problems + unlike_its_catalogue(folder, index)
    except StoreError as error:
        return [] if not expected.documents and "There is no store" in str(error) else [str(error)]


def unlike_its_catalogue(folder: Path, index: Index) -> list[str]:
    """How the answers differ from those of the catalogue alone."""
    if index.status()["encoder"] is None:
        return []
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        bare = Path(scratch) / ".ragindex"
        shutil.copytree(folder / ".ragindex", bare, ignore=shutil.ignore_patterns("snapshots", "*.lock"))
        with Index.open(bare, create=False) as other:
            problems = [
                f"Dense hits of {query!r} differ from the catalogue's."
                for query in QUERIES
                if answers(index, query, "dense") != answers(other, query, "dense")
            ]
            # BM25 counts deleted chunks until segments are merged, which is history: the matches are compared.
            words = (query.split()[0] for query in QUERIES)
            problems += [
                f"What matches {word!r} differs from the catalogue."
                for word in words
                if matches(index, word) != matches(other, word)
            ]
    return problems


def matches(index: Index, word: str) -> set[str]:
    """Every document that holds a word."""
    return set(index.rank_documents(word, k=1_000_000, mode="lexical"))


def rebuilt(folder: Path, arguments: argparse.Namespace) -> Outcome:
    """Index a copy of `folder` from scratch, beside it."""
    copy = folder.with_name("whole")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".ragindex"))
    return run(copy, arguments, kill_after=None)


def differences(folder: Path, arguments: argparse.Namespace) -> list[str]:
    """What distinguishes the store of `folder` from one made from scratch."""
    rebuilt(folder, arguments)
    with Index.open(folder / ".ragindex") as one, Index.open(folder.with_name("whole") / ".ragindex") as other:
        problems = list(one.verify().problems)
        one.repair()
        other.repair()
        mine, fresh = ({row["path"]: row["sha256"] for row in index.documents()} for index in (one, other))
        if mine != fresh:
            problems.append(f"{len(mine.items() ^ fresh.items())} documents differ from an undisturbed run.")
        unlike = [query for query in QUERIES if answers(one, query) != answers(other, query)]
        problems += [f"The hits of {query!r} differ from an undisturbed run." for query in unlike]
    return problems


def answers(index: Index, query: str, mode: Mode = "hybrid") -> list[tuple[str, int, str, float]]:
    """The hits of a query, without ids that depend on the order of arrival."""
    return sorted((hit.path, hit.char_start, hit.text, round(hit.score, 3)) for hit in index.search(query, mode=mode))


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
    parser.add_argument("--runs", type=int, default=200, help="how many runs are killed [200]")
    parser.add_argument("--files", type=int, default=1000, help="files at the beginning [1000]")
    parser.add_argument("--encoder", default="bundled", help="name or directory [bundled]")
    parser.add_argument("--commit", type=int, default=64, help="chunks of a commit, a run has 512 [64]")
    parser.add_argument("--tokens", type=int, default=0, help="size of chunks [that of new stores]")
    parser.add_argument("--seed", type=int, default=0, help="of the changes and the delays [0]")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""A run that is killed at any moment loses nothing that was committed and falsifies no answer."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from index_kit import SMALL, answers, open_index, write
from tiny import SENTENCES

from ragindex import Index

KILLS = 6
FILES = 300

# Reports when the work begins, so that the delays count from there and not from the imports.
WORK = """
import sys
from ragindex import Index
from ragindex.config import Settings

class Began:
    def start(self, files): print("began", flush=True)
    def advance(self, *, files=0, chunks=0, tokens=0): pass
    def finish(self): pass

settings = Settings(chunk_tokens=64, overlap=8)
with Index.open(sys.argv[1] + "/.ragindex", encoder=sys.argv[2], settings=settings) as index:
    index.add(sys.argv[1], progress=Began())
"""


def run(folder: Path, encoder: Path, *, kill_after: float | None) -> int:
    """Index `folder` in a process of its own; returns its exit code."""
    command = [sys.executable, "-c", WORK, str(folder), str(encoder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "began\n", process.communicate()[1]
    if kill_after is not None:
        time.sleep(kill_after)
        process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode


def change(folder: Path, generator: random.Random) -> None:
    """Edit, add, rename and delete some files, so that every run has something of each kind to do."""
    files = sorted(folder.glob("*.txt"))
    edited, renamed, deleted = (generator.sample(part, 20) for part in (files[::3], files[1::3], files[2::3]))
    for file in edited:
        write(folder, {file.name: f"{file.read_text()}Edited {generator.randrange(10**6)}.\n"}, age=generator.random())
    for file in renamed:
        file.rename(file.with_name(f"r{generator.randrange(10**9)}.txt"))
    for file in deleted:
        file.unlink()
    for _ in range(40):
        number = generator.randrange(10**9)
        write(folder, {f"n{number}.txt": f"{SENTENCES[number % 10]} Note {number}.\n"})


def test_killed_runs_converge(tmp_path, tiny_encoder_dir):
    generator = random.Random(20)
    folder = tmp_path / "home"
    write(folder, {f"{number:04}.txt": f"{SENTENCES[number % 10]} Note {number}.\n" for number in range(FILES)})
    killed = 0
    for _ in range(KILLS):
        killed += run(folder, tiny_encoder_dir, kill_after=generator.uniform(0.0, 0.8)) == -signal.SIGKILL
        with Index.open(folder / ".ragindex", create=False) as index:
            assert index.verify().problems == ()
            for hit in index.search("rotate the signing key", k=20):
                assert hit.text.strip()
        change(folder, generator)
    assert killed
    assert run(folder, tiny_encoder_dir, kill_after=None) == 0
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole, ignore=shutil.ignore_patterns(".ragindex"))
    with open_index(folder, tiny_encoder_dir) as index, open_index(whole, tiny_encoder_dir, settings=SMALL) as fresh:
        assert fresh.add(whole).added == len(index.documents())
        assert index.verify().problems == ()
        assert {row["path"]: row["sha256"] for row in index.documents()} == {
            row["path"]: row["sha256"] for row in fresh.documents()
        }
        assert answers(index) == answers(fresh)

"""The pages of docs/ tell the truth: their console and Python blocks are run in order, in a folder of their own.

A console block shows commands after `$ ` and what they print; `…` stands for any text. Pages with a test of their own
are left out here.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from ragindex import Encoder
from ragindex.resources import resource

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "adapt",
    "filters",
    "upgrading",
    "indexing",
    "querying",
    "encoders",
    "how-it-works",
    "training",
    "storage",
    "durability",
)

# Lengths of runs that take minutes, and sizes, as a test can afford them.
_SHORTER = (
    (r"--(minutes|steps) \d+", "--steps 2"),
    (r"--size \w+", "--size nano --vocabulary 400 --block 256 --tokens 512"),
    (r"(train mntp .*)", r"\1 --tokens 512"),
    (r"(train simcse .*)", r"\1 --batch 16"),
    (r"(train contrastive .*)", r"\1 --batch 8"),
    (r"(train adapt .*)", r"\1 --minutes 0.02"),
)


class Step(NamedTuple):
    """A command or a piece of Python, and what it shall print (None: anything)."""

    language: str
    code: str
    expected: str | None


def steps(page: str) -> list[Step]:
    """What a page asks its reader to run, in order."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    found = []
    for language, block in re.findall(r"^```(console|python|sh)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if language == "python":
            found.append(Step("python", block, None))
        elif language == "sh":
            found += [Step("sh", line, None) for line in block.splitlines() if line]
        else:
            for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
                found.append(Step("console", command, output))
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with what the pages speak of: handbook/, notes/, pairs.jsonl and judged/."""
    sample = resource("sample_corpora") / "handbook"
    shutil.copytree(sample / "corpus", tmp_path / "handbook")
    shutil.copytree(sample / "corpus" / "people", tmp_path / "notes")
    shutil.copytree(sample, tmp_path / "judged")
    pairs = [
        {"query": f"What is rule {number}?", "positive": f"Rule {number} says to keep {number} copies of the key."}
        for number in range(60)
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)) + "\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page: str, place: Path) -> None:
    todo = steps(page)
    assert todo
    for step in todo:
        done = run(step, place)
        if step.language == "console":
            assert step.expected is not None
            assert matches(done.stdout, step.expected), f"$ {step.code}\n{done.stdout}"
            assert "exit $?" in step.code or done.returncode == 0, f"$ {step.code}\n{done.stdout}"
        else:
            assert done.returncode == 0, f"{step.code}\n{done.stdout}"


def test_what_would_be_fetched_is_asked_for_in_the_right_words() -> None:
    """The page about encoders loads models from the hub, which no test does."""
    (step,) = steps("encoder")
    (call,) = [node for node in ast.walk(ast.parse(step.code)) if isinstance(node, ast.Call)]
    assert ast.unparse(call.func) == "Encoder.load"
    assert {keyword.arg for keyword in call.keywords} <= set(inspect.signature(Encoder.load).parameters)


def test_every_page_is_listed() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, page.name


def test_links_lead_somewhere() -> None:
    for page in (*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize(
    ("printed", "pattern", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\n…\n", True),
        ("a\n", "a\n…\n", True),
        ("a\nb\n", "a\n", False),
        ("x 12 y\n", "x … y\n", True),
        ("x 12 z\n", "x … y\n", False),
    ],
)
def test_the_comparison_is_strict(printed: str, pattern: str, same: bool) -> None:
    assert matches(printed, pattern) is same


def run(step: Step, place: Path) -> subprocess.CompletedProcess[str]:
    """Run it as a user would, with the `ragindex` of this Python; no network and no store from outside."""
    code = step.code
    if step.language == "sh":
        for pattern, shorter in _SHORTER:
            code = re.sub(pattern, shorter, code)
    here = Path(sys.executable).parent
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAGINDEX_")}
    environment |= {"PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    environment |= {"COLUMNS": "80"}
    command = [sys.executable, "-c", code] if step.language == "python" else ["bash", "-c", code]
    return subprocess.run(  # a reader sees both outputs
        command,
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )


def matches(printed: str, expected: str) -> bool:
    """Whether a text fits; `…` is any text, also none, and a line of it any lines."""
    lines = [line.rstrip() for line in expected.strip("\n").splitlines()]
    pattern = "\n".join("\0" if line == "…" else ".*?".join(map(re.escape, line.split("…"))) for line in lines)
    pattern = pattern.replace("\n\0", "(?:\n.*)*?").replace("\0\n", "(?:.*\n)*?").replace("\0", "[\\s\\S]*")
    text = "\n".join(line.rstrip() for line in printed.strip("\n").splitlines())
    return re.fullmatch(pattern, text) is not None

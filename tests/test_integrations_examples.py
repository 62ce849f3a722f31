"""The examples run as they stand, and the code in docs/integrations.md does too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
QUESTION, ANSWER, SOURCE = "How long does it take to restore a snapshot?", "about ten minutes", "backups.md"


def run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HAYSTACK_TELEMETRY_ENABLED": "False", "HOME": str(folder)}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda file: file.stem)
def test_example_answers_with_a_citation(example: Path, tmp_path: Path) -> None:
    done = run(str(example), QUESTION, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for expected in (ANSWER, SOURCE):
        assert expected in done.stdout.replace("\n", " ")
    assert list(tmp_path.glob("**/catalog.sqlite")) == []


def blocks() -> list[str]:
    text = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("code", blocks(), ids=lambda code: code.splitlines()[0])
def test_code_of_the_guide_runs(code: str, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for file in (ROOT / "examples" / "documents").glob("*.md"):
        (tmp_path / "docs" / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "block.py").write_text(code, encoding="utf-8")
    done = run(str(tmp_path / "block.py"), folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_there_is_an_example_for_each_framework() -> None:
    assert {file.stem.partition("_")[0] for file in EXAMPLES} == {"haystack", "langchain", "llama"}

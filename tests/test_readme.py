"""The README tells the truth: its Python runs, its commands exist, its make targets are there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from ragindex.cli import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One after the other, as a reader would run them."""
    (tmp_path / "docs" / "ops").mkdir(parents=True)
    (tmp_path / "docs" / "ops" / "keys.md").write_text("# Keys\n\nRotate a key every ninety days.\n")
    monkeypatch.chdir(tmp_path)
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), {})
        printed = capsys.readouterr().out
        assert "print" not in code or "ops/keys.md" in printed


def test_there_is_python_to_run() -> None:
    assert len(blocks("python")) >= 2


def test_commands_and_options_exist() -> None:
    mentioned = re.findall(
        r"^(?:\$ )?ragindex ([a-z][a-z| -]*?)(?= [A-Z./\"'#-]|\s*#|\s*$|\s{2,})(.*)$", README, re.MULTILINE
    )
    assert len(mentioned) > 8
    context = click.Context(main)
    for names, rest in mentioned:
        for name in names.split("|"):
            command = main.get_command(context, name.split()[0])
            assert command is not None, f"`ragindex {name}` does not exist"
            known = {option for parameter in command.params for option in parameter.opts}
            for option in re.findall(r"(?<!\S)--[a-z-]+", rest.split("#")[0]):
                assert option in known | {"--help"}, f"`ragindex {name}` has no {option}"


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([a-z]+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)

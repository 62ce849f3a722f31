"""docs/mcp.md tells the truth: its Python runs, its configurations are read by the command, its tools exist."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from ragindex.cli import main
from ragindex.mcp_server.limits import MAX_ANSWER, MAX_HITS, MAX_PAGE, RUNNING
from ragindex.mcp_server.tools import TOOLS

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "mcp.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def servers(value: Any) -> list[dict[str, Any]]:
    """The entries of a client's configuration, whatever it calls the table that holds them."""
    (table,) = value.values()
    return list(table.values())


CONFIGURED = [entry for block in blocks("json") for entry in servers(json.loads(block))]
CONFIGURED += [entry for block in blocks("toml") for entry in servers(tomllib.loads(block))]


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert blocks("python")
    (tmp_path / "docs" / "ops").mkdir(parents=True)
    (tmp_path / "docs" / "ops" / "keys.md").write_text("# Keys\n\nRotate a key every ninety days.\n")
    monkeypatch.chdir(tmp_path)
    for code in blocks("python"):
        exec(compile(code, "mcp.md", "exec"), {})
    assert "ops/keys.md:1-3 [] <passage" in capsys.readouterr().out


def test_there_are_configurations() -> None:
    assert len([entry for entry in CONFIGURED if "command" in entry]) >= 4
    assert next(entry["url"] for entry in CONFIGURED if "url" in entry) == "http://127.0.0.1:8421/mcp"


@pytest.mark.parametrize("entry", [entry for entry in CONFIGURED if "command" in entry], ids=str)
def test_what_clients_start_is_understood(entry: dict[str, Any], tmp_path: Path) -> None:
    """The store is missing, which is the only thing that may be wrong."""
    arguments = [argument.replace("${workspaceFolder}", str(tmp_path)) for argument in entry["args"]]
    assert entry["command"] == "ragindex"
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "There is no store in" in done.stderr


def test_shell_commands_have_only_options_that_exist() -> None:
    lines = re.findall(r"^(?:\$ |claude mcp add notes -- )?ragindex (mcp .*)$", PAGE, re.MULTILINE)
    commands = [shlex.split(line) for line in lines]
    assert len(commands) >= 3
    command = main.get_command(click.Context(main), "mcp")
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    for words in commands:
        assert {word for word in words if word.startswith("--")} <= known
    assert set(re.findall(r"`(--(?:link|allow|host|http|token|collection)[a-z-]*)", PAGE)) <= known


def test_tools_arguments_and_limits_are_the_real_ones() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE, re.MULTILINE))
    assert list(rows) == list(TOOLS)
    for name, arguments in rows.items():
        assert re.findall(r"`(\w+)`", arguments) == list(TOOLS[name].takes["properties"])
        for argument, default in re.findall(r"`(\w+)` \((\d+)\)", arguments):
            assert TOOLS[name].takes["properties"][argument]["default"] == int(default)
    text = " ".join(PAGE.split())
    assert (
        f"at most {MAX_ANSWER:,} characters of text (`fetch`: {MAX_PAGE:,}), a search at most {MAX_HITS} passages"
        in text
    )
    assert RUNNING == 4
    assert "four are worked on at a time" in text

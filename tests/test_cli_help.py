"""Help pages, the version, mistyped commands, and what the fast path imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

import ragindex
from ragindex.cli import main

HEAVY = (
    "torch",
    "transformers",
    "faiss",
    "tantivy",
    "alembic",
    "sqlalchemy",
    "tokenizers",
    "numpy",
    "tqdm",
    "watchfiles",
)
COMMANDS = (
    *("demo", "index", "remove", "query", "why-not", "serve", "mcp", "status", "list", "failures", "verify"),
    *("repair", "compact", "db", "eval", "bench", "train", "encoder"),
)


def walk(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None, child
            yield from walk(found, f"{name} {child}")


ALL = dict(walk(main, "ragindex"))


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_command_and_option_has_help(name: str) -> None:
    command = ALL[name]
    assert command.help, f"{name} has no help text"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help text"
    result = CliRunner().invoke(main, [*name.split()[1:], "--help"], terminal_width=80)
    assert result.exit_code == 0
    assert all(len(line) <= 80 for line in result.output.splitlines())


@pytest.mark.parametrize("name", sorted(set(ALL) - {"ragindex"}))
def test_short_help_is_not_cut(name: str) -> None:
    assert not ALL[name].get_short_help_str(limit=66).endswith("...")


@pytest.mark.parametrize("name", sorted(name for name, command in ALL.items() if not isinstance(command, click.Group)))
def test_store_and_debug_are_taken_everywhere_and_json_where_there_are_results(name: str) -> None:
    options = {option for parameter in ALL[name].params for option in parameter.opts}
    assert {"--store", "--debug"} <= options
    assert "--json" in options or name == "ragindex demo"


def test_commands_are_grouped() -> None:
    page = CliRunner().invoke(main, ["--help"]).output
    assert set(main.list_commands(click.Context(main))) == set(COMMANDS)
    headings = [line for line in page.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Options:", "Start here:", "Index:", "Query:", "Store:", "Measure and train:"]


def test_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.output) == (0, f"ragindex {ragindex.__version__}\n")


def test_no_command_shows_the_help_as_an_error() -> None:
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Measure and train:" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["qery"], "ragindex: No such command 'qery'; did you mean `query`?\n"),
        (["xyzzy"], "ragindex: No such command 'xyzzy'; see `ragindex --help`.\n"),
        (["--wat"], "ragindex: No such option '--wat'; see `ragindex --help`.\n"),
        (
            ["query", "-k", "0", "x"],
            "ragindex: Invalid value for '-k': 0 is not in the range x>=1; see `ragindex query --help`.\n",
        ),
        (["query", "--mode", "magic", "x"], None),
        (["query"], "ragindex: The query is empty; say what to look for; see `ragindex query --help`.\n"),
        (["query", "  "], "ragindex: The query is empty; say what to look for; see `ragindex query --help`.\n"),
        (["why-not", "x"], "ragindex: Missing option '--expect'; see `ragindex why-not --help`.\n"),
        (["index"], "ragindex: Say what to index, for example `ragindex index .`.\n"),
        (["index", ".", "--reembed"], None),
        (["index", ".", "--watch", "--json"], None),
        (["index", ".", "--watch", "--dry-run"], None),
        (["index", ".", "--watch", "--allow-delete"], None),
        (["query", "x", "--diversity", "2"], None),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(arguments: list[str], message: str | None) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert message is None or result.stderr == message


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["encoder", "list", "--help"], ["status"]])
def test_the_fast_path_imports_nothing_heavy(arguments: list[str], tmp_path: object) -> None:
    code = (
        "import sys, ragindex.__main__ as m\n"
        f"sys.argv = ['ragindex', *{arguments!r}]\n"
        "try: m.main()\n"
        "except SystemExit: pass\n"
        f"sys.exit(', '.join(name for name in {HEAVY!r} if name in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_a_module_is_imported_only_for_its_command() -> None:
    code = (
        "import sys; from ragindex.cli import main\n"
        "try: main(['db', '--help'])\n"
        "except SystemExit: pass\n"
        "assert 'ragindex.cli.database' in sys.modules\n"
        "assert 'ragindex.cli.querying' not in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0

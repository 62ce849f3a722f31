"""docs/server.md tells the truth: every block of it is run, against a server that its own command starts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from index_kit import write
from server_kit import Program, program

from ragindex import Index
from ragindex.cli import main
from ragindex.server import limits

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "server.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
PORT = "8420"


def of(kind: str, word: str) -> str:
    """The one block of a kind that holds the word."""
    (found,) = [text for language, text in BLOCKS if language == kind and word in text]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the bundled encoder, as the page has it."""
    folder = tmp_path_factory.mktemp("documents")
    write(folder, {"ops/keys.md": "# Keys\n\nKeys are rotated every ninety days.\n", "other.txt": "Keys of a piano."})
    with Index.open(folder / ".ragindex") as index:
        index.add(folder)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Program]:
    assert of("sh", "ragindex serve\n") == "ragindex serve\n"
    with program(folder) as server:
        yield server


def here(text: str, server: Program) -> str:
    """A block with the port that the server really has."""
    return text.replace(f"127.0.0.1:{PORT}", server.url.removeprefix("http://"))


def shell(script: str, folder: Path) -> str:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "-euc", script]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_block_is_run_here() -> None:
    assert [language for language, _ in BLOCKS] == ["sh", "sh", "python", "sh", "sh", "python"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed here")
def test_the_search(server: Program, folder: Path) -> None:
    reply = json.loads(shell(here(of("sh", "/api/search"), server), folder))
    assert [hit["path"] for hit in reply["hits"]] == ["ops/keys.md"]
    assert "explanation" in reply["hits"][0]


def test_the_embeddings(server: Program, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(here(of("python", "openai"), server), "docs/server.md", "exec"), {})
    assert capsys.readouterr().out.startswith("384 ")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed here")
def test_letting_others_in(folder: Path) -> None:
    *before, command = of("sh", "--host").splitlines()
    shell("\n".join(before), folder)
    options = command.removeprefix("ragindex serve ").split()
    with program(folder, *options) as server:
        assert server.told["token_required"]
        server.url = server.url.replace("0.0.0.0", "127.0.0.1")
        status = json.loads(shell(here(of("sh", "Authorization"), server), folder))
    assert status["documents"] == 2


def test_the_application(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec(compile(of("python", "create_app"), "docs/server.md", "exec"), names)
    app = names["app"]
    assert app.state.desk.limits.waiting == 32
    app.state.desk.shelves.close()


def test_the_numbers_are_the_programs() -> None:
    serve = main.get_command(None, "serve")
    assert serve is not None
    defaults = {parameter.name: parameter.default for parameter in serve.params}
    assert (defaults["port"], defaults["queue"], defaults["timeout"]) == (int(PORT), 128, 120.0)
    assert f"up to {limits.MAX_QUERY:,} characters" in PAGE
    assert f"up to {limits.MAX_HITS} " in PAGE
    assert f"may hold {limits.Limits().body_bytes >> 20} MiB" in PAGE
    assert f"within {limits.Limits().body_seconds:g} s" in PAGE


def test_the_routes_are_the_programs(server: Program) -> None:
    import httpx2

    described = httpx2.get(f"{server.url}/openapi.json").json()
    told = set(re.findall(r"`(?:GET|POST) (/[a-z/]+)", PAGE)) | {"/v1/embeddings", "/v1/models"}
    assert told - {"/openapi"} == {path for path in described["paths"] if "{" not in path}
    fields = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert fields == set(described["components"]["schemas"]["SearchRequest"]["properties"])

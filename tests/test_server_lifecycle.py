"""`ragindex serve` as a program: what it says, what it refuses, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner
from server_kit import ask, fill, program, until

from ragindex.cli import main
from ragindex.listening import listen

TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_dir: Path) -> Path:
    return fill(tmp_path_factory.mktemp("documents"), tiny_encoder_dir).parent


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_ends_when_told(folder: Path, number: signal.Signals) -> None:
    with program(folder) as server:
        assert server.told == {"url": f"{server.url}/", "store": str(folder / ".ragindex"), "token_required": False}
        assert ask(server.url, "kettle").json()["hits"]
        server.process.send_signal(number)
        out, err = server.process.communicate(timeout=120)
    assert (server.process.returncode, out, err) == (0, "", "Stopped.\n")


def test_what_runs_is_answered_and_what_is_new_refused(folder: Path, tmp_path: Path) -> None:
    """The search waits for a file that is made only after the server was told to end."""
    script = f"""
import sys, time
from pathlib import Path
from ragindex import Index
from ragindex.cli import main
search = Index.search
def slow(self, query, **options):
    while query == "slow" and not Path({str(tmp_path / "go")!r}).exists():
        Path({str(tmp_path / "began")!r}).touch()
        time.sleep(0.02)
    return search(self, query, **options)
Index.search = slow
main(["serve", "--port", "0", "--json"])
"""
    process = subprocess.Popen([sys.executable, "-c", script], cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split('"url": "')[1].split('/"')[0]
        replies: list[httpx2.Response] = []
        asking = threading.Thread(target=lambda: replies.append(ask(url, "slow", mode="lexical")))
        asking.start()
        until((tmp_path / "began").exists)
        process.send_signal(signal.SIGTERM)
        until(lambda: refused(url))
        assert process.poll() is None
        (tmp_path / "go").touch()
        asking.join(60)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
    assert [reply.status_code for reply in replies] == [200]


def refused(url: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_token_comes_from_a_file_or_the_environment(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    for arguments, more in ((("--token-file", str(file)), {}), ((), {"RAGINDEX_SERVE_TOKEN": TOKEN})):
        with program(folder, *arguments, environment={**os.environ, **more}) as server:
            assert server.told["token_required"]
            assert httpx2.get(f"{server.url}/api/status").status_code == 401
            told = httpx2.get(f"{server.url}/api/status", headers={"Authorization": f"Bearer {TOKEN}"})
            assert told.status_code == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "0.0.0.0"], "A server that others can reach needs a token; give --token-file FILE or set"),
        (["--token-file", "absent"], "The token cannot be read from absent: "),
        (["--token-file", "empty"], "empty is empty; write a token into it."),
        (["--token-file", "short"], "The token must have at least 16 printable ASCII characters; "),
        (["--host", "no.such.name.invalid"], "'no.such.name.invalid' is no name or address of this machine."),
        (["--collection", "absent"], "absent"),
        (["--port", "65536"], "65536 is not in the range"),
        (["--timeout", "0"], "0.0 is not in the range"),
        (["--store", "nowhere"], "There is no store in "),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_sentence(
    folder: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("RAGINDEX_SERVE_TOKEN", raising=False)
    (folder / "empty").touch()
    (folder / "short").write_text("secret")
    result = CliRunner().invoke(main, ["serve", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """asyncio turns Nagle's algorithm off for accepted sockets that say that they are TCP, and for no others."""
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP


def test_a_port_in_use_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(main, ["serve", "--port", str(port)])
    assert result.exit_code == 2
    assert f"http://127.0.0.1:{port}/ cannot be listened on" in result.stderr
    assert "--port" in result.stderr


def test_without_its_extra_the_error_names_it(folder: Path) -> None:
    script = "import sys; sys.modules['fastapi'] = None; from ragindex.cli import main; main(['serve', '--port', '0'])"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "ragindex: The server needs FastAPI and uvicorn; run `pip install 'ragindex[server]'`.\n"


def test_other_commands_import_no_server() -> None:
    script = (
        "import sys; from ragindex.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "import ragindex.server\n"
        "loaded = {'fastapi', 'uvicorn', 'starlette', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(' '.join(loaded) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

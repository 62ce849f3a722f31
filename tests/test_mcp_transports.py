"""The server for agents as a process: over standard input and output, over HTTP, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import httpx2
import pytest
from click.testing import CliRunner
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_kit import COMMAND, QUIET, SETTINGS, call, make_store, talk

from ragindex.cli import main
from ragindex.errors import UsageError
from ragindex.listening import is_loopback
from ragindex.mcp_server import Access

TOKEN = "correct-horse-battery-staple"
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_encoder_dir):
    return make_store(tmp_path_factory.mktemp("agents") / "home", tiny_encoder_dir)


@contextmanager
def process(home, *arguments, environment=(), command=tuple(COMMAND)) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(
        [*command, *arguments],
        cwd=home,
        env=QUIET | SETTINGS | dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def said(started, message=None):
    if message is not None:
        started.stdin.write(json.dumps(message).encode() + b"\n")
        started.stdin.flush()
    return json.loads(started.stdout.readline())


class TestStdio:
    @pytest.mark.parametrize("mode", ["auto", "legacy"])
    def test_the_official_client_searches_and_fetches(self, home, mode):
        server = StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=QUIET | SETTINGS, cwd=home)

        async def ask(client: Client):
            names = [tool.name for tool in (await client.list_tools()).tools]
            found = await client.call_tool("search", {"query": "quokkas", "k": 2})
            fetched = await client.call_tool("fetch", {"id": found.structured_content["results"][0]["id"]})
            refused = await client.call_tool("search", {"query": ""})
            return names, found, fetched, refused

        names, found, fetched, refused = talk(server, ask, mode=mode)
        assert names == ["search", "fetch", "status", "why_not"]
        assert "Quokkas smile" in found.structured_content["results"][0]["text"]
        assert "Quokkas smile" in fetched.structured_content["text"]
        assert refused.is_error

    def test_standard_output_holds_the_protocol_and_nothing_else(self, home):
        script = (
            "import os, subprocess, sys\n"
            "from ragindex.mcp_server.answers import Library\n"
            "def status(self, _):\n"
            "    print('stray')\n"
            "    os.write(1, b'bytes')\n"
            "    subprocess.run(['echo', 'child'])\n"
            "    sys.stdout.flush()\n"
            "    return {'read': sys.stdin.read()}\n"
            "Library.status = status\n"
            "sys.modules.pop('ragindex.mcp_server.tools', None)\n"
            "sys.argv = ['ragindex', 'mcp']\n"
            "from ragindex.__main__ import main\n"
            "main()\n"
        )
        with process(home, command=(sys.executable, "-c", script)) as started:
            assert said(started, HELLO)["result"]["serverInfo"]["name"] == "ragindex"
            answer = said(started, {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "status"}})
            assert answer["result"]["structuredContent"] == {"read": ""}
            out, err = started.communicate(timeout=60)
        assert out == b""
        assert {b"stray", b"child"} <= set(err.replace(b"bytes", b"").split())
        assert started.returncode == 0

    def test_it_ends_with_its_input_and_survives_what_is_no_message(self, home):
        with process(home) as started:
            said(started, HELLO)
            started.stdin.write(b"not json\n\xff\xfe\n\n")
            assert said(started, {"jsonrpc": "2.0", "id": 9, "method": "ping"})["id"] in {9, None}
            out, err = started.communicate(timeout=60)
        assert started.returncode == 0
        assert all(json.loads(line)["jsonrpc"] == "2.0" for line in out.splitlines())
        assert b"Traceback" not in err

    def test_ctrl_c_ends_it_although_the_client_is_silent(self, home):
        with process(home) as started:
            said(started, HELLO)
            started.send_signal(signal.SIGINT)
            assert started.wait(timeout=60) == 0
            assert started.stderr.read() == b"Stopped.\n"

    def test_a_client_that_goes_away_leaves_no_noise(self, home):
        with process(home) as started:
            said(started, HELLO)
            started.stdout.close()
            started.stdin.write(json.dumps(HELLO | {"id": 2, "method": "ping", "params": {}}).encode() + b"\n")
            started.stdin.close()
            assert started.wait(timeout=60) in {0, 2, 141}
            assert b"Traceback" not in started.stderr.read()
            started.stdin, started.stdout = None, None


@contextmanager
def http(home, *arguments, environment=()) -> Iterator[str]:
    with process(home, "--http", "--port", "0", "--json", *arguments, environment=environment) as started:
        line = started.stdout.readline()
        assert line, started.stderr.read()
        yield json.loads(line)["url"]
        started.send_signal(signal.SIGINT)
        assert started.wait(timeout=60) == 0
        told = started.stderr.read()  # besides, of refused requests
        assert told.endswith(b"Stopped.\n")
        assert b"Traceback" not in told
        assert started.stdout.read() == b""


def post(url, message=HELLO, **headers):
    accept = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    content = message if isinstance(message, bytes) else json.dumps(message).encode()
    return httpx2.post(url, content=content, headers=accept | headers, timeout=60)


class TestHttp:
    def test_the_official_client_and_raw_requests_on_loopback(self, home):
        with http(home) as url:
            assert url.startswith("http://127.0.0.1:")
            for mode in ("auto", "legacy"):
                answer = talk(url, lambda client: client.call_tool("search", {"query": "quokkas", "k": 1}), mode=mode)
                assert "Quokkas smile" in answer.structured_content["results"][0]["text"]
            port = url.split(":")[2].split("/")[0]
            assert post(url).json()["result"]["serverInfo"]["name"] == "ragindex"
            assert post(url, Host=f"localhost:{port}").status_code == 200
            assert post(url, Origin=f"http://localhost:{port}").status_code == 200
            # A page whose name was made to point here, and a page of another site.
            assert post(url, Host=f"evil.example:{port}").status_code == 421
            assert post(url, Host=f"127.0.0.1.evil.example:{port}").status_code == 421
            assert post(url, Origin="https://evil.example").status_code == 403
            assert post(url, Origin="null").status_code == 403
            assert post(url, b"x" * 300_000).status_code == 413
            assert post(url, **{"Content-Type": "text/plain"}).status_code == 400
            assert httpx2.get(url.removesuffix("/mcp")).status_code == 404

    def test_the_token_is_asked_for(self, home, tmp_path):
        (tmp_path / "token").write_text(TOKEN + "\n")
        with http(home, "--token-file", str(tmp_path / "token")) as url:
            for header in (
                {},
                {"Authorization": "Bearer wrong"},
                {"Authorization": TOKEN},
                {"Authorization": "Basic eDp5"},
            ):
                refused = post(url, **header)
                assert refused.status_code == 401
                assert refused.headers["www-authenticate"].startswith("Bearer")
            assert post(url, Authorization=f"Bearer {TOKEN}").status_code == 200

            async def ask():
                async with (
                    httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as http_client,
                    Client(streamable_http_client(url, http_client=http_client)) as client,
                ):
                    return await client.call_tool("status", {})

            assert anyio.run(ask).structured_content["documents"] == 4

    def test_off_loopback_it_needs_a_token_and_a_name_and_links_to_no_files(self, home):
        with http(
            home, "--host", "0.0.0.0", "--allow-host", "search.example", environment={"RAGINDEX_MCP_TOKEN": TOKEN}
        ) as url:
            here = url.replace("0.0.0.0", "127.0.0.1")
            asked = {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "tools/call",
                "params": {"name": "search", "arguments": {"query": "quokkas"}},
            }
            assert post(here, asked, Authorization=f"Bearer {TOKEN}").status_code == 421
            allowed = {"Authorization": f"Bearer {TOKEN}", "Host": "search.example"}
            assert post(here, asked, **allowed, Origin="http://localhost:1").status_code == 403
            answer = post(here, asked, **allowed)
            assert answer.json()["result"]["structuredContent"]["results"][0]["url"].startswith("ragindex:plain.txt")
            assert str(home) not in answer.text


class TestAccess:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"host": "0.0.0.0"}, "needs a token"),
            ({"host": "0.0.0.0", "token": TOKEN}, "--allow-host"),
            ({"token": "short"}, "at least 16"),
            ({"host": "no.such.name.invalid", "token": TOKEN}, "no name or address"),
        ],
    )
    def test_what_is_not_safe_is_refused(self, options, words):
        with pytest.raises(UsageError, match=words):
            Access(**options)

    def test_loopback(self):
        assert is_loopback("127.0.0.1")
        assert is_loopback("127.9.9.9")
        assert is_loopback("localhost")
        assert not is_loopback("0.0.0.0")


class TestCommandLine:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--port", "1"], "add --http"),
            (["--host", "0.0.0.0"], "add --http"),
            (["--json"], "add --http"),
            (["--link-base", "javascript:x"], "http://"),
            (["--http", "--host", "0.0.0.0"], "needs a token"),
            (["--http", "--token-file", "nowhere"], "cannot be read"),
            (["--collection", "nope"], "nope"),
        ],
    )
    def test_mistakes_are_one_line(self, home, monkeypatch, arguments, words):
        monkeypatch.chdir(home)
        monkeypatch.delenv("RAGINDEX_MCP_TOKEN", raising=False)
        done = CliRunner().invoke(main, ["mcp", *arguments])
        assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert words in done.stderr

    def test_a_port_in_use(self, home, monkeypatch):
        monkeypatch.chdir(home)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            done = CliRunner().invoke(main, ["mcp", "--http", "--port", str(taken.getsockname()[1])])
        assert done.exit_code == 2
        assert "choose another --port" in done.stderr

    def test_without_a_store(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        done = CliRunner().invoke(main, ["mcp"])
        assert (done.exit_code, done.stdout) == (2, "")
        assert "ragindex index" in done.stderr

    def test_without_the_extra(self, home):
        script = (
            "import sys\n"
            "sys.modules['mcp'] = sys.modules['mcp_types'] = None\n"
            "sys.argv = ['ragindex', 'mcp']\n"
            "from ragindex.__main__ import main\n"
            "main()\n"
        )
        done = subprocess.run([sys.executable, "-c", script], cwd=home, env=QUIET, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert "pip install 'ragindex[mcp]'" in done.stderr
        assert done.stderr.count("\n") == 1


def test_links_lead_below_an_address(home, tmp_path):
    server = StdioServerParameters(
        command=COMMAND[0], args=[*COMMAND[1:], "--link-base", "https://wiki.example/x"], env=QUIET | SETTINGS, cwd=home
    )
    (result,) = call(server, "search", query="quokkas", mode="lexical", k=1)["results"]
    assert result["url"].startswith("https://wiki.example/x/plain.txt#L")


def test_importing_it_loads_nothing(tmp_path):
    code = "import sys, ragindex.mcp_server; sys.exit(' '.join({'mcp', 'anyio', 'numpy'} & set(sys.modules)) or 0)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == 0

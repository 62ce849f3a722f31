"""A small store with awkward documents, and servers over it: in this process, in a thread, as a program."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from index_kit import SMALL, corpus, open_index, prose, write

from ragindex.listening import listen
from ragindex.server import Library, Limits, create_app, lifecycle

HOSTILE = '<img src=x onerror=alert(1)> & "zeppelin" hangar'
HEBREW = "מפתח החתימה מוחלף כל תשעים יום, והמפתח הקודם נשמר עד סוף כל ההפעלות. zeppelinrtl"


def fill(folder: Path, encoder: Path) -> Path:
    """Index ordinary, long, hostile and right-to-left documents and one broken file; returns the store."""
    write(
        folder,
        {
            **corpus(10),
            "long.md": f"# The long one\n\n{prose(400)}\n\nThe needle kettle lies here.\n\n{prose(400, start=400)}",
            "hostile.txt": HOSTILE,
            "hebrew.txt": HEBREW,
            "ops/keys.md": "# Keys\n\n## Rotation\n\nRotate the signing key every ninety days.\n",
            "a long name/" + "very-" * 30 + "long.txt": "unbreakable" * 40 + " quagga",
            "broken.docx": b"no archive",
        },
    )
    with open_index(folder, encoder) as index:
        index.add(folder)
    return folder / ".ragindex"


def library(store: Path) -> Library:
    return Library(store, settings=SMALL)


@contextmanager
def running(store: Path, **options: Any) -> Iterator[str]:
    """A server in a thread, reached over a real socket; gives its URL without the slash at the end."""
    sock = listen("127.0.0.1", 0)
    limits = options.get("limits") or Limits()
    started = threading.Event()
    server = lifecycle.server(create_app(library(store), **options), limits=limits, ready=started.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    assert started.wait(120)
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(120)
        sock.close()


@contextmanager
def program(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> Iterator[Program]:
    """`ragindex serve --port 0 --json` as a process of its own."""
    command = [sys.executable, "-m", "ragindex", "serve", "--port", "0", "--json", *arguments]
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield Program(process, json.loads(line))
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


class Program:
    """A running `ragindex serve` and what it said when it was ready."""

    def __init__(self, process: subprocess.Popen[str], told: dict[str, Any]) -> None:
        self.process = process
        self.told = told
        self.url = told["url"].rstrip("/")


def until(condition: Any, *, seconds: float = 60.0) -> None:
    """Wait for a condition; the time is only there so that a broken test ends."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.02)


def ask(url: str, query: str, **options: Any) -> httpx2.Response:
    return httpx2.post(f"{url}/api/search", json={"query": query, **options}, timeout=120)


def sentence(response: httpx2.Response) -> str:
    """The message of an error reply, which must be one sentence and no traceback."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    message = error["message"]
    assert isinstance(message, str)
    assert message.endswith((".", "?"))
    assert "Traceback" not in message
    assert "\n" not in message
    return message

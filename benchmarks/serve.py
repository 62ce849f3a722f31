"""A server under load: many clients at once against one, over real connections.

    python benchmarks/serve.py [--seconds 120] [--clients 32] [--mode hybrid] [--embeddings] [--store DIR]

Starts `ragindex serve` as a process of its own over the sample corpora (or over DIR), lets one client ask for a sixth
of the time and then all clients for the rest. Queries are the corpora's own with a number added, so that none is asked
twice and no cache answers. Each client sends its next request when the last one is answered; one that is refused (503)
waits as long as it was told. "lost" are requests that never got an answer. Prints p50, p99, requests a second, errors
and the ratio to one client; asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from _common import command_line, milliseconds, table

from ragindex import Index
from ragindex.resources import resource

_SETTLE = 1.0  # seconds of questions that are not counted


@dataclass(slots=True)
class Tally:
    """What became of the requests of one phase; latencies in seconds."""

    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    refused: int = 0
    lost: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answered requests a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """The latency that this share stays below, nearest rank."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--mode", choices=("hybrid", "dense", "lexical"), default="hybrid")
    parser.add_argument("--embeddings", action="store_true", help="ask /v1/embeddings instead of /api/search")
    parser.add_argument("--store", type=Path, help="serve this store instead of one over the sample corpora")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ragindex-serve-") as scratch:
        store = options.store or made(Path(scratch))
        with Index.open(store, create=False) as index:
            print(f"{index.status()['chunks']:,} chunks, encoder {index.encoder.name}\n")
        command = command_line("serve", "--port", "0", "--json", "--store", str(store.absolute()))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            bodies = requests(options.mode) if not options.embeddings else texts(url)
            path = "v1/embeddings" if options.embeddings else "api/search"
            tallies = {}
            for clients, seconds in ((1, options.seconds / 6), (options.clients, options.seconds * 5 / 6)):
                tallies[clients] = asyncio.run(load(url + path, bodies, clients=clients, seconds=seconds))
            process.send_signal(signal.SIGTERM)
            ended = process.wait(60)
        finally:
            process.kill()
    show(tallies)
    print(f"\nexit status after SIGTERM: {ended}")


def made(scratch: Path) -> Path:
    """A store over copies of the sample corpora."""
    shutil.copytree(resource("sample_corpora"), scratch / "corpora")
    with Index.open(scratch / ".ragindex") as index:
        index.add(scratch / "corpora")
    return scratch / ".ragindex"


def questions() -> Iterator[str]:
    """The corpora's questions over and over, each time with another number."""
    lines = [
        line
        for file in sorted(resource("sample_corpora").glob("*/queries.jsonl"))
        for line in file.read_text().splitlines()
    ]
    asked = [str(json.loads(line)["text"]) for line in lines]
    for number, question in zip(itertools.count(), itertools.cycle(asked)):
        yield f"{question} {number}"


def requests(mode: str) -> Iterator[dict[str, object]]:
    """Bodies of searches."""
    return ({"query": question, "mode": mode} for question in questions())


def texts(url: str) -> Iterator[dict[str, object]]:
    """Bodies of embedding requests, one text each."""
    model = httpx2.get(f"{url}v1/models").json()["data"][0]["id"]
    return ({"input": question, "model": model, "encoding_format": "base64"} for question in questions())


async def load(url: str, bodies: Iterator[dict[str, object]], *, clients: int, seconds: float) -> Tally:
    """So many clients asking for so long."""
    tally = Tally()
    began = time.perf_counter()
    counted, ends = began + _SETTLE, began + _SETTLE + seconds

    async def ask_on(client: httpx2.AsyncClient) -> None:
        while (sent := time.perf_counter()) < ends:
            try:
                reply = await client.post(url, json=next(bodies))
            except httpx2.HTTPError:
                tally.lost += 1
                continue
            done = time.perf_counter()
            if reply.status_code == 503:
                tally.refused += 1
                await asyncio.sleep(float(reply.headers.get("retry-after", "1")))
            elif reply.status_code != 200:
                tally.errors += 1
            elif sent >= counted:
                tally.latencies.append(done - sent)

    limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx2.AsyncClient(limits=limits, timeout=120) as client:
        await asyncio.gather(*(ask_on(client) for _ in range(clients)))
    tally.seconds = time.perf_counter() - counted
    return tally


def show(tallies: dict[int, Tally]) -> None:
    """The phases and their ratios to one client."""
    alone = tallies[1]
    rows: list[Sequence[str]] = [
        (
            f"{clients} client{'s' if clients > 1 else ''}",
            milliseconds(statistics.median(tally.latencies)),
            milliseconds(tally.percentile(0.99)),
            f"{tally.rate:,.1f}",
            f"{tally.rate / alone.rate:.2f}",
            f"{tally.refused}",
            f"{tally.errors}",
            f"{tally.lost}",
        )
        for clients, tally in tallies.items()
    ]
    print(table(("", "p50 ms", "p99 ms", "requests/s", "× one client", "refused", "errors", "lost"), rows))


if __name__ == "__main__":
    main()

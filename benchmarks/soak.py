"""One writer and many readers at once: `python benchmarks/soak.py [--minutes 10] [--readers 8]`.

The writer adds, changes and deletes documents, each of which holds one marker, a word that occurs nowhere else. It
notes what it is about to do, and announces it as soon as the commit has returned; now and then it is killed with
SIGKILL, and another takes over. Readers ask for markers without ever reopening the store. A query that begins after an
announcement must show what was announced, and no hit may hold a marker that was gone by then. A rival that wants to
write meanwhile must be refused by a sentence that names the writer. At the end the store must verify, and answer as
one does that has never had a snapshot.

Times are those of one clock that all processes share. Processes of one reader each, more with `--threads`.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _common import table
from _soak_log import Fact, Log, append, marker

from ragindex import Index
from ragindex.errors import StoreLockedError
from ragindex.store.catalog import Catalog
from ragindex.store.lease import WriterLease
from ragindex.types import Document, Mode

_WORDS = """
    key backup kettle leave config session mountain receipt vaccine index query passage snapshot service signing manager
    sugar oxygen travel expense document virus title question answer restore rotate water light read write
"""
FILLER = tuple(_WORDS.split())
SHARED = "rotate the signing key before the session ends"
MODES: tuple[Mode, ...] = ("lexical", "hybrid", "dense", "hybrid")


# The writer ----------------------------------------------------------------------------------------------------------


def write(arguments: argparse.Namespace) -> None:
    """Add, change and delete until killed or told to stop by a file."""
    place = Path(arguments.place)
    log, stop = Log(place / "log"), place / "stop"
    log.follow()
    draw = random.Random(f"{arguments.seed}/{log.last}")
    waiting: list[Fact] = []
    commit = Catalog.commit

    def announcing(catalog: Catalog, collection: int, batch: Any) -> int:
        generation = commit(catalog, collection, batch)
        now = time.monotonic()
        append(log.file, [Fact(one.number, one.path, one.marker, now, True) for one in waiting])
        waiting.clear()
        return generation

    setattr(Catalog, "commit", announcing)  # noqa: B010 - the moment in which the commit has returned
    while True:
        try:
            with Index.open(place / "store", encoder=arguments.encoder) as index:
                while not stop.exists():
                    waiting[:] = _plan(log, draw, arguments)
                    append(log.file, waiting)
                    _carry_out(index, waiting, draw)
                    assert not waiting, "a run that committed nothing"
                    log.follow()
                    time.sleep(draw.uniform(0, 2 * arguments.pause))
                return
        except StoreLockedError as error:
            print(json.dumps({"refused": str(error)}), flush=True)  # the writer, by a reader or a rival
            log.follow()


def _plan(log: Log, draw: random.Random, arguments: argparse.Namespace) -> list[Fact]:
    """One kind of change to some documents; first of all those that a killed writer left in doubt."""
    present = [path for path, fact in log.facts.items() if fact.marker]
    count = draw.choice((1, 1, 2, 5, 20))
    doubtful = log.unsettled()
    kind = draw.choices(("add", "change", "delete"), (3, 4, 3 if len(present) > arguments.documents else 1))[0]
    number = log.last
    if doubtful:
        kind, paths = "change", doubtful
    elif kind == "add" or len(present) <= count:
        kind, paths = "add", [f"{number + 1 + place}.txt" for place in range(count)]
    else:
        paths = draw.sample(sorted(present), count)
    named = []
    for path in paths:
        number += 1
        named.append(Fact(number, path, "" if kind == "delete" else marker(number), time.monotonic(), False))
    return named


def _carry_out(index: Index, plan: Sequence[Fact], draw: random.Random) -> None:
    if plan[0].marker:
        index.put([Document(fact.path, _text(fact, draw), title=f"Note {fact.path}") for fact in plan])
    else:
        index.remove(*(fact.path for fact in plan))


def _text(fact: Fact, draw: random.Random) -> str:
    lines = [" ".join(draw.choices(FILLER, k=12)) for _ in range(draw.randrange(1, 30))]
    lines.insert(draw.randrange(len(lines) + 1), f"{SHARED} {fact.marker}")
    return "\n".join(lines)


# The readers ---------------------------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What one reader found. `delays`: seconds from an announcement to the end of the first query that showed it;
    `seconds`: of each query.
    """

    queries: int = 0
    delays: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def read(arguments: argparse.Namespace) -> None:
    """Ask until told to stop, in some threads that share one index; prints what was found."""
    place = Path(arguments.place)
    found = [Seen() for _ in range(arguments.threads)]
    with Index.open(place / "store", create=False) as index:
        threads = [
            threading.Thread(target=_ask_on, args=(index, place, one, f"{arguments.seed}/{number}", arguments.think))
            for number, one in enumerate(found)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for one in found:
        print(json.dumps([one.queries, one.delays, one.seconds, one.stale, one.errors]))


def _ask_on(index: Index, place: Path, seen: Seen, seed: str, think: float) -> None:
    draw, log = random.Random(seed), Log(place / "log")
    stop = place / "stop"
    for mode in MODES:  # to load the encoder takes a second, and is no part of this
        index.search(SHARED, mode=mode)
    log.follow()
    log.news.clear()
    while not stop.exists():
        try:
            _ask(index, log, draw, seen)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what this measures
            seen.errors.append(f"{type(error).__name__}: {error}")
        time.sleep(draw.uniform(0, 2 * think))


def _ask(index: Index, log: Log, draw: random.Random, seen: Seen) -> None:
    log.follow()
    fresh = [fact for fact in log.news if log.settled(fact)]
    log.news.clear()
    fact = fresh[-1] if fresh else draw.choice(list(log.facts.values()))
    if not log.settled(fact):
        return
    gone = set(log.gone)
    mode = draw.choice(MODES) if fact.marker else "lexical"
    word = fact.marker or _last_marker(log, fact, draw)
    began = time.monotonic()
    hits = index.search(word if mode == "lexical" else f"{SHARED} {word}", k=20, mode=mode)
    ended = time.monotonic()
    seen.queries += 1
    seen.seconds.append(ended - began)
    for hit in hits:
        for old in gone.intersection(hit.text.split()):
            seen.stale.append(f"{mode} shows {old} of {hit.path}, gone for {began - log.gone[old].at:.3f} s")
    there = any(word in hit.text.split() for hit in hits)
    log.follow()  # what was planned meanwhile excuses either answer
    if log.settled(fact) and (mode == "lexical" or mode == "hybrid") and there != bool(fact.marker):
        seen.stale.append(f"{mode} misses {word} of {fact.path}, announced {began - fact.at:.3f} s before")
    elif fact in fresh and there == bool(fact.marker):
        seen.delays.append(ended - fact.at)


def _last_marker(log: Log, fact: Fact, draw: random.Random) -> str:
    ended = [word for word, end in log.gone.items() if end is fact]
    return ended[0] if ended else draw.choice(sorted(log.gone) or ["nothing"])


# The whole -----------------------------------------------------------------------------------------------------------


@dataclass
class Rivals:
    """Writers that came too late: how many were refused, and how many of those by a sentence that names the holder."""

    refused: int = 0
    named: int = 0
    admitted: int = 0


def main() -> int:
    arguments = _arguments()
    if arguments.role == "writer":
        write(arguments)
        return 0
    if arguments.role == "reader":
        read(arguments)
        return 0
    with tempfile.TemporaryDirectory(prefix="ragindex-soak-") as scratch:
        return conduct(arguments, Path(scratch))


def conduct(arguments: argparse.Namespace, place: Path) -> int:
    """Run the processes, then judge."""
    arguments.place = str(place)
    draw = random.Random(arguments.seed)
    (place / "log").touch()
    writer = _start(arguments, "writer")
    log = Log(place / "log")
    while len(log.facts) < arguments.documents // 4:
        if writer.poll() is not None:
            raise SystemExit("The writer did not begin; its error is above.")
        time.sleep(0.1)
        log.follow()
    log.commits.clear()  # those before the readers came are no part of this
    readers = [_start(arguments, "reader", seed=number) for number in range(arguments.readers)]
    rivals, kills, refused = Rivals(), 0, 0
    end = time.monotonic() + 60 * arguments.minutes
    due = time.monotonic() + draw.uniform(0.5, 1.5) * arguments.kill_every
    while time.monotonic() < end:
        time.sleep(0.2)
        _compete(place / "store", rivals)
        if time.monotonic() > due:
            writer.send_signal(signal.SIGKILL)
            refused += _refusals(writer)
            kills += 1
            writer = _start(arguments, "writer")
            due = time.monotonic() + draw.uniform(0.5, 1.5) * arguments.kill_every
        if writer.poll() is not None or any(reader.poll() is not None for reader in readers):
            break
    (place / "stop").touch()
    refused += _refusals(writer)
    found = [Seen(*json.loads(line)) for reader in readers for line in reader.communicate()[0].splitlines()]
    problems = [f"a process ended with {one.returncode}" for one in (writer, *readers) if one.returncode]
    log.follow()
    problems += judged(place, log)
    return report(found, rivals, log, problems, arguments, kills=kills, refused=refused)


def judged(place: Path, log: Log) -> list[str]:
    """What is wrong with the store in the end."""
    with Index.open(place / "store", create=False) as index:
        problems = list(index.verify().problems)
        expected = {path: fact.marker for path, fact in log.facts.items() if fact.marker and log.settled(fact)}
        held = {row["path"] for row in index.documents()} - set(log.unsettled())
        if held != expected.keys():
            problems.append(f"{len(held ^ expected.keys())} documents are there wrongly, or not there.")
        problems += [f"{path} lost {word}" for path, word in expected.items() if word not in index.text(path)]
        index.repair()
        shutil.copytree(place / "store", place / "copy", ignore=shutil.ignore_patterns("snapshots", "*.lock"))
        with Index.open(place / "copy", create=False) as undisturbed:
            for words in _questions():
                mine, other = (
                    [(h.path, h.char_start, round(h.score, 3)) for h in one.search(words)]
                    for one in (index, undisturbed)
                )
                if sorted(mine) != sorted(other):
                    problems.append(f"The hits of {words!r} differ from those of an undisturbed store.")
    return problems


def _questions() -> Iterator[str]:
    for one, other in zip(FILLER[::2], FILLER[1::2], strict=False):
        yield f"{one} {other}"


def report(
    found: Sequence[Seen],
    rivals: Rivals,
    log: Log,
    problems: list[str],
    arguments: argparse.Namespace,
    *,
    kills: int,
    refused: int,
) -> int:
    """Print everything; 1 when anything went wrong."""
    delays = sorted(delay for one in found for delay in one.delays)
    seconds = sorted(delay for one in found for delay in one.seconds)
    stale = [sentence for one in found for sentence in one.stale]
    errors = [sentence for one in found for sentence in one.errors]
    late = sum(delay > arguments.late for delay in delays)
    rows = [
        ("changes of documents", f"{log.last:,}"),
        ("commits", f"{len(log.commits):,}"),
        ("queries", f"{sum(one.queries for one in found):,}"),
        ("errors", str(len(errors))),
        ("stale answers", str(len(stale))),
        ("query: p50, p99, max", _three(seconds)),
        ("announcement to answer: p50, p99, max", _three(delays)),
        (f"of {len(delays):,} such, over {arguments.late:g} s", str(late)),
        ("writers killed, lease taken over", str(kills)),
        ("rivals refused, holder named", f"{rivals.refused}, {rivals.named}"),
        ("writer refused", str(refused)),
        ("problems in the end", str(len(problems))),
    ]
    print(f"{arguments.readers} reader processes of {arguments.threads} threads, {arguments.minutes:g} minutes\n")
    print(table(("", "measured"), rows))
    for title, sentences in (("error", errors), ("stale", stale), ("problem", problems)):
        for sentence, times in Counter(sentences).most_common(20):
            print(f"{title}: {sentence} ({times} times)")
    return 1 if errors or stale or late or problems or rivals.refused != rivals.named else 0


def _three(ordered: Sequence[float]) -> str:
    if not ordered:
        return "none"
    chosen = (ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], ordered[-1])
    return ", ".join(f"{1000 * value:,.0f}" for value in chosen) + " ms"


def _compete(store: Path, rivals: Rivals) -> None:
    try:
        with WriterLease(store, command="rival", wait=0.0):
            rivals.admitted += 1
    except StoreLockedError as error:
        rivals.refused += 1
        rivals.named += "process " in str(error) and "another process" not in str(error)


def _refusals(writer: subprocess.Popen[str]) -> int:
    out = writer.communicate()[0]
    return sum("refused" in line for line in out.splitlines())


def _start(arguments: argparse.Namespace, role: str, *, seed: int | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--role", role, "--place", arguments.place, "--encoder", arguments.encoder]
    command += ["--documents", str(arguments.documents), "--threads", str(arguments.threads)]
    command += ["--think", str(arguments.think), "--pause", str(arguments.pause)]
    command += ["--seed", f"{arguments.seed if seed is None else f'{arguments.seed}{seed:03}'}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="how long readers and writer work [10]")
    parser.add_argument("--readers", type=int, default=8, help="reader processes [8]")
    parser.add_argument("--threads", type=int, default=1, help="threads of each of them [1]")
    parser.add_argument("--documents", type=int, default=400, help="about how many the store holds [400]")
    parser.add_argument("--encoder", default="bundled", help="name or directory [bundled]")
    parser.add_argument("--think", type=float, default=0.1, help="mean seconds between a reader's queries [0.1]")
    parser.add_argument("--pause", type=float, default=0.1, help="mean seconds between the writer's commits [0.1]")
    parser.add_argument("--kill-every", type=float, default=60, help="mean seconds of a writer's life [60]")
    parser.add_argument("--late", type=float, default=1, help="seconds within which a commit must be seen [1]")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn [0]")
    parser.add_argument("--role", choices=("writer", "reader"), help=argparse.SUPPRESS)
    parser.add_argument("--place", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

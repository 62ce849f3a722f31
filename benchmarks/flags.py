"""How often ordinary text is flagged as written for a model (`ragindex.search.suspicion`), in pieces as long as chunks.

python benchmarks/flags.py PATH...     files, folders, or data sets in BEIR layout (their corpus.jsonl is read)
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ragindex.config import Limits
from ragindex.errors import LoadError
from ragindex.loaders import load, supported
from ragindex.search.suspicion import find_flags

_PIECE = 1200  # characters, about 256 tokens of English
_SHOWN = 40  # characters around a flag


def texts(path: Path) -> Iterator[str]:
    """The texts of a data set, or of the files that ragindex reads."""
    corpus = path / "corpus.jsonl"
    if corpus.is_file():
        with corpus.open(encoding="utf-8") as lines:
            for line in lines:
                entry = json.loads(line)
                yield f"{entry.get('title') or ''}\n{entry['text']}"
        return
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and supported(file):
            try:
                yield load(file, name=file.name, limits=Limits()).text
            except LoadError:
                continue


def measure(path: Path, *, examples: int) -> None:
    pieces = flagged = characters = 0
    kinds: Counter[str] = Counter()
    began = time.perf_counter()
    for piece in cut(texts(path)):
        pieces += 1
        characters += len(piece)
        flags = find_flags(piece)
        flagged += bool(flags)
        kinds.update({flag.kind for flag in flags})
        for flag in flags[:1] if flagged <= examples else ():
            print(f"    {flag.kind}: {piece[max(0, flag.start - _SHOWN) : flag.end + _SHOWN]!r}")
    speed = characters / max(1e-9, time.perf_counter() - began) / 1e6
    rate = 10_000 * flagged / max(1, pieces)
    print(f"{str(path)[-32:]:32} {pieces:8,} pieces, {flagged:5,} flagged, {rate:.1f} in 10,000, {speed:.2f} M/s")
    for kind, count in kinds.items():
        print(f"    {kind}: {count}")


def cut(whole: Iterable[str]) -> Iterator[str]:
    for text in whole:
        yield from (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--examples", type=int, default=0, help="how many flagged pieces of each path to show")
    given = parser.parse_args()
    for path in given.paths:
        measure(path, examples=given.examples)


if __name__ == "__main__":
    main()

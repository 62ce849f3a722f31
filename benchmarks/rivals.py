"""The same chunks and vectors in ragindex and in other stores: filling, asking, disk, opening.

    python benchmarks/rivals.py [--chunks 100000] [--queries 100] [--python PATH] [--systems NAME,…] [--clock …]

`--python` is an interpreter in which rivals are installed (`pip install chromadb lancedb txtai` in a virtual
environment of its own); one that cannot be imported there is left out, and the output says so. Everybody is given the
vectors, stores texts and metadata too, and is asked at the first setting that finds 99 % of the ten nearest. Every step
runs in a process of its own, one after the other. Prints a table; asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _common import CLOCKS, milliseconds, table
from _rival import CASES, ROUNDS, SYSTEMS, K, bound
from _synthetic import PER_DOCUMENT, Language, document

from ragindex import Encoder
from ragindex.store.rows import EncoderRow

_OWN = "ragindex"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has the rivals")
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument(
        "--keep", type=Path, help="keep data and stores in DIR; a store that is there is not made again"
    )
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    if strangers := set(options.systems.split(",")) - SYSTEMS.keys():
        parser.error(f"{', '.join(sorted(strangers))}: choose among {', '.join(SYSTEMS)}")
    with tempfile.TemporaryDirectory(prefix="ragindex-rivals-") as scratch:
        folder = options.keep or Path(scratch)
        if not (folder / "truth.json").is_file():
            folder.mkdir(parents=True, exist_ok=True)
            prepare(folder, options.chunks, options.queries)
        found: dict[str, dict[str, Any]] = {}
        for name in options.systems.split(","):
            python = sys.executable if name == _OWN else options.python
            if name != _OWN and not installed(python, name):
                print(f"{name} is not installed in {python}; it is left out.")
                continue
            found[name] = measured(name, python, folder)
        print(shown(found, options.chunks, options.clock))


def prepare(folder: Path, chunks: int, queries: int) -> None:
    """Write the chunks, the questions and what is nearest to them."""
    language, encoder = Language(1), Encoder.load("bundled")
    words = encoder.encode_documents(language.words)
    row = EncoderRow(1, "", "", encoder.dimensions, {})
    texts, metadata, vectors = [], [], []
    for number in range(chunks // PER_DOCUMENT):
        made = document(language, number, row, words)
        for chunk, vector_key in zip(made.chunks, made.keys, strict=True):
            texts.append(chunk.text)
            metadata.append(dict(made.document.metadata))
            vectors.append(made.vectors[vector_key])
    matrix = np.array(vectors, np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    asked = Language(2).queries()
    questions = encoder.encode_queries([next(asked) for _ in range(queries)])
    scores = questions @ matrix.T
    truth = {}
    for name, case in CASES.items():
        allowed = np.ones(len(texts), bool)
        if case is not None:
            [(key, value)] = case.items()
            column = np.array([each[key] for each in metadata])
            allowed = column < bound(case, chunks // PER_DOCUMENT) if key == "serial" else column == value
        ranked = np.argsort(-np.where(allowed, scores, -2), axis=1)[:, :K]
        truth[name] = [[int(place) for place in places if allowed[place]] for places in ranked]
    for name, values in {"texts": texts, "metadata": metadata, "truth": truth}.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    np.save(folder / "vectors.npy", matrix)
    np.save(folder / "questions.npy", questions)


def installed(python: str, module: str) -> bool:
    """Whether the interpreter can import it."""
    try:
        return subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def measured(name: str, python: str, folder: Path) -> dict[str, Any]:
    """All figures of one system."""
    note = folder / f"{name}.fill.json"
    if not note.is_file():
        note.write_text(json.dumps(step(name, python, folder, "fill")))
    opening = [step(name, python, folder, "open") for _ in range(ROUNDS)]
    return {
        "fill": json.loads(note.read_text()),
        "open": {clock: statistics.median(each[clock] for each in opening) for clock in CLOCKS},
        "ask": step(name, python, folder, "ask"),
    }


def step(name: str, python: str, folder: Path, what: str) -> dict[str, Any]:
    """Run one step in the interpreter of the system."""
    script = Path(__file__).with_name("_rival.py")
    environment = {**os.environ, "ANONYMIZED_TELEMETRY": "False", "HF_HUB_OFFLINE": "1"}
    command = [python, str(script), name, what, str(folder)]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed to {what}:\n{done.stderr}")
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


def shown(found: dict[str, dict[str, Any]], chunks: int, clock: str) -> str:
    """A column for each system."""
    each = list(found.values())
    rows = [
        ("chunks filled in a second", *(f"{chunks / one['fill'][clock]:,.0f}" for one in each)),
        ("MB on disk", *(f"{one['fill']['bytes'] / 1e6:,.0f}" for one in each)),
        ("ms from the import to the first answer", *(milliseconds(one["open"][clock]) for one in each)),
    ]
    for case in CASES:
        rows.append((f"ms a question, {case}", *(milliseconds(one["ask"][case][clock]) for one in each)))
        rows.append((f"recall@{K}", *(f"{one['ask'][case]['recall']:.3f}" for one in each)))
    return table((f"{chunks:,} chunks, {clock}", *found), rows)


if __name__ == "__main__":
    main()

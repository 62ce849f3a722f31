"""Vectors against the reference implementation of LLM2Vec, on tiny random models in the published layout.

    python -m venv REF
    REF/bin/pip install torch==2.13.0 transformers==4.44.2 peft==0.12.0 accelerate==0.34.2 evaluate scikit-learn
    REF/bin/pip install --no-deps llm2vec==0.2.3 'numpy<2'
    python benchmarks/parity_llm2vec.py --reference-python REF/bin/python

The reference needs an old transformers, so it runs in an environment of its own (`llm2vec_reference.py`), makes the
models there, as the published ones were made, and encodes them. Both sides use float32. Prints the largest difference
of a value between unit vectors and the largest 1 - cosine; exits with 1 when one of them is above 1e-4.

Two things are set apart. Where the tokens of a text are others behind an instruction than alone, the reference, which
counts the tokens of the text alone, pools too few or too many: those texts are listed for themselves. And its Qwen2 is
causal: it is compared with a causal encoder, and with what the same weights give when they are read both ways.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import table

from ragindex.encoder import Encoder
from ragindex.encoder.checkpoint import Attention, Pooling
from ragindex.encoder.tokenizer import EncoderTokenizer, Tokenized
from ragindex.encoder.torch_forward import TorchForward

_LIMIT = 1e-4
# "stored" is what a folder says of itself.
_POOLINGS: dict[str, Pooling] = {"mean": "mean", "weighted_mean": "weighted-mean", "last_token": "last"}


@dataclass(frozen=True, slots=True)
class Case:
    """What was encoded once. leak: how far the reference's first state moves when the last token changes."""

    key: str
    model: str
    adapter: str | None
    instruction: str
    pooling: str
    leak: float

    @property
    def family(self) -> str:
        """The kind of model, "llama-2" for one."""
        return self.model.partition("/")[0]

    @property
    def label(self) -> str:
        """The row in the table that it belongs to."""
        stages = [self.model.rpartition("/")[2], *([] if self.adapter is None else ["supervised"])]
        return f"{self.family}, {' + '.join(stages)}, {self.pooling.replace('_', ' ')}"


@dataclass(frozen=True, slots=True)
class Difference:
    """Between two lists of unit vectors, text by text."""

    values: np.ndarray  # (n,), largest of a value
    cosines: np.ndarray  # (n,), 1 - cosine

    @classmethod
    def between(cls, one: np.ndarray, other: np.ndarray) -> Difference:
        """Of two arrays (n, d)."""
        return cls(np.abs(one - other).max(axis=1), 1 - (one * other).sum(axis=1))

    @property
    def largest(self) -> float:
        """The worst of all texts, in either measure."""
        return float(max(self.values.max(initial=0), self.cosines.max(initial=0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference-python", required=True, metavar="PATH", help="python with llm2vec 0.2.3")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="ragindex-parity-") as scratch:
        run_reference(options.reference_python, Path(scratch))
        failed = compare(Path(scratch))
    raise SystemExit(1 if failed else 0)


def run_reference(python: str, folder: Path) -> None:
    """Make the models and the reference's vectors in `folder`."""
    script = Path(__file__).with_name("llm2vec_reference.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    result = subprocess.run([python, str(script), str(folder)], check=False, env=environment, capture_output=True)
    if result.returncode:
        sys.exit(f"The reference failed:\n{result.stderr.decode()[-2000:]}")


def compare(folder: Path) -> bool:
    """Print the tables; whether a vector is further from the reference's than it may be."""
    stored = json.loads((folder / "cases.json").read_text(encoding="utf-8"))
    texts: list[str] = stored["texts"]
    cases = [Case(**case) for case in stored["cases"]]
    with np.load(folder / "vectors.npz") as file:
        theirs = {case.key: _unit(file[case.key]) for case in cases}
    rows, boundary = [], []
    failed = False
    for label, group in groupby(cases, key=lambda case: case.label):
        found = {True: Difference(np.zeros(0), np.zeros(0)), False: Difference(np.zeros(0), np.zeros(0))}
        for case in group:
            encoder = load(folder, case, _attention(case))
            difference = Difference.between(encode(encoder, texts, case.instruction), theirs[case.key])
            alike = same_tokens(encoder, texts, case.instruction)
            told = bool(case.instruction)
            found[told] = _joined(found[told], _only(difference, alike))
            boundary += [
                (case.family, repr(case.instruction[:24]), repr(texts[place][:32]), f"{difference.values[place]:.1e}")
                for place in np.flatnonzero(~alike)
                if case.pooling == "mean" and case.model.endswith("base")
            ]
        failed = failed or any(item.largest > _LIMIT for item in found.values())
        rows.append((label, *_cells(found[False]), *_cells(found[True])))
    print(table(("model", "value", "1 - cosine", "value, instructed", "1 - cosine, instructed"), rows))
    print("\nTexts whose tokens are others behind the instruction (not in the table above):\n")
    print(table(("model", "instruction", "text", "value"), boundary))
    print("\nAttention: how far the first token's state moves when the last token is another one, relatively:\n")
    print(
        table(
            ("model", "reference", "ragindex", "1 - cosine between them"), list(attention(folder, cases, texts, theirs))
        )
    )
    return failed


def attention(
    folder: Path, cases: Sequence[Case], texts: Sequence[str], theirs: dict[str, np.ndarray]
) -> Iterator[tuple[str, str, str, str]]:
    """A row for each family: whether its states see what follows, and what that does to the vectors."""
    for case in cases:
        if case.adapter is None or case.instruction or case.pooling != "mean" or case.model.endswith("chat"):
            continue
        encoder = load(folder, case, "bidirectional")
        forward = TorchForward(encoder._checkpoint, device="cpu", dtype=torch.float32)
        ids = np.tile(np.arange(300, 312), (2, 1))
        ids[1, -1] = 320
        one, other = forward.states([Tokenized(row, np.ones(len(row), dtype=bool)) for row in ids])
        moved = float(np.linalg.norm(one[0] - other[0]) / np.linalg.norm(one[0]))
        between = Difference.between(encode(encoder, texts, ""), theirs[case.key])
        yield case.family, f"{case.leak:.2f}", f"{moved:.2f}", f"{between.cosines.max():.1e}"


def load(folder: Path, case: Case, direction: Attention) -> Encoder:
    """The model of a case as a user would load it."""
    adapters = [] if case.adapter is None else [folder / case.adapter]
    pooling = _POOLINGS.get(case.pooling)
    return Encoder.load(folder / case.model, adapters=adapters, attention=direction, pooling=pooling, device="cpu")


def encode(encoder: Encoder, texts: Sequence[str], instruction: str) -> np.ndarray:
    """Unit vectors (n, d) in float32, whatever the hardware would rather have."""
    forward = TorchForward(encoder._checkpoint, device="cpu", dtype=torch.float32)
    prompts = encoder.config.prompts
    return forward(encoder.tokenizer.tokenize([prompts.for_query(text, instruction) for text in texts]))


def same_tokens(encoder: Encoder, texts: Sequence[str], instruction: str) -> np.ndarray:
    """Whether a text has as many tokens behind the instruction as alone: bool (n,)."""
    config = replace(encoder.config, pool_special=False, prompts=replace(encoder.config.prompts, pooled="from-text"))
    tokenizer = EncoderTokenizer(replace(encoder._checkpoint, config=config))
    behind = tokenizer.tokenize([config.prompts.for_query(text, instruction) for text in texts])
    alone = tokenizer.tokenize([config.prompts.for_query(text, "") for text in texts])
    return np.asarray([one.pooled.sum() == other.pooled.sum() for one, other in zip(behind, alone, strict=True)])


def _attention(case: Case) -> Attention:
    return "causal" if case.family == "qwen2" else "bidirectional"


def _only(difference: Difference, places: np.ndarray) -> Difference:
    return Difference(difference.values[places], difference.cosines[places])


def _joined(one: Difference, other: Difference) -> Difference:
    return Difference(np.append(one.values, other.values), np.append(one.cosines, other.cosines))


def _cells(difference: Difference) -> list[str]:
    return [f"{difference.values.max(initial=0):.1e}", f"{difference.cosines.max(initial=0):.1e}"]


def _unit(vectors: Any) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


if __name__ == "__main__":
    main()

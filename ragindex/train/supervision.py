"""Examples for a supervised run: read, guarded against evaluations, freed of repeats, split."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ragindex.errors import TrainingError
from ragindex.train.data.dedupe import deduplicate
from ragindex.train.data.examples import Example, read_examples
from ragindex.train.data.keys import text_key
from ragindex.train.data.leakage import EvaluationGuard

__all__ = ["Supervision", "read_supervision"]

_MOST = 1000  # examples to measure on


@dataclass(frozen=True, slots=True)
class Supervision:
    """What is learnt, and what is measured; no query is in both."""

    learnt: Sequence[Example]
    held_out: Sequence[Example]

    @property
    def sources(self) -> str:
        """How many sources, in words."""
        count = len({example.source for example in self.learnt})
        return "1 source" if count == 1 else f"{count} sources"


def read_supervision(
    paths: Sequence[Path],
    *,
    guarded: Sequence[Path] = (),
    held_out: float = 0.05,
    instruction: str | None = None,
    seed: int = 7,
) -> Supervision:
    """The examples of all `paths`, each once.

    guarded: data sets whose queries must not be among them. held_out: share of the queries that are measured on, at
    most 1000 of them. instruction: of all queries, in place of their own. Raises TrainingError for unreadable
    examples and for a leak.
    """
    examples = [example for path in paths for example in read_examples(path)]
    EvaluationGuard.from_datasets(guarded).check(examples)
    if instruction is not None:
        examples = [replace(example, instruction=instruction) for example in examples]
    examples = deduplicate(examples, threshold=None)
    asked = sorted({text_key(example.query) for example in examples})
    random.Random(seed).shuffle(asked)  # noqa: S311 - sampling, not secrecy
    apart = set(asked[: min(_MOST, int(held_out * len(asked)))])
    learnt = [example for example in examples if text_key(example.query) not in apart]
    measured = [example for example in examples if text_key(example.query) in apart]
    if not learnt:
        raise TrainingError("There are no examples to train on.")
    return Supervision(learnt, measured[:_MOST])

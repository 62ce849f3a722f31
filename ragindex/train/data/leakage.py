"""Keeps evaluation queries out of training data; knows them by hash, and so in any case and punctuation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ragindex.errors import TrainingError
from ragindex.evaluation import load_dataset
from ragindex.train.data.examples import Example
from ragindex.train.data.keys import text_key

__all__ = ["EvaluationGuard", "Leak"]


class Leak(NamedTuple):
    """An example that holds an evaluation query: its place in the data, what of it does, and whose query it is."""

    example: int
    part: str  # "query" or "positive"
    evaluation: str


class EvaluationGuard:
    """The queries of evaluations, as hashes of their folded texts (`keys.folded`).

    An example leaks when its query or its positive is such a query. Documents may be trained on: adapting to a corpus
    without its judgments is what the corpus is for.
    """

    def __init__(self, names: Mapping[bytes, str]) -> None:
        self._names = dict(names)

    @classmethod
    def from_queries(cls, texts: Iterable[str], *, name: str = "the evaluation") -> EvaluationGuard:
        """Guards these queries; `name` is what an error calls them."""
        return cls({text_key(text): name for text in texts if text.strip()})

    @classmethod
    def from_datasets(cls, directories: Sequence[Path], *, split: str = "test") -> EvaluationGuard:
        """Guards the queries judged in `split` of these data sets. Raises UsageError for a folder that is none."""
        guards = []
        for directory in directories:
            dataset = load_dataset(directory, split=split)
            guards.append(cls.from_queries(dataset.queries.values(), name=dataset.name))
        return cls.union(guards)

    @classmethod
    def union(cls, guards: Iterable[EvaluationGuard]) -> EvaluationGuard:
        """Guards what any of these guards; a query of several keeps the name of the first."""
        names: dict[bytes, str] = {}
        for guard in guards:
            names = {**guard._names, **names}
        return cls(names)

    def __len__(self) -> int:
        """How many different queries are guarded."""
        return len(self._names)

    def leaks(self, examples: Iterable[Example]) -> Iterator[Leak]:
        """The examples that leak, in order."""
        for index, example in enumerate(examples):
            leak = self._leak(index, example)
            if leak is not None:
                yield leak

    def check(self, examples: Sequence[Example], *, name: str = "The training data") -> None:
        """Raise TrainingError, with their number and the first one's place, when any example leaks."""
        leaks = list(self.leaks(examples))
        if not leaks:
            return
        first = leaks[0]
        source = examples[first.example].source
        many = f"{len(leaks)} evaluation queries" if len(leaks) > 1 else "an evaluation query"
        raise TrainingError(
            f"{name} contains {many}: the first is the {first.part} of example {first.example + 1}"
            f"{f' (source {source!r})' if source else ''}, a query of {first.evaluation}; remove them before training."
        )

    def filter(self, examples: Iterable[Example]) -> Iterator[Example]:
        """The examples that do not leak."""
        return (example for example in examples if self._leak(0, example) is None)

    def _leak(self, index: int, example: Example) -> Leak | None:
        for part, text in (("query", example.query), ("positive", example.positive)):
            evaluation = self._names.get(text_key(text))
            if evaluation is not None:
                return Leak(index, part, evaluation)
        return None

"""Evaluation queries are refused, however they are spelt; documents are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragindex.errors import TrainingError, UsageError
from ragindex.evaluation import Dataset, Passage, save_dataset
from ragindex.train.data import EvaluationGuard, Example

QUERY = "Why do tides rise twice a day?"
PASSAGE = "The moon pulls at the near side more than at the far side."


def saved(folder: Path) -> Path:
    dataset = Dataset(
        name="sea",
        corpus={"d1": Passage("Tides", PASSAGE)},
        files=None,
        queries={"q1": QUERY, "q2": "spring tide"},
        qrels={"q1": {"d1": 1}, "q2": {"d1": 1}},
    )
    save_dataset(dataset, folder)
    with (folder / "queries.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"_id": "q3", "text": "a query of another split"}\n')
    return folder


@pytest.mark.parametrize(
    "example",
    [
        Example(QUERY, PASSAGE, source="nq"),
        Example("why do TIDES rise,  twice a day", PASSAGE, source="nq"),
        Example("Ｗhy do tides rise twice a day？", PASSAGE, source="nq"),
        Example("something else", "Spring tide.", source="nq"),
    ],
)
def test_a_query_of_an_evaluation_is_refused(tmp_path: Path, example: Example) -> None:
    guard = EvaluationGuard.from_datasets([saved(tmp_path / "sea")])
    part = "positive" if example.query == "something else" else "query"
    place = rf"the first is the {part} of example 2 \(source 'nq'\), a query of sea"
    with pytest.raises(TrainingError, match=rf"^pairs\.jsonl contains an evaluation query: {place}"):
        guard.check([Example("fine", "fine"), example], name="pairs.jsonl")
    assert list(guard.filter([Example("fine", "fine"), example])) == [Example("fine", "fine")]


def test_all_leaks_are_counted_and_the_first_is_named() -> None:
    guard = EvaluationGuard.from_queries([QUERY, " ", "other"], name="the judgments")
    assert len(guard) == 2
    examples = [Example(f"fine {number}", PASSAGE) for number in range(5)]
    examples[2:4] = [Example("OTHER", "text"), Example("q", QUERY)]
    assert [(leak.example, leak.part) for leak in guard.leaks(examples)] == [(2, "query"), (3, "positive")]
    with pytest.raises(
        TrainingError, match="contains 2 evaluation queries: the first is the query of example 3, a query of the judgm"
    ):
        guard.check(examples)


def test_documents_and_queries_of_other_splits_may_be_trained_on(tmp_path: Path) -> None:
    guard = EvaluationGuard.from_datasets([saved(tmp_path / "sea")])
    assert len(guard) == 2
    allowed = [
        Example("Tides", PASSAGE),
        Example("a query of another split", PASSAGE),
        Example(f"{QUERY} And why is the second one lower?", PASSAGE),
        Example("fine", PASSAGE, negatives=(QUERY,)),
    ]
    guard.check(allowed)
    assert list(guard.filter(iter(allowed))) == allowed


def test_guards_add_up(tmp_path: Path) -> None:
    one = EvaluationGuard.from_queries(["a", "b"], name="first")
    two = EvaluationGuard.from_queries(["B", "c"], name="second")
    guard = EvaluationGuard.union([one, two])
    assert [leak.evaluation for leak in guard.leaks([Example(text, "x") for text in "cba"])] == [
        "second",
        "first",
        "first",
    ]
    assert len(EvaluationGuard.union([])) == 0
    with pytest.raises(UsageError, match="is not a folder"):
        EvaluationGuard.from_datasets([tmp_path / "none"])

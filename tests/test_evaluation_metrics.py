from __future__ import annotations

import json
import random

import numpy as np
import pytest
import pytrec_eval

from ragindex.errors import UsageError
from ragindex.evaluation import EvalReport, evaluate, table
from ragindex.evaluation.metrics import average_precision, judged, ndcg, ranked, recall, reciprocal_rank


def _random_case(seed: int) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    """Graded judgments with negatives and zeros, scores with many ties, unanswered and unjudged queries."""
    generator = random.Random(seed)
    documents = [f"d{number}" for number in range(250)]
    run, qrels = {}, {}
    for number in range(20):
        pool = generator.sample(documents, generator.randint(1, 60))
        qrels[f"q{number}"] = {document: generator.choice([-1, 0, 0, 1, 1, 2, 3]) for document in pool}
        if number % 7:
            found = generator.sample(documents, generator.randint(1, 200))
            run[f"q{number}"] = {document: generator.randint(0, 20) / 4 for document in found}
    return run, qrels


@pytest.mark.parametrize("seed", range(8))
def test_metrics_agree_with_trec_eval(seed: int) -> None:
    run, qrels = _random_case(seed)
    measures = {"ndcg_cut.10,100", "recall.5,100", "map_cut.10,100", "recip_rank"}
    expected = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    rankings = {query: ranked(scores) for query, scores in run.items()}
    ours = {
        "ndcg_cut_10": ndcg(rankings, qrels, k=10),
        "ndcg_cut_100": ndcg(rankings, qrels, k=100),
        "recall_5": recall(rankings, qrels, k=5),
        "recall_100": recall(rankings, qrels, k=100),
        "map_cut_10": average_precision(rankings, qrels, k=10),
        "map_cut_100": average_precision(rankings, qrels, k=100),
        "recip_rank": reciprocal_rank(rankings, qrels, k=1000),
    }
    queries = judged(qrels)
    assert set(queries) & set(expected)
    for name, values in ours.items():
        theirs = [expected.get(query, {}).get(name, 0.0) for query in queries]
        np.testing.assert_allclose(values, theirs, atol=1e-6, err_msg=name)


def test_a_worked_example() -> None:
    qrels = {"q": {"a": 3, "b": 1, "c": 0}, "none": {"a": 0}, "unanswered": {"a": 1}}
    rankings = {"q": ["c", "a", "x", "b"], "extra": ["a"]}
    best = 3 + 1 / np.log2(3)
    assert judged(qrels) == ["q", "unanswered"]
    np.testing.assert_allclose(ndcg(rankings, qrels), [(3 / np.log2(3) + 1 / np.log2(5)) / best, 0])
    np.testing.assert_allclose(ndcg(rankings, qrels, k=2), [3 / np.log2(3) / best, 0])
    np.testing.assert_allclose(recall(rankings, qrels, k=3), [0.5, 0])
    np.testing.assert_allclose(reciprocal_rank(rankings, qrels, k=2), [0.5, 0])
    np.testing.assert_allclose(reciprocal_rank(rankings, qrels, k=1), [0, 0])
    np.testing.assert_allclose(average_precision(rankings, qrels, k=4), [(1 / 2 + 2 / 4) / 2, 0])


def test_ties_are_broken_by_descending_id() -> None:
    assert ranked({"a": 1.0, "c": 1.0, "b": 2.0, "é": 1.0}) == ["b", "é", "c", "a"]


def test_a_document_named_twice_is_an_error() -> None:
    with pytest.raises(UsageError, match="'q' names a document twice"):
        ndcg({"q": ["a", "a"]}, {"q": {"a": 1}})


def test_a_cut_off_below_one_is_an_error() -> None:
    with pytest.raises(UsageError, match="cut-off"):
        recall({}, {"q": {"a": 1}}, k=0)


def test_report_has_the_promised_keys_and_a_table() -> None:
    qrels = {f"q{number}": {"a": 1} for number in range(20)}
    rankings = {f"q{number}": ["b", "a"] if number % 2 else ["a"] for number in range(20)}
    mode = evaluate(rankings, qrels)
    value = json.loads(json.dumps(EvalReport("tiny", 1234, 20, {"dense": mode, "hybrid": mode}).as_json()))
    assert list(value) == ["dataset", "documents", "queries", "modes"]
    assert list(value["modes"]["dense"]) == ["ndcg@10", "recall@100", "mrr@10", "map@100", "ci95"]
    assert value["modes"]["dense"]["mrr@10"] == pytest.approx(0.75)
    assert value["modes"]["dense"]["recall@100"] == 1.0
    mean = (1 + 1 / np.log2(3)) / 2
    low, high = value["modes"]["dense"]["ci95"]
    assert value["modes"]["dense"]["ndcg@10"] == pytest.approx(mean)
    assert low < mean < high
    lines = table(EvalReport("tiny", 1234, 20, {"dense": mode, "hybrid": mode})).split("\n")
    assert lines[0] == "tiny: 1,234 documents, 20 queries"
    assert lines[1].split()[0] == "mode"
    assert [line.split()[0] for line in lines[2:]] == ["dense", "hybrid"]
    assert len({len(line) for line in lines[1:]}) == 1
    assert f"{mean:.3f}" in lines[2]


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(UsageError, match="nothing to measure"):
        evaluate({"q": ["a"]}, {"q": {"a": 0}})

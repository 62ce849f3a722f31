from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval

from ragindex.errors import UsageError
from ragindex.evaluation import evaluate
from ragindex.evaluation.metrics import (
    METRICS,
    average_precision,
    judged,
    measured,
    ndcg,
    ranked,
    recall,
    reciprocal_rank,
)
from ragindex.evaluation.runs import read_run, write_run


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


_TREC = {"ndcg@10": "ndcg_cut_10", "recall@10": "recall_10", "recall@100": "recall_100", "map@100": "map_cut_100"}


@pytest.mark.parametrize("seed", range(4))
def test_what_is_reported_agrees_with_trec_eval_on_the_run_file_that_is_written(seed: int, tmp_path: Path) -> None:
    run, qrels = _random_case(seed)
    write_run(run, tmp_path / "a.run")
    rankings = {query: ranked(scores) for query, scores in run.items()}
    ours = measured(rankings, qrels)
    measures = {"ndcg_cut.10", "recall.10,100", "map_cut.100", "recip_rank"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(read_run(tmp_path / "a.run"))
    # trec_eval's reciprocal rank has no cut-off, so it reads the first ten only.
    top = {query: {document: run[query][document] for document in found[:10]} for query, found in rankings.items()}
    cut = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(top)
    for name in METRICS:
        source, key = (cut, "recip_rank") if name == "mrr@10" else (theirs, _TREC[name])
        expected = [source.get(query, {}).get(key, 0.0) for query in judged(qrels)]
        np.testing.assert_allclose(ours[name], expected, atol=1e-6, err_msg=name)
        assert evaluate(rankings, qrels).estimates[name].value == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.filterwarnings("ignore")  # ranx and numba have their own
@pytest.mark.parametrize("seed", range(2))
def test_what_is_reported_agrees_with_ranx(seed: int) -> None:
    ranx = pytest.importorskip("ranx", reason="ranx brings numba, which the tests do without")
    run, qrels = _random_case(seed)
    rankings = {query: ranked(scores) for query, scores in run.items()}
    wanted = judged(qrels)
    positive = {query: {key: gain for key, gain in qrels[query].items() if gain > 0} for query in wanted}
    # Reciprocal ranks as scores, so that ranx has no ties to break in its own way.
    scored = {query: {key: 1 / rank for rank, key in enumerate(rankings.get(query, ()), 1)} for query in wanted}
    scored = {query: scores or {"none": 1.0} for query, scores in scored.items()}
    theirs = ranx.evaluate(ranx.Qrels(positive), ranx.Run(scored), list(METRICS))
    for name, values in measured(rankings, qrels).items():
        assert values.mean() == pytest.approx(theirs[name], abs=1e-6), name


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(UsageError, match="nothing to measure"):
        evaluate({"q": ["a"]}, {"q": {"a": 0}})

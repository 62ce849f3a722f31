from __future__ import annotations

import gzip
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ragindex.errors import UsageError
from ragindex.evaluation import Dataset, Passage, limit_dataset, load_dataset, save_dataset
from ragindex.evaluation.runs import read_run, write_run
from ragindex.evaluation.sts import load_sts

CORPUS = '{"_id": "d1", "title": "One", "text": "first"}\n{"_id": "d2", "text": "second\u2028line"}\n'
QUERIES = '{"_id": "q1", "text": "what?"}\n\n{"_id": 2, "text": "who?"}\n'
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n2\td2\t1\n"


def build(folder: Path, *, corpus: str = CORPUS, queries: str = QUERIES, qrels: str = QRELS) -> Path:
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    (folder / "corpus.jsonl").write_text(corpus, encoding="utf-8")
    (folder / "queries.jsonl").write_text(queries, encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text(qrels, encoding="utf-8")
    return folder


def test_beir_layout(tmp_path: Path) -> None:
    data = load_dataset(build(tmp_path / "tiny"))
    assert data.name == "tiny"
    assert data.corpus == {"d1": Passage("One", "first"), "d2": Passage("", "second\u2028line")}
    assert data.queries == {"q1": "what?", "2": "who?"}
    assert data.qrels == {"q1": {"d1": 2, "d2": 0}, "2": {"d2": 1}}
    assert data.files is None
    assert data.unknown_documents == data.unknown_queries == ()


@pytest.mark.parametrize(
    "qrels",
    [
        "q1\td1\t2\nq1\td2\t0\n2\td2\t1",
        "q1 0 d1 2\r\nq1 0 d2 0\r\n2 0 d2 1\r\n",
        "\ufeffq1\t0\td1\t2\nq1\tQ0\td2\t0\n\n2\t0\td2\t1.0\n",
    ],
)
def test_other_spellings_of_judgments(tmp_path: Path, qrels: str) -> None:
    assert load_dataset(build(tmp_path, qrels=qrels)).qrels == {"q1": {"d1": 2, "d2": 0}, "2": {"d2": 1}}


def test_compressed_files(tmp_path: Path) -> None:
    expected = load_dataset(build(tmp_path))
    for name in ("corpus.jsonl", "queries.jsonl"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        (tmp_path / name).unlink()
    assert load_dataset(tmp_path) == expected
    whole = (tmp_path / "corpus.jsonl.gz").read_bytes()
    (tmp_path / "corpus.jsonl.gz").write_bytes(whole[:-12])
    with pytest.raises(UsageError, match=r"corpus\.jsonl\.gz cannot be read after line"):
        load_dataset(tmp_path)


def test_queries_that_measure_nothing_are_left_out(tmp_path: Path) -> None:
    data = load_dataset(build(tmp_path, qrels="q1\td1\t0\n2\td2\t1\n"))
    assert list(data.queries) == list(data.qrels) == ["2"]


def test_unknown_ids_are_reported(tmp_path: Path) -> None:
    data = load_dataset(build(tmp_path, qrels=QRELS + "q9\td1\t1\nq1\tgone\t1\n"))
    assert data.unknown_queries == ("q9",)
    assert data.unknown_documents == ("gone",)
    assert set(data.qrels) == {"q1", "2"}
    assert data.qrels["q1"]["gone"] == 1
    with pytest.raises(UsageError, match="do the ids in qrels match"):
        load_dataset(build(tmp_path, qrels="q1\tx\t1\nq9\td1\t1\n"))


def test_a_folder_of_files(tmp_path: Path) -> None:
    build(tmp_path, qrels="q1\tsub dir/a.md\t1\nq1\tb.txt\t1\n")
    (tmp_path / "corpus.jsonl").unlink()
    (tmp_path / "corpus" / "sub dir").mkdir(parents=True)
    (tmp_path / "corpus" / "sub dir" / "a.md").write_text("text", encoding="utf-8")
    data = load_dataset(tmp_path)
    assert data.corpus is None
    assert data.files == tmp_path / "corpus"
    assert data.unknown_documents == ("b.txt",)
    with pytest.raises(UsageError, match="copy the folder"):
        save_dataset(data, tmp_path / "copy")


@pytest.mark.parametrize(
    ("part", "text", "message"),
    [
        ("corpus", CORPUS + "{", r"corpus\.jsonl:3 is not JSON"),
        ("corpus", "[]", r"corpus\.jsonl:1 is not a JSON object"),
        ("corpus", "[" * 100_000, r"corpus\.jsonl:1 is not JSON"),
        ("corpus", '{"text": "x"}', r'corpus\.jsonl:1 has no "_id"'),
        ("corpus", '{"_id": true, "text": "x"}', r'corpus\.jsonl:1 has no "_id"'),
        ("corpus", '{"_id": "d1", "text": 3}', r'corpus\.jsonl:1 has no "text" that is a string'),
        ("corpus", CORPUS + '\n{"_id": "d1", "text": ""}', r"corpus\.jsonl:4 repeats the id 'd1'"),
        ("queries", '{"_id": "q1"}', r'queries\.jsonl:1 has no "text"'),
        ("qrels", "a\tb\n", r"test\.tsv:1 has 2 columns"),
        ("qrels", QRELS + "q1\td2\tyes\n", r"test\.tsv:5 has the score 'yes'"),
        ("qrels", QRELS + "q1\td2\t0.5\n", r"test\.tsv:5 has the score '0.5'"),
        ("qrels", QRELS + "q1\td2\t1\n", r"test\.tsv:5 contradicts an earlier judgment"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, part: str, text: str, message: str) -> None:
    file = build(tmp_path) / {"qrels": "qrels/test.tsv"}.get(part, f"{part}.jsonl")
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        load_dataset(tmp_path)
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (build(tmp_path) / "queries.jsonl").write_bytes(b'{"_id": "q1", "text": "a"}\n{"_id": "q2", "text": "\xe9"}\n')
    with pytest.raises(UsageError, match=r"queries\.jsonl:2 is not UTF-8"):
        load_dataset(tmp_path)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"does not exist; there is test\."):
        load_dataset(build(tmp_path), split="dev")
    (tmp_path / "queries.jsonl").unlink()
    with pytest.raises(UsageError, match=r"has no queries\.jsonl"):
        load_dataset(tmp_path)
    (tmp_path / "corpus.jsonl").unlink()
    with pytest.raises(UsageError, match=r"neither corpus\.jsonl nor"):
        load_dataset(tmp_path)
    with pytest.raises(UsageError, match="not a folder"):
        load_dataset(tmp_path / "nowhere")


def test_save_and_load_give_the_same_data(tmp_path: Path) -> None:
    data = load_dataset(build(tmp_path / "same"))
    save_dataset(data, tmp_path / "copy" / "same", split="dev")
    assert load_dataset(tmp_path / "copy" / "same", split="dev") == data
    bad = Dataset("x", {"a\tb": Passage("", "")}, None, {"q": ""}, {"q": {"a\tb": 1}})
    with pytest.raises(UsageError, match="tab-separated"):
        save_dataset(bad, tmp_path / "bad")


def test_limit_asks_for_every_pair_of_people(tmp_path: Path) -> None:
    data = limit_dataset(people=10, likes=12, bystanders=5, seed=3)
    assert data.corpus is not None
    assert len(data.corpus) == 15
    pairs = {frozenset(rows) for rows in data.qrels.values()}
    assert len(pairs) == len(data.queries) == 45
    assert pairs == {frozenset(pair) for pair in itertools.combinations(set().union(*pairs), 2)}
    for query, text in data.queries.items():
        thing = text.removeprefix("Who likes ").removesuffix("?")
        holders = {name for name, passage in data.corpus.items() if thing in _liked(passage.text)}
        assert holders == set(data.qrels[query])
    assert {len(_liked(passage.text)) for passage in data.corpus.values()} == {12}
    assert all(passage.text.startswith(f"{name} likes ") for name, passage in data.corpus.items())
    save_dataset(data, tmp_path / data.name)
    assert load_dataset(tmp_path / data.name) == data


def _liked(text: str) -> list[str]:
    things = text.split(" likes ")[1].rstrip(".").replace(" and ", ", ").split(", ")
    assert len(set(things)) == len(things)
    return things


def test_limit_is_seeded_and_knows_its_size() -> None:
    assert limit_dataset(people=5, likes=4, seed=1) == limit_dataset(people=5, likes=4, seed=1)
    assert limit_dataset(people=5, likes=4, seed=1) != limit_dataset(people=5, likes=4, seed=2)
    full = limit_dataset()
    assert (len(full.queries), len(full.corpus or {})) == (1035, 46)
    for options in ({"people": 1}, {"people": 60, "likes": 50}, {"people": 200, "likes": 300}, {"bystanders": 10**6}):
        with pytest.raises(UsageError):
            limit_dataset(**options)


def test_run_files_round_trip(tmp_path: Path) -> None:
    run = {"q1": {"my file.md": 0.1 + 0.2, "b": 1e-300, "c": 5.0}, "q2": {"a": -1.0}}
    file = tmp_path / "a.run"
    write_run(run, file, tag="mine")
    assert read_run(file) == run
    first = file.read_text(encoding="utf-8").split("\n")[0]
    assert first == "q1\tQ0\tc\t1\t5.0\tmine"
    file.write_text("q1 Q0 a 1 2.5 x\n\nq1 Q0 b 2 1 x\n", encoding="utf-8")
    assert read_run(file) == {"q1": {"a": 2.5, "b": 1.0}}


@pytest.mark.parametrize(
    ("line", "message"),
    [("q Q0 d 1 2", "has 5 columns"), ("q Q0 d 1 high x", "'high'"), ("q Q0 a 1 1 x", "names document 'a' twice")],
)
def test_malformed_runs_are_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "a.run"
    file.write_text(f"q Q0 a 1 1 x\n{line}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        read_run(file)
    assert "a.run:2" in str(caught.value)


def test_runs_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    for run in ({"q\t": {"a": 1.0}}, {"q": {"": 1.0}}, {"q": {"a": float("nan")}}):
        with pytest.raises(UsageError):
            write_run(run, tmp_path / "a.run")
    with pytest.raises(UsageError, match="cannot be read"):
        read_run(tmp_path / "none.run")


def test_sts_pairs(tmp_path: Path) -> None:
    file = tmp_path / "sts.tsv"
    file.write_text('score\ts1\ts2\n2.5\ta "b\tc\n0\td\te\textra\n', encoding="utf-8")
    pairs = load_sts(file)
    assert (pairs.left, pairs.right, pairs.scores) == (('a "b', "d"), ("c", "e"), (2.5, 0.0))
    for text, message in (
        ("1\ta\n", ":1 has 2 columns"),
        ("1\ta\tb\nx\ta\tb\n", ":2 has the score 'x'"),
        ("", "no pairs"),
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match=message):
            load_sts(file)


def test_evaluation_loads_no_encoder_store_or_search() -> None:
    code = "import json, sys, ragindex.evaluation; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    unwanted = ("ragindex.encoder", "ragindex.store", "ragindex.search", "torch", "faiss", "transformers")
    assert [name for name in loaded if name.startswith(unwanted)] == []

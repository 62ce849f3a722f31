"""`ragindex eval`: data sets, sentence pairs, generated data, two encoders, and the files it leaves."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytrec_eval
from click.testing import CliRunner, Result
from tiny import SENTENCES, tiny_encoder

from ragindex import Encoder
from ragindex.cli import main
from ragindex.cli.evaluating.reading import Generated, read_datasets
from ragindex.evaluation import limit_dataset, load_dataset
from ragindex.evaluation.metrics import METRICS
from ragindex.evaluation.runs import read_run
from ragindex.evaluation.sts import load_sts, spearman
from ragindex.measure import Unwatched

CONTRACT = ("ndcg@10", "recall@100", "mrr@10", "map@100", "ci95")


@pytest.fixture(scope="module")
def other_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with other weights and the same tokenizer as the usual tiny one."""
    return tiny_encoder(tmp_path_factory.mktemp("encoder") / "other", seed=5, pooling="last")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("RAGINDEX_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_set(folder: Path, *, documents: int = 30, extra: str = "") -> Path:
    """A data set whose queries are the beginnings of its documents' first sentences; three answers each."""
    texts = {f"d{n}": f"{SENTENCES[n % 10]} {SENTENCES[(n * 3 + 1) % 10]} Number {n}." * 2 for n in range(documents)}
    (folder / "qrels").mkdir(parents=True)
    rows = [json.dumps({"_id": key, "title": "", "text": text}) for key, text in texts.items()]
    (folder / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
    queries = [json.dumps({"_id": f"q{n}", "text": sentence[:40]}) for n, sentence in enumerate(SENTENCES)]
    (folder / "queries.jsonl").write_text("\n".join(queries), encoding="utf-8")
    judged = [f"q{n % 10}\td{n}\t{1 + n % 2}" for n in range(documents)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(judged) + extra, encoding="utf-8")
    return folder


def write_pairs(file: Path, *, count: int = 30) -> Path:
    rows = [f"{n % 6}\t{SENTENCES[n % 10]}\t{SENTENCES[(n * n) % 10]} {'and so on ' * (n % 4)}" for n in range(count)]
    file.write_text("\n".join(rows), encoding="utf-8")
    return file


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["eval", *map(str, arguments)])


def run_json(*arguments: str | Path) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def check_modes(modes: Mapping[str, Any]) -> None:
    assert list(modes) == ["dense", "lexical", "hybrid"]
    for figures in modes.values():
        assert tuple(figures)[:5] == CONTRACT
        assert set(figures["intervals"]) == set(METRICS)
        assert figures["intervals"]["ndcg@10"] == figures["ci95"]
        for name, (low, high) in figures["intervals"].items():
            assert 0 <= low <= figures[name] <= high <= 1


def test_one_data_set_keeps_to_the_contract(here: Path, tiny_encoder_dir: Path) -> None:
    value = run_json(write_set(here / "one"), "--encoder", tiny_encoder_dir)
    assert list(value)[:4] == ["dataset", "documents", "queries", "modes"]
    assert (value["dataset"], value["documents"], value["queries"]) == ("one", 30, 10)
    assert value["encoder"] == str(tiny_encoder_dir)
    assert not {"comparison", "length"} & set(value)
    check_modes(value["modes"])
    assert value["modes"]["lexical"]["recall@100"] == 1.0


def test_two_encoders_are_compared_query_by_query(here: Path, tiny_encoder_dir: Path, other_dir: Path) -> None:
    write_set(here / "one")
    value = run_json("one", "--encoder", tiny_encoder_dir, "--against", other_dir)
    comparison = value["comparison"]
    assert comparison["against"] == str(other_dir)
    check_modes(comparison["modes"])
    assert comparison["modes"] == run_json("one", "--encoder", other_dir)["modes"]
    for mode, by_metric in comparison["differences"].items():
        assert list(by_metric) == list(METRICS)
        for name, each in by_metric.items():
            ours, theirs = value["modes"][mode][name], comparison["modes"][mode][name]
            assert each["difference"] == pytest.approx(ours - theirs)
            assert each["ci95"][0] <= each["difference"] <= each["ci95"][1]
            assert each["wins"] + each["losses"] + each["ties"] == 10
            assert 0 < each["p_value"] <= 1
    assert {each["ties"] for each in comparison["differences"]["lexical"].values()} == {10}
    assert comparison["differences"]["dense"]["ndcg@10"]["difference"] != 0
    back = run_json("one", "--encoder", other_dir, "--against", tiny_encoder_dir)["comparison"]["differences"]["dense"]
    for name, each in comparison["differences"]["dense"].items():
        assert back[name]["difference"] == pytest.approx(-each["difference"])
        assert (back[name]["wins"], back[name]["losses"]) == (each["losses"], each["wins"])
        assert back[name]["p_value"] == each["p_value"]


def test_several_data_sets_and_sentence_pairs_with_their_means(
    here: Path, tiny_encoder_dir: Path, other_dir: Path
) -> None:
    first, second = write_set(here / "a" / "same"), write_set(here / "b" / "same", documents=20)
    pairs = [write_pairs(here / "one.tsv"), write_pairs(here / "two.tsv", count=12)]
    given = (first, second, "--sts", pairs[0], "--sts", pairs[1], "--encoder", tiny_encoder_dir)
    value = run_json(*given, "--against", other_dir)
    assert list(value) == ["encoder", "datasets", "sts", "mean"]
    assert [each["dataset"] for each in value["datasets"]] == [str(first), str(second)]
    assert [each["pairs"] for each in value["sts"]] == [30, 12]
    check_modes(value["mean"]["datasets"]["modes"])
    for mode, figures in value["mean"]["datasets"]["modes"].items():
        for name in METRICS:
            parts = [each["modes"][mode][name] for each in value["datasets"]]
            assert figures[name] == pytest.approx(np.mean(parts))
            parts = [each["comparison"]["differences"][mode][name]["difference"] for each in value["datasets"]]
            found = value["mean"]["datasets"]["comparison"]["differences"][mode][name]
            assert found["difference"] == pytest.approx(np.mean(parts))
            assert found["wins"] + found["losses"] + found["ties"] == 20
    mean = value["mean"]["sts"]
    assert mean["spearman"] == pytest.approx(np.mean([each["spearman"] for each in value["sts"]]))
    assert set(mean["comparison"]["differences"]) == {"spearman", "pearson"}
    assert run_json(first, "--sts", pairs[0], "--encoder", tiny_encoder_dir)["mean"] == {"datasets": None, "sts": None}
    shown = run(*given, "--against", other_dir).stdout
    assert "mean of 2" in shown
    assert f"{tiny_encoder_dir} minus {other_dir}" in shown


def test_sentence_pairs_are_correlated_with_people(here: Path, tiny_encoder_dir: Path) -> None:
    file = write_pairs(here / "pairs.tsv")
    value = run_json("--sts", file, "--encoder", tiny_encoder_dir)
    pairs, encoder = load_sts(file), Encoder.load(tiny_encoder_dir)
    left, right = encoder.encode_queries(pairs.left), encoder.encode_queries(pairs.right)
    assert list(value) == ["dataset", "pairs", "spearman", "pearson", "ci95", "intervals", "encoder"]
    assert (value["dataset"], value["pairs"]) == ("pairs", 30)
    assert value["spearman"] == pytest.approx(spearman(pairs.scores, (left * right).sum(axis=1)), abs=0.01)
    assert value["ci95"][0] < value["spearman"] < value["ci95"][1]
    told = run_json("--sts", file, "--encoder", tiny_encoder_dir, "--instruction", "Retrieve the question")
    assert told["spearman"] != value["spearman"]


def test_generated_data_is_measured_and_saved(here: Path, tiny_encoder_dir: Path) -> None:
    value = run_json(
        "--limit",
        "6",
        "--likes",
        "8",
        "--bystanders",
        "3",
        "--seed",
        "1",
        "--save",
        "made",
        "--encoder",
        tiny_encoder_dir,
    )
    assert (value["documents"], value["queries"]) == (9, 15)
    assert value["modes"]["lexical"]["recall@10"] == 1.0
    saved = load_dataset(here / "made")
    expected = limit_dataset(people=6, likes=8, bystanders=3, seed=1)
    assert (saved.corpus, saved.queries, saved.qrels) == (expected.corpus, expected.queries, expected.qrels)
    again = run_json("made", "--encoder", tiny_encoder_dir)
    assert again["modes"] == value["modes"]


def test_generated_documents_name_as_many_things_as_their_pairs_need() -> None:
    (dataset,) = read_datasets((), Generated(53, None, 0, 0, None), split="test", watch=Unwatched())
    assert dataset.name == "limit-53-52-0"


def test_the_run_file_gives_the_reported_figures_back(here: Path, tiny_encoder_dir: Path, other_dir: Path) -> None:
    dataset = load_dataset(write_set(here / "one"))
    value = run_json("one", "--encoder", tiny_encoder_dir, "--run", "answers.trec")
    assert sorted(path.name for path in here.glob("answers*")) == [
        f"answers.{mode}.trec" for mode in ("dense", "hybrid", "lexical")
    ]
    for mode, figures in value["modes"].items():
        evaluator = pytrec_eval.RelevanceEvaluator(dataset.qrels, {"ndcg_cut.10", "recall.10,100", "map_cut.100"})
        found = list(evaluator.evaluate(read_run(here / f"answers.{mode}.trec")).values())
        for name, theirs in (("ndcg@10", "ndcg_cut_10"), ("recall@10", "recall_10"), ("map@100", "map_cut_100")):
            assert np.mean([each[theirs] for each in found]) == pytest.approx(figures[name], abs=1e-6)
    assert run("one", "--encoder", tiny_encoder_dir, "--run", "only", "--mode", "dense").exit_code == 0
    assert (here / "only").read_text() == (here / "answers.dense.trec").read_text()
    write_set(here / "two")
    both = ("one", "two", "--mode", "dense", "--encoder", tiny_encoder_dir, "--against", other_dir)
    assert run(*both, "--run", "x.run").exit_code == 0
    assert len(list(here.glob("x.one.*tiny.run"))) == len(list(here.glob("x.two.*other.run"))) == 1


def test_length_bias(here: Path, tiny_encoder_dir: Path, other_dir: Path) -> None:
    write_set(here / "one", documents=40)
    value = run_json("one", "--encoder", tiny_encoder_dir, "--against", other_dir, "--length-bias")
    for length in (value["length"], value["comparison"]["length"]):
        assert length["collapse"]["tokens"][:2] == [16, 32]
        assert length["collapse"]["documents"] >= 30
        assert len(length["collapse"]["cosine"]) == len(length["collapse"]["tokens"])
        assert set(length["retrieval"]) == {"dense", "lexical", "hybrid"}
        assert -1 <= length["retrieval"]["dense"]["not_relevant"]["correlation"] <= 1
    shown = run("one", "--encoder", tiny_encoder_dir, "--length-bias").stdout
    assert "cut to a length" in shown
    write_set(here / "small", documents=10)
    assert run_json("small", "--encoder", tiny_encoder_dir, "--length-bias")["length"]["collapse"] is None


def test_a_folder_of_files_is_measured_whatever_the_patterns_of_the_settings(
    here: Path, tiny_encoder_dir: Path
) -> None:
    folder = write_set(here / "one", extra="\nq0\tgone.txt\t1\nq99\td1.txt\t1")
    (folder / "corpus").mkdir()
    for number in range(30):
        text = f"{SENTENCES[number % 10]} Number {number}."
        (folder / "corpus" / f"d{number}.txt").write_text(text, encoding="utf-8")
    (folder / "corpus.jsonl").unlink()
    qrels = (folder / "qrels" / "test.tsv").read_text()
    (folder / "qrels" / "test.tsv").write_text(
        "\n".join(
            f"{q}\t{d}.txt\t{g}" if not d.endswith(".txt") else f"{q}\t{d}\t{g}"
            for q, d, g in (row.split("\t") for row in qrels.splitlines())
        )
    )
    (here / "ragindex.toml").write_text(f'encoder = "{tiny_encoder_dir}"\ninclude = ["*.md"]\nexclude = ["*.txt"]\n')
    result = run(folder, "--json", "--length-bias")
    assert result.exit_code == 0, result.stderr
    value = json.loads(result.stdout)
    assert (value["documents"], value["encoder"]) == (30, str(tiny_encoder_dir))
    assert value["modes"]["lexical"]["recall@100"] > 0.9
    assert value["length"]["retrieval"]["dense"]["not_relevant"]["pairs"] > 0
    notes = result.stderr.splitlines()
    assert [note.partition(": ")[2] for note in notes] == [
        "1 judged documents are missing from its corpus.",
        "1 judged queries are missing, and left out.",
    ]


def test_settings_decide_how_text_is_cut(here: Path, tiny_encoder_dir: Path) -> None:
    write_set(here / "one")
    (here / "ragindex.toml").write_text("chunk_tokens = 4000\n")
    result = run("one", "--encoder", tiny_encoder_dir)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "chunk_tokens is 4000, but this encoder reads at most 512" in result.stderr


def test_an_empty_query_finds_nothing(here: Path, tiny_encoder_dir: Path) -> None:
    write_set(here / "one")
    with (here / "one" / "queries.jsonl").open("a") as queries:
        queries.write('\n{"_id": "blank", "text": "  "}')
    with (here / "one" / "qrels" / "test.tsv").open("a") as judged:
        judged.write("\nblank\td1\t1")
    value = run_json("one", "--encoder", tiny_encoder_dir, "--run", "x.run")
    assert value["queries"] == 11
    assert value["modes"]["lexical"]["recall@100"] == pytest.approx(10 / 11)
    assert len(read_run(here / "x.lexical.run")) == 10


def test_the_tables_are_aligned_and_narrow(here: Path, tiny_encoder_dir: Path, other_dir: Path) -> None:
    write_set(here / "one")
    lines = run("one", "--encoder", tiny_encoder_dir).stdout.splitlines()
    assert lines[:2] == ["one: 30 documents, 10 queries", ""]
    assert lines[2].split() == "nDCG@10 95 % interval recall@10 recall@100 MRR@10 MAP@100".split()  # noqa: SIM905
    assert [line.split()[0] for line in lines[3:]] == ["dense", "lexical", "hybrid"]
    assert {len(line) for line in lines[2:]} == {len(lines[2])}
    result = run("one", "--encoder", tiny_encoder_dir, "--against", other_dir, "--length-bias")
    names = (str(tiny_encoder_dir), str(other_dir))
    assert result.stderr == ""
    for line in result.stdout.splitlines():
        assert len(line) <= 80 or any(name in line for name in names), line
    assert "tied" in result.stdout
    assert "p  won" in result.stdout


def test_the_plot_is_a_png(here: Path, tiny_encoder_dir: Path, other_dir: Path) -> None:
    write_set(here / "one")
    write_pairs(here / "pairs.tsv")
    given = ("one", "--limit", "4", "--likes", "5", "--sts", "pairs.tsv", "--encoder", tiny_encoder_dir)
    assert run(*given, "--against", other_dir, "--length-bias", "--plot", "all.png").exit_code == 0
    assert run("one", "--encoder", tiny_encoder_dir, "--plot", "one.png", "--mode", "dense").exit_code == 0
    sizes = []
    for name in ("all.png", "one.png"):
        content = (here / name).read_bytes()
        assert content.startswith(b"\x89PNG\r\n")
        sizes.append(int.from_bytes(content[20:24]))
    assert sizes[0] > 3 * sizes[1] > 300


def test_without_matplotlib_the_extra_is_named_before_anything_is_measured(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_set(here / "one")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("one", "--encoder", "nowhere-at-all", "--plot", "x.png")
    assert result.exit_code == 2
    assert result.stderr == "ragindex: Plots need matplotlib; install it with `pip install 'ragindex[train]'`.\n"


def test_a_run_file_that_cannot_be_written_comes_after_the_results(here: Path, tiny_encoder_dir: Path) -> None:
    write_set(here / "one")
    (here / "taken.dense.run").mkdir()
    result = run("one", "--encoder", tiny_encoder_dir, "--run", "taken.run", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["queries"] == 10
    assert "taken.dense.run cannot be written" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Say what to measure: a DATASET_DIR, --sts FILE or --limit PEOPLE"),
        (["empty"], "empty has neither corpus.jsonl nor a corpus folder."),
        (["unjudged"], "No query in unjudged has a relevant document"),
        (["one", "one"], "one is given twice."),
        (["one", "--split", "dev"], "dev.tsv does not exist; there is test."),
        (["one", "--encoder", "nope"], "There is no encoder 'nope'"),
        (["one", "--against", "nope"], "There is no encoder 'nope'"),
        (["one", "--against", "bundled"], "are the same encoder"),
        (["one", "--likes", "4"], "--likes belongs to --limit"),
        (["one", "--plot", "x.svg"], "end its name in .png"),
        (["one", "--plot", "no/x.png"], "The folder no does not exist"),
        (["one", "--run", "no/x.run"], "The folder no does not exist"),
        (["--sts", "pairs.tsv", "--run", "x.run"], "--run needs a data set with queries"),
        (["--sts", "pairs.tsv", "--length-bias"], "--length-bias needs a data set with queries"),
        (["--sts", "narrow.tsv"], "narrow.tsv:2 has 2 columns; it must have a score and two sentences."),
        (["--sts", "worded.tsv"], "worded.tsv:2 has the score 'much'"),
        (["--sts", "flat.tsv"], "A correlation needs at least two pairs"),
        (["--sts", "pairs.tsv", "--instruction", "very " * 600], "The instruction is too long for this encoder"),
        (["--limit", "10", "--likes", "3"], "likes must be at least that, not 3"),
        (["--limit", "500"], "choose fewer people or likes"),
        (["--limit", "4", "--save", "one"], "one is not empty"),
        (["--limit", "1"], "1 is not in the range"),
    ],
)
def test_mistakes_are_told_in_one_line(here: Path, arguments: list[str], message: str) -> None:
    write_set(here / "one")
    (here / "empty").mkdir()
    (write_set(here / "unjudged") / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n")
    write_pairs(here / "pairs.tsv")
    (here / "narrow.tsv").write_text("1\ta\tb\n1\ta\n")
    (here / "worded.tsv").write_text("1\ta\tb\nmuch\ta\tb\n")
    (here / "flat.tsv").write_text("1\ta\tb\n1\tc\td\n")
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1

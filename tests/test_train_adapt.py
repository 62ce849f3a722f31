"""`ragindex train adapt`: the trial that proves a candidate; winning, losing, and what cannot be judged."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file
from tiny import SENTENCES, tiny_encoder

from ragindex import Encoder, Index
from ragindex.adapting import adapt_folder, adapt_store
from ragindex.cli import main
from ragindex.config import Settings
from ragindex.errors import TrainingError
from ragindex.train.adapt import AdaptOptions, adapt
from ragindex.train.contrastive import ContrastiveTraining
from ragindex.train.data.examples import Example
from ragindex.train.lesson import Lesson
from ragindex.train.proving import parts
from ragindex.train.trial import Question, Scoreboard, Text, Trial, judge
from ragindex.types import Block, Document

QUICK = AdaptOptions(steps=60, batch=32, questions=150, shifts=(0.5,), rate=1e-2, share=2.0, document_tokens=64)


class Pointing:
    """An encoder whose vectors are given by the first character of a text: a, b and c are orthogonal."""

    dimensions, max_tokens, fingerprint, reader = 3, 512, "pointing", None

    def encode_queries(self, texts: Sequence[str], *, instruction: str | None = None) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[["abc".index(text[0]) for text in texts]]

    def encode_documents(self, texts: Sequence[str], *, titles: Sequence[str] | None = None) -> np.ndarray:
        return self.encode_queries(texts)


def _texts() -> list[Text]:
    return [
        Text("a kettle", "", unit=0, document=0),
        Text("a second kettle", "", unit=1, document=0),
        Text("a third kettle", "", unit=2, document=1),
        Text("b anchor", "", unit=3, document=2),
    ]


class Unread:
    """The bundled encoder as one that cannot read while a user waits."""

    reader = None

    def __init__(self, encoder: Encoder) -> None:
        self.dimensions, self.max_tokens, self.fingerprint = encoder.dimensions, encoder.max_tokens, "unread"
        self.encode_queries, self.encode_documents = encoder.encode_queries, encoder.encode_documents


def test_hybrid_search_is_tried_with_what_a_static_encoder_reads() -> None:
    """As users get it: what is asked about stands in the midst of something else."""
    rest = "The mill stood still for weeks on end, since the rain had come late and nobody could mend the wheel. "
    things = ["doctor", "lawyer", "river", "violin", "passport", "volcano", "bakery", "rocket", "orchard", "battery"]
    texts = [
        Text(f"{rest * 6}A {one} was seen beside the {other} that day. {rest}", "", unit=number, document=number)
        for number, (one, other) in enumerate(itertools.combinations(things, 2))
    ]
    alike = ["physician", "attorney", "stream", "fiddle", "visa", "crater", "bread", "missile", "apples", "charger"]
    near = dict(zip(things, alike, strict=True))
    questions = [
        Question(f"{near[one]}, {near[other]}", {number: 1.0})
        for number, (one, other) in enumerate(itertools.combinations(things, 2))
    ]
    trial, encoder = Trial(texts, questions), Encoder.load("bundled")
    read, unread = trial.measure(encoder, trust=1.0), trial.measure(Unread(encoder), trust=1.0)
    np.testing.assert_array_equal(read.dense, unread.dense)
    assert read.hybrid.mean() > unread.hybrid.mean() + 0.01


def test_gains_are_those_of_ndcg() -> None:
    # Vectors tie three texts, so they stand in their order: the answer is third. 1 / log2(4) = 0.5.
    trial = Trial(_texts(), [Question("a", {2: 1.0})] * 20)
    np.testing.assert_allclose(trial.measure(Pointing(), trust=1.0).dense, 0.5)


def test_other_passages_of_the_same_document_do_not_compete() -> None:
    trial = Trial(_texts(), [Question("a kettle", {1: 1.0}, document=0)] * 20)
    np.testing.assert_allclose(trial.measure(Pointing(), trust=1.0).dense, 1.0)
    np.testing.assert_allclose(trial.lexical(), 1.0)
    free = Trial(_texts(), [Question("a kettle", {1: 1.0})] * 20)
    assert free.measure(Pointing(), trust=1.0).dense.max() < 1
    assert free.lexical().max() < 1


def test_documents_are_ranked_by_their_best_passage() -> None:
    texts = [Text(item.text, "", unit=item.document, document=item.document) for item in _texts()]
    trial = Trial(texts, [Question("a", {1: 1.0})] * 20)
    np.testing.assert_allclose(trial.measure(Pointing(), trust=1.0).dense, 1 / np.log2(3))


def test_too_few_questions_prove_nothing() -> None:
    with pytest.raises(TrainingError, match=r"Only 3 held-out questions could be made, at least 20"):
        Trial(_texts(), [Question("a", {1: 1.0})] * 3)


def _board(dense: float, hybrid: float, count: int = 100, seed: int = 0) -> Scoreboard:
    noise = np.random.default_rng(seed).normal(0, 0.05, count)
    return Scoreboard(np.clip(dense + noise, 0, 1), np.clip(hybrid + noise, 0, 1))


@pytest.mark.parametrize(
    ("after", "lexical", "won", "said"),
    [
        ((0.60, 0.70), 0.5, True, "beats the present encoder"),
        ((0.50, 0.70), 0.5, False, "vectors do not beat"),
        ((0.60, 0.70), 0.7, False, "does not beat BM25"),
        ((0.60, 0.55), 0.5, False, "search as a whole gets worse"),
    ],
)
def test_a_candidate_wins_only_if_it_beats_both(
    monkeypatch: pytest.MonkeyPatch, after: tuple[float, float], lexical: float, won: bool, said: str
) -> None:
    trial = Trial(_texts(), [Question("a", {2: 1.0})] * 100)
    noise = np.random.default_rng(2).normal(0, 0.05, 100)
    monkeypatch.setattr(trial, "lexical", lambda: np.clip(lexical + noise, 0, 1))
    verdict = judge(trial, _board(0.5, 0.6), _board(*after, seed=1))
    assert verdict.won is won
    assert said in verdict.reason


def test_a_difference_within_chance_does_not_win() -> None:
    trial = Trial(_texts(), [Question("b", {2: 1.0})] * 30)
    generator = np.random.default_rng(0)
    before = Scoreboard(generator.random(30), generator.random(30))
    after = Scoreboard(generator.random(30) + 0.01, generator.random(30) + 0.01)
    assert not judge(trial, before, after).won


def test_long_documents_are_taken_apart_between_blocks() -> None:
    lines = [f"Line {number} says something about kettles and keys." for number in range(600)]
    text = "\n".join(lines)
    blocks, start = [], 0
    for line in lines:
        blocks.append(Block(start, start + len(line)))
        start += len(line) + 1
    document = Document("long.txt", text, "Long", tuple(blocks))
    found = parts(document)
    assert len(found) > 3
    assert "\n".join(part.text for part in found) == text
    assert all(part.text[block.start : block.end] in lines for part in found for block in part.blocks)
    assert len({part.path for part in found}) == len(found)
    assert parts(Document("short.txt", "Short.", "", (Block(0, 6),)))[0].path == "short.txt"


def _corpus(folder: Path, *, documents: int = 144, topics: int = 24) -> Path:
    """Notes whose titles share no word with their text: only training on other notes tells what belongs together."""
    folder.mkdir()
    chance = random.Random(3)
    words = sorted({word.lower() for sentence in SENTENCES for word in re.findall(r"[A-Za-z]{4,}", sentence)})
    chance.shuffle(words)
    for number in range(documents):
        own = words[(number % topics) :: topics]  # two for titles, the others for texts
        title = " ".join(chance.sample(own[:2], 2))
        sentences = [" ".join(chance.choices([*own[2:], "the", "and"], k=8)) for _ in range(8)]
        (folder / f"note{number:03}.md").write_text(f"# {title}\n\n{'. '.join(sentences)}.\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _corpus(tmp_path_factory.mktemp("adapt") / "notes")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("adapt") / "tiny", mixing=0.0, specials=False)


def _index(store: Path, corpus: Path, encoder: Path) -> Index:
    """A store beside the corpus: documents are split by their paths, which must not hold a temporary folder's name."""
    assert store.parent == corpus.parent
    index = Index.open(store, encoder=str(encoder), settings=Settings(chunk_tokens=200))
    index.add(corpus)
    return index


def test_a_folder_gets_a_candidate_and_an_honest_verdict(tmp_path: Path, corpus: Path, encoder: Path) -> None:
    output = tmp_path / "out"
    result = adapt_folder(corpus, output, encoder=str(encoder), options=QUICK)
    assert {"promoted", "encoder", "before", "after", "p_value", "pairs", "seconds"} <= result.keys()
    assert result["after"]["ndcg@10"] > result["before"]["ndcg@10"]
    assert result["pairs"] >= 64
    adapted = Encoder.load(output)
    assert adapted.fingerprint != Encoder.load(encoder).fingerprint
    assert adapted.config.card["adapt"]["won"] is result["promoted"]
    assert f"{result['questions']}" in (output / "README.md").read_text(encoding="utf-8")


def test_pairs_learn_from_hard_negatives(
    tmp_path: Path, corpus: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of others that the present encoder takes for the answer; one's own text is not among them."""
    seen: list[Sequence[Example]] = []

    class Spy(ContrastiveTraining):
        def __init__(self, model, examples, options=None, **others):
            seen.append(examples)
            super().__init__(model, examples, options, **others)

    monkeypatch.setattr("ragindex.train.lesson.ContrastiveTraining", Spy)
    monkeypatch.setattr("ragindex.train.adapt._POOL", 100)
    for negatives in (2, 0):
        options = replace(QUICK, negatives=negatives, steps=1)
        adapt_folder(corpus, tmp_path / f"out{negatives}", encoder=str(encoder), options=options)
    hard, none = seen
    assert sum(len(item.negatives) == 2 for item in hard) > len(hard) / 2
    assert not any(item.positive in item.negatives for item in hard)
    assert not any(item.negatives for item in none)


def test_the_winner_serves_and_can_be_taken_back(
    tmp_path: Path, corpus: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Titles only: what this corpus can teach is which words of titles go with which words of texts.
    monkeypatch.setattr("ragindex.train.proving.QUESTION_KINDS", ("title-section",))
    with _index(corpus.parent / tmp_path.name, corpus, encoder) as index:
        before = index.encoder.fingerprint
        result = adapt_store(index, options=QUICK)
        assert result["promoted"], result["reason"]
        after = index.encoder.fingerprint
        assert after != before
        assert index.search("anything at all", mode="dense")
        assert not (index.store / "training").exists()
        index.rollback()
        assert index.encoder.fingerprint == before


def test_a_loser_changes_nothing(tmp_path: Path, corpus: Path, encoder: Path) -> None:
    """A training that is next to none: the trial notices."""
    idle = AdaptOptions(steps=1, batch=32, questions=100, shifts=(), rate=1e-7, document_tokens=64)
    with _index(corpus.parent / tmp_path.name, corpus, encoder) as index:
        before = index.status()
        result = adapt_store(index, output=tmp_path / "loser", options=idle)
        assert result["promoted"] is False
        assert "do not beat" in result["reason"] or "does not beat" in result["reason"]
        assert index.status()["encoder"] == before["encoder"]
        assert index.verify().ok
        assert result["encoder"] == str(encoder)
    Encoder.load(tmp_path / "loser")  # the output receives the candidate whether it won or not


def test_judgements_must_be_met_as_well(tmp_path: Path, corpus: Path, encoder: Path) -> None:
    names = sorted(file.name for file in corpus.iterdir())[:30]
    data = tmp_path / "judged"
    (data / "qrels").mkdir(parents=True)
    titles = {name: (corpus / name).read_text(encoding="utf-8").splitlines()[0][2:] for name in names}
    (data / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": name, "text": "x"}) + "\n" for name in names), encoding="utf-8"
    )
    (data / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": name, "text": titles[name]}) + "\n" for name in names), encoding="utf-8"
    )
    rows = "".join(f"{name}\t{name}\t1\n" for name in names)
    (data / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows, encoding="utf-8")
    result = adapt_folder(corpus, tmp_path / "out", encoder=str(encoder), options=QUICK, judgements=data)
    assert result["judged"]["questions"] == 30
    if not result["promoted"]:
        assert "on the judged questions" in result["reason"] or "held-out" in result["reason"]


def test_a_data_set_is_learnt_from_without_its_queries(tmp_path: Path, encoder: Path, corpus: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = [file.read_text(encoding="utf-8").partition("\n\n") for file in sorted(corpus.iterdir())]
    lines = [
        json.dumps({"_id": f"d{number}", "title": title[2:], "text": text}) + "\n"
        for number, (title, _, text) in enumerate(rows)
    ]
    (data / "corpus.jsonl").write_text("".join(lines), encoding="utf-8")
    (data / "queries.jsonl").write_text("not even JSON", encoding="utf-8")
    assert adapt_folder(data, tmp_path / "out", encoder=str(encoder), options=QUICK)["pairs"] >= 64


@pytest.mark.parametrize(("documents", "message"), [(0, "no documents"), (1, "pairs could be made|questions could")])
def test_too_little_text_is_a_sentence(tmp_path: Path, encoder: Path, documents: int, message: str) -> None:
    given = [Document(f"{number}.txt", "Kettles boil water. " * 3) for number in range(documents)]
    with pytest.raises(TrainingError, match=message):
        adapt(given, str(encoder), tmp_path / "out", options=QUICK)


def test_two_processes_learn_the_lesson_that_one_does(tmp_path: Path, corpus: Path, encoder: Path) -> None:
    """The main one alone chooses pairs and token weights; the batches of both together are as large as one's alone."""
    trained = {}
    for processes in (1, 2):
        output = tmp_path / f"out{processes}"
        child = subprocess.run(
            [
                *(sys.executable, "-m", "ragindex", "train", "adapt", str(corpus), "--encoder", str(encoder)),
                *("--output", str(output), "--steps", "3", "--processes", str(processes), "--json"),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert child.returncode == 0, child.stderr
        assert json.loads(child.stdout)["steps"] == 3
        trained[processes] = load_file(output / "model.safetensors")["embed_tokens.weight"].astype(np.float64)
    begun = load_file(encoder / "model.safetensors")["embed_tokens.weight"].astype(np.float64)
    moved = np.linalg.norm(trained[1] - begun)
    assert moved > 0
    # Not equal: of a batch with an odd number of rows two processes leave one out. Other batches lead elsewhere.
    assert np.linalg.norm(trained[2] - trained[1]) < 0.5 * moved


def test_a_lesson_travels_whole(tmp_path: Path) -> None:
    examples = [
        Example("q\n", "p", negatives=("n", "m"), title="t", instruction="", source="s", scores=(1.0, 0.5, 0.25))
    ]
    for weights in (None, np.array([0.5, -1.25], dtype=np.float32)):
        lesson = Lesson("bundled", tmp_path, examples, weights, replace(QUICK, shifts=(0.25, 1.0)))
        arrived = Lesson.from_bytes(lesson.to_bytes())
        assert replace(arrived, log_weights=None) == replace(lesson, log_weights=None)
        np.testing.assert_equal(arrived.log_weights, weights)


def _run(*arguments: str) -> Any:
    return CliRunner().invoke(main, list(arguments))


def test_a_folder_without_a_store_needs_an_output(tmp_path: Path, corpus: Path) -> None:
    answer = _run("train", "adapt", str(corpus))
    assert answer.exit_code == 2
    assert "give --output DIR" in answer.stderr


def test_the_command_prints_the_keys_of_the_contract(tmp_path: Path, corpus: Path, encoder: Path) -> None:
    answer = _run(
        "train", "adapt", str(corpus), "--encoder", str(encoder), "--output", str(tmp_path / "out"), "--steps", "3",
        "--json",
    )  # fmt: skip
    assert answer.exit_code == 0, answer.stderr
    result = json.loads(answer.stdout)
    assert {"promoted", "encoder", "before", "after", "p_value", "pairs", "seconds"} <= result.keys()
    assert "ndcg@10" in result["before"]
    assert "ndcg@10" in result["after"]

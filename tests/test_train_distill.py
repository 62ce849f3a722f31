"""`ragindex train distill`: a teacher's vectors, and a teacher's scores."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import save_file
from test_train_contrastive import WORDS, some
from tiny import HEAD_DIMENSIONS, SENTENCES, tiny_encoder

from ragindex import Encoder
from ragindex.cli import main
from ragindex.errors import TrainingError
from ragindex.train.contrast_batch import Limits
from ragindex.train.data.examples import Example, write_examples
from ragindex.train.distill import Corpus, DistillOptions, VectorDistillation
from ragindex.train.losses import cosine_regression, similarity_kl
from ragindex.train.model import TrainableEncoder
from ragindex.train.score_distill import ScoreDistillation, ScoreOptions


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny", layers=1)


@pytest.fixture
def model(directory: Path) -> TrainableEncoder:
    opened = TrainableEncoder.open(directory, device="cpu")
    opened.mixed = False
    return opened


def scored(examples: list[Example], teacher: Encoder) -> list[Example]:
    """The examples with a teacher's cosines."""
    result = []
    for item in examples:
        documents = teacher.encode_documents([item.positive, *item.negatives])
        scores = documents @ teacher.encode_queries([item.query])[0]
        result.append(Example(item.query, item.positive, item.negatives, scores=tuple(map(float, scores))))
    return result


def call(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["train", "distill", *map(str, arguments)])


def test_the_loss_is_that_of_its_parts(model: TrainableEncoder) -> None:
    texts = [" ".join(random.Random(number).choices(WORDS, k=6)) for number in range(40)]
    targets = np.random.default_rng(0).standard_normal((40, HEAD_DIMENSIONS)).astype(np.float32)
    targets = (targets / np.linalg.norm(targets, axis=1, keepdims=True)).astype(np.float16)
    options = DistillOptions(similarity=0.5, matryoshka=(8, 16), held_out=8)
    objective = VectorDistillation(model, Corpus(model.documents(texts), targets), options)
    batch = next(objective.batches(0))
    numbers = objective.step(batch, torch.Tensor.backward)
    with torch.no_grad():
        corpus = objective._corpus
        mine = model([corpus.texts[row] for row in batch])
        theirs = torch.from_numpy(corpus.targets[batch].astype(np.float32))
        cuts = [
            cosine_regression(*(torch.nn.functional.normalize(item[:, :size], dim=-1) for item in (mine, theirs)))
            for size in (8, 16)
        ]
        expected = cosine_regression(mine, theirs) + sum(cuts) / 2 + 0.5 * similarity_kl(mine, theirs)
    assert numbers["loss"] == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("loss", ["margin-mse", "listwise-kl"])
def test_a_student_learns_the_scores_of_a_teacher(model: TrainableEncoder, tmp_path: Path, loss: Any) -> None:
    teacher = Encoder.load(tiny_encoder(tmp_path / "teacher", layers=1, seed=5), device="cpu")
    examples = scored(some(30, negatives=(1, 4)), teacher)
    options = ScoreOptions(loss=loss, batch=10, chunk=200, teacher_temperature=0.05, held_out=0.2)
    objective = ScoreDistillation(model, examples, options)
    assert objective.counts == {"examples": 24, "held_out": 6}
    optimiser = torch.optim.Adam(objective.parameter_groups(5e-3, weight_decay=0.0))
    losses = []
    for epoch in range(8):
        for batch in objective.batches(epoch):
            optimiser.zero_grad()
            losses.append(objective.step(batch, torch.Tensor.backward)["loss"])
            optimiser.step()
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
    assert set(objective.evaluate()) == {"held_out_loss", "held_out_agreement"}


def test_a_student_that_is_the_teacher_has_nothing_to_learn(model: TrainableEncoder, directory: Path) -> None:
    examples = scored(some(20, negatives=(2, 3, 1)), Encoder.load(directory, device="cpu"))
    for options in (
        ScoreOptions(loss="margin-mse", held_out=0.5),
        ScoreOptions(teacher_temperature=0.05, held_out=0.5),
    ):
        objective = ScoreDistillation(model, examples, options)
        assert objective.step([0, 1, 2, 3], torch.Tensor.backward)["loss"] == pytest.approx(0, abs=1e-3)
        measured = objective.evaluate()
        assert measured["held_out_loss"] == pytest.approx(0, abs=1e-3)
        assert measured["held_out_agreement"] == 1.0


def test_scores_beyond_the_negatives_taken_are_left_out(model: TrainableEncoder, directory: Path) -> None:
    examples = scored(some(6, negatives=(4,)), Encoder.load(directory, device="cpu"))
    options = ScoreOptions(loss="margin-mse", limits=Limits(negatives=2), held_out=0.0)
    objective = ScoreDistillation(model, examples, options)
    assert objective.step([0, 1], torch.Tensor.backward)["loss"] == pytest.approx(0, abs=1e-3)
    assert objective.evaluate() == {}


def test_examples_without_scores_are_refused(model: TrainableEncoder) -> None:
    with pytest.raises(TrainingError, match=r"No example has negatives with a teacher's scores; .*train mine --scores"):
        ScoreDistillation(model, some(4, negatives=(1,)))


def test_both_ways_from_the_command_line(directory: Path, tmp_path: Path) -> None:
    records = [{"title": f"title {number}", "text": " ".join(SENTENCES)} for number in range(4)]
    text = tmp_path / "records.jsonl"
    text.write_text("".join(json.dumps(row) + "\n" for row in records), encoding="utf-8")
    shards = tmp_path / "shards"
    shards.mkdir()
    vectors = np.tile(np.eye(HEAD_DIMENSIONS, dtype=np.float16), (2, 1))
    save_file({"vectors": vectors}, shards / "00000.safetensors")
    import gzip

    with gzip.open(shards / "00000.json.gz", "wt", encoding="utf-8") as out:
        json.dump([f"{WORDS[number % 40]} {number}" for number in range(len(vectors))], out)
    common = ("--encoder", directory, "--steps", 3, "--json")
    result = call(*common, "--vectors", shards, "--output", tmp_path / "a", "--matryoshka", "8", "--similarity", 0.1)
    assert result.exit_code == 0, result.output
    assert {"held_out_cosine", "held_out_cosine_short"} == json.loads(result.stdout)["after"].keys()
    refused = call(
        *(*common, "--vectors", shards, "--output", tmp_path / "b"),
        *("--teacher", directory, "--text", text, "--shards", 1),
    )
    assert refused.exit_code == 2
    assert "but not made.json" in refused.output
    examples = tmp_path / "scored.jsonl"
    write_examples(examples, scored(some(30, negatives=(2,)), Encoder.load(directory)))
    result = call(*common, "--examples", examples, "--output", tmp_path / "c", "--loss", "margin-mse", "--scale", 2)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["steps"] == 3
    assert Encoder.load(tmp_path / "c").config.card["distill"]["data"] == ["scored.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "a teacher's vectors (--vectors DIR) or its scores (--examples FILE)"),
        (("--vectors", "v", "--examples", "{pairs}"), "or its scores"),
        (("--vectors", "v", "--loss", "margin-mse"), "--loss cosine is for --vectors"),
        (("--examples", "{pairs}", "--loss", "cosine"), "--loss cosine is for --vectors"),
        (("--examples", "{pairs}", "--teacher", "bundled"), "--teacher belongs to --vectors"),
        (("--examples", "{pairs}", "--matryoshka", "8"), "belong to --vectors"),
        (("--vectors", "v", "--shards", 2), "give --teacher NAME and --text FILE"),
        (("--vectors", "v"), "holds no finished shards"),
        (("--examples", "{pairs}"), "No example has negatives with a teacher's scores"),
    ],
)
def test_wrong_options_are_one_sentence(
    directory: Path, tmp_path: Path, arguments: tuple[object, ...], message: str
) -> None:
    write_examples(tmp_path / "pairs.jsonl", some(4))
    filled = [str(item).format(pairs=tmp_path / "pairs.jsonl") for item in arguments]
    filled = [str(tmp_path / item) if item == "v" else item for item in filled]
    result = call("--encoder", directory, "--output", tmp_path / "out", "--steps", 2, *filled)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_vectors_of_another_length_are_refused(directory: Path, tmp_path: Path) -> None:
    from ragindex.train.teacher import make_shards

    text = tmp_path / "records.jsonl"
    text.write_text(json.dumps({"title": "kettle", "text": SENTENCES[1]}) + "\n", encoding="utf-8")
    headless = tiny_encoder(tmp_path / "headless", head=False)
    make_shards(str(headless), [text], tmp_path / "v", shards=1, seed=1, size=20)
    result = call("--encoder", directory, "--output", tmp_path / "out", "--steps", 2, "--vectors", tmp_path / "v")
    assert result.exit_code == 2
    assert f"teacher's vectors have 32 dimensions, the encoder {HEAD_DIMENSIONS}" in result.output

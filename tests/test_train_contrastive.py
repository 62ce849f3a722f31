"""`ragindex train contrastive`: the step, its two stages, going on after a stop, several ways of being wrong."""

from __future__ import annotations

import json
import math
import random
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from tiny import HEAD_DIMENSIONS, SENTENCES, tiny_encoder

from ragindex import Encoder
from ragindex.cli import main
from ragindex.errors import TrainingError, UsageError
from ragindex.train.contrast_batch import BatchTexts, Order, contrast_of
from ragindex.train.contrastive import ContrastiveOptions, ContrastiveTraining
from ragindex.train.data.examples import Example, write_examples
from ragindex.train.loop import train
from ragindex.train.losses import GuideMargin, Hardness, InfoNCE, Matryoshka, Mixing
from ragindex.train.model import TrainableEncoder
from ragindex.train.run import Run
from ragindex.train.schedule import LoopSettings

WORDS = sorted({word.strip(".,;:()") for sentence in SENTENCES for word in sentence.split()})


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny", layers=1)


@pytest.fixture
def model(directory: Path) -> TrainableEncoder:
    opened = TrainableEncoder.open(directory, device="cpu")
    opened.mixed = False
    return opened


def some(count: int, *, seed: int = 0, negatives: Sequence[int] = (0,), sources: int = 1) -> list[Example]:
    chance = random.Random(seed)

    def text(words: int) -> str:
        return " ".join(chance.choices(WORDS, k=words))

    return [
        Example(
            text(chance.randint(2, 5)),
            text(chance.randint(3, 30)),
            negatives=tuple(text(chance.randint(3, 30)) for _ in range(negatives[number % len(negatives)])),
            source=f"s{number % sources}",
        )
        for number in range(count)
    ]


def gradient(objective: ContrastiveTraining, batch: list[int]) -> torch.Tensor:
    objective.model.zero_grad()
    objective.step(batch, torch.Tensor.backward)
    parts = [item.grad.reshape(-1) for item in objective.model.parameters() if item.grad is not None]
    return torch.cat(parts).clone()


def weights(objective: ContrastiveTraining) -> torch.Tensor:
    return torch.cat([item.detach().reshape(-1) for item in objective.model.parameters()])


def test_chunks_are_of_similar_length_and_their_order_is_undone(model: TrainableEncoder) -> None:
    texts = [example.positive for example in some(30)]
    items = model.documents(texts)
    order = Order.by_length(items, budget=60)
    assert len(order.chunks) > 5
    lengths = [len(item.ids) for chunk in order.chunks for item in chunk]
    assert lengths == sorted(lengths, reverse=True)
    with torch.no_grad():
        apart = torch.cat([model([item]) for item in items])
        vectors = torch.cat([model(chunk) for chunk in order.chunks])
    torch.testing.assert_close(order.restore(vectors), apart, atol=1e-5, rtol=0)
    assert not torch.allclose(vectors, apart, atol=1e-2)


@pytest.mark.parametrize("matryoshka", [None, Matryoshka((HEAD_DIMENSIONS, 8))])
def test_small_chunks_give_the_gradient_of_large_ones(model: TrainableEncoder, matryoshka: Matryoshka | None) -> None:
    examples = some(12, negatives=(0, 1, 3))
    options = ContrastiveOptions(
        batch=12, loss=InfoNCE(directions=("q-d", "d-q", "q-q", "d-d")), matryoshka=matryoshka, spread=0.5
    )
    whole = gradient(ContrastiveTraining(model, examples, replace(options, chunk=100_000)), list(range(12)))
    parts = gradient(ContrastiveTraining(model, examples, replace(options, chunk=40)), list(range(12)))
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-4)
    assert whole.norm() > 1e-3


def test_negatives_of_unequal_number_stand_with_their_examples(model: TrainableEncoder) -> None:
    examples = some(3, negatives=(2, 0, 3))
    texts = BatchTexts.of(examples, most=2)
    assert texts.counts == (2, 0, 2)
    flat = torch.eye(4, 8)
    contrast = contrast_of(
        {"queries": torch.eye(3, 8), "positives": torch.eye(3, 8), "negatives": flat}, texts, texts.ids()
    )
    assert contrast.negatives is not None
    assert contrast.present is not None
    assert contrast.present.tolist() == [[True, True], [False, False], [True, True]]
    torch.testing.assert_close(contrast.negatives[2], flat[2:])
    assert contrast.ids is not None
    assert contrast.ids.negatives is not None
    assert (contrast.ids.negatives[1] == -1).all()


def test_a_loss_by_hand(model: TrainableEncoder) -> None:
    """Two examples, one with a negative: the softmax of each query over three documents."""
    examples = [Example("signing key", "Rotate the key.", ("The kettle boils.",)), Example("leave", "Five days.")]
    objective = ContrastiveTraining(model, examples, ContrastiveOptions(batch=2, loss=InfoNCE(temperature=0.1)))
    numbers = objective.step([0, 1], torch.Tensor.backward)
    with torch.no_grad():
        queries = model(model.queries(["signing key", "leave"]))
        documents = model(model.documents(["Rotate the key.", "Five days.", "The kettle boils."]))
    logits = (queries @ documents.T / 0.1).double().numpy()
    expected = np.mean([np.log(np.exp(row).sum()) - row[place] for place, row in enumerate(logits)])
    assert numbers["loss"] == pytest.approx(expected, abs=1e-5)


def test_in_batch_negatives_end_when_they_should(model: TrainableEncoder) -> None:
    examples = some(4, negatives=(1,))
    options = ContrastiveOptions(
        batch=4, hard_negatives_after=0.6, loss=InfoNCE(directions=("q-d", "d-q"), partition="separate")
    )
    staged = ContrastiveTraining(model, examples, options)
    alone = ContrastiveTraining(model, examples, ContrastiveOptions(batch=4, loss=InfoNCE(in_batch=False)))
    both = ContrastiveTraining(model, examples, replace(options, hard_negatives_after=1.0))
    rows = [0, 1, 2, 3]
    staged.at(0.59)
    torch.testing.assert_close(gradient(staged, rows), gradient(both, rows))
    staged.at(0.6)
    torch.testing.assert_close(gradient(staged, rows), gradient(alone, rows))
    staged.at(0.1)
    torch.testing.assert_close(gradient(staged, rows), gradient(both, rows))


def test_the_loop_tells_the_objective_how_far_it_is(model: TrainableEncoder, tmp_path: Path) -> None:
    seen: list[float] = []

    class Watched(ContrastiveTraining):
        def at(self, progress: float) -> None:
            seen.append(progress)
            super().at(progress)

    options = ContrastiveOptions(batch=4, hard_negatives_after=0.5)
    run = Run(tmp_path / "out")
    run.begin("contrastive", {}, {})
    train(Watched(model, some(8, negatives=(1,)), options), LoopSettings(steps=4), run=run)
    assert seen == [0.0, 0.25, 0.5, 0.75]


def test_batches_hold_one_source_and_no_text_twice(model: TrainableEncoder) -> None:
    examples = [*some(20, sources=2), *some(20, sources=2)]  # everything twice
    objective = ContrastiveTraining(model, examples, ContrastiveOptions(batch=6))
    rows = [row for epoch in range(2) for batch in objective.batches(epoch) for row in [batch]]
    for batch in rows:
        assert len({examples[row].source for row in batch}) == 1
        assert len({examples[row].query for row in batch}) == len(batch)


def _trained(directory: Path, output: Path, *, stop: int | None) -> torch.Tensor:
    """40 steps with everything that is random or learnt on the way; stopped and gone on with, if asked."""
    settings = LoopSettings(steps=12, rate=2e-3, log_steps=1, evaluations=2)
    options = ContrastiveOptions(
        batch=6,
        chunk=80,
        learn_temperature=True,
        hard_negatives_after=0.5,
        loss=InfoNCE(mixing=Mixing(pairs=1)),
        matryoshka=Matryoshka((HEAD_DIMENSIONS, 8)),
    )

    def made(stopping: int | None) -> ContrastiveTraining:
        model = TrainableEncoder.open(directory, dropout=0.2, device="cpu")
        examples = some(40, negatives=(2, 3), sources=2)

        class Stopping(ContrastiveTraining):
            def step(self, batch: list[int], backward: Any) -> Mapping[str, float]:
                numbers = super().step(batch, backward)
                if len(steps) == stopping:
                    signal.raise_signal(signal.SIGTERM)
                steps.append(numbers["temperature"])
                return numbers

        steps: list[float] = []
        return Stopping(model, examples, options)

    run = Run(output)
    resume = run.begin("contrastive", {}, {})
    if stop is not None:
        with pytest.raises(KeyboardInterrupt):
            train(made(stop), settings, run=run, resume=resume)
        run = Run(output)
        resume = run.begin("contrastive", {}, {})
        assert resume is not None
        assert resume.step == stop + 1  # the step in which the signal came was finished
    objective = made(None)
    train(objective, settings, run=run, resume=resume)
    return weights(objective)


def test_a_run_that_sigterm_stopped_ends_with_equal_weights(directory: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    whole = _trained(directory, tmp_path / "whole", stop=None)
    again = _trained(directory, tmp_path / "again", stop=4)
    assert torch.equal(whole, again)
    assert signal.getsignal(signal.SIGTERM) == before


def test_temperatures_are_learnt_and_kept(model: TrainableEncoder, tmp_path: Path) -> None:
    options = ContrastiveOptions(batch=4, learn_temperature=True)
    objective = ContrastiveTraining(model, some(16, sources=2), options)
    run = Run(tmp_path / "out")
    run.begin("contrastive", {}, {})
    rows = train(objective, LoopSettings(steps=6, rate=1e-2, log_steps=1), run=run)
    logged = [row["temperature"] for row in rows if "temperature" in row]
    assert logged[0] == pytest.approx(0.05)
    assert abs(math.log(logged[-1] / 0.05)) > 0.01


def test_held_out_ranks_pass_over_other_right_answers(model: TrainableEncoder) -> None:
    key, kettle, leave = SENTENCES[:3]
    two = [Example(key, key), Example(key, kettle)]  # the first answer is nearer, and no mistake of the second
    assert ContrastiveTraining(model, some(8), held_out=two).evaluate() == {"held_out_mrr": 1, "held_out_first": 1}
    wrong = [*two, Example(leave, kettle), Example(kettle, leave)]
    measured = ContrastiveTraining(model, some(8), held_out=wrong).evaluate()
    assert measured["held_out_first"] == 0.5


def test_a_teacher_and_a_guide_take_part(model: TrainableEncoder, directory: Path) -> None:
    encoder = Encoder.load(directory, device="cpu")
    examples = some(6, negatives=(1, 2))
    taught = ContrastiveTraining(model, examples, ContrastiveOptions(batch=6, teacher_weight=1.0), teacher=encoder)
    assert taught.step(list(range(6)), torch.Tensor.backward)["to_teacher"] == pytest.approx(0, abs=2e-3)
    loss = InfoNCE(guide=GuideMargin(2.5))  # nothing is so far below: no negative is left, and nothing to learn
    guided = ContrastiveTraining(model, examples, ContrastiveOptions(batch=6, loss=loss), guide=encoder)
    assert guided.step(list(range(6)), torch.Tensor.backward)["nce"] == pytest.approx(0, abs=1e-6)


def test_what_cannot_be_trained_is_said(model: TrainableEncoder, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="There is 1 example to train on"):
        ContrastiveTraining(model, some(1))
    with pytest.raises(TrainingError, match=r"No example has negatives.*`ragindex train mine`"):
        ContrastiveTraining(model, some(4), ContrastiveOptions(hard_negatives_after=0.5))
    with pytest.raises(TrainingError, match=r"No example has negatives that could be mixed"):
        ContrastiveTraining(model, some(4), ContrastiveOptions(loss=InfoNCE(mixing=Mixing())))
    headless = Encoder.load(tiny_encoder(tmp_path / "headless", head=False))
    with pytest.raises(TrainingError, match=f"teacher's vectors have 32 dimensions, the encoder's {HEAD_DIMENSIONS}"):
        ContrastiveTraining(model, some(4), teacher=headless)
    with pytest.raises(UsageError, match="from 0 to 1"):
        ContrastiveOptions(hard_negatives_after=2)
    with pytest.raises(UsageError, match="nothing to contrast"):
        ContrastiveOptions(negatives=0, loss=InfoNCE(in_batch=False))


def call(*arguments: object) -> Any:
    return CliRunner().invoke(main, ["train", "contrastive", *map(str, arguments)])


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    write_examples(file, some(40, negatives=(1, 2)))
    return file


def test_the_command_trains_and_its_card_says_how(directory: Path, pairs: Path, tmp_path: Path) -> None:
    result = call(
        *(pairs, "--encoder", directory, "--output", tmp_path / "out", "--steps", 8, "--batch", 8, "--json"),
        *("--held-out", 0.2, "--matryoshka", "8", "--directions", "q-d,d-q", "--hardness", 5, "--focal", 0.5),
        *("--false-negative-margin", 0.1, "--mix-pairs", 1, "--hard-negatives-after", 1, "--spread", 0.1),
        *("--teacher", directory, "--teacher-weight", 0.5, "--learn-temperature", "--instruction", "Find:"),
        *("--licence", "pairs.jsonl=CC0", "--rate", 0.01, "--lora", 4),
    )
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert shown["steps"] == 8
    assert shown["examples"] + shown["held_out"] == 40
    assert shown["held_out"] == 8
    assert set(shown["after"]) == {"held_out_mrr", "held_out_first"}
    assert Encoder.load(tmp_path / "out").config.card["contrastive"]["data"] == ["pairs.jsonl"]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| pairs.jsonl | CC0 |" in card
    config = json.loads((tmp_path / "out" / "run" / "config.json").read_text(encoding="utf-8"))
    assert config["options"]["hardness"] == 5
    assert not {"examples", "output", "as_json"} & config["options"].keys()
    again = call(pairs, "--encoder", directory, "--output", tmp_path / "out", "--steps", 8)
    assert again.exit_code == 2
    assert "holds a finished run" in again.output


def test_a_guide_from_the_command_line(directory: Path, pairs: Path, tmp_path: Path) -> None:
    result = call(
        *(pairs, "--encoder", directory, "--output", tmp_path / "out", "--steps", 2, "--batch", 8),
        *("--guide", directory, "--guide-margin", 0.05, "--guide-relative", "--no-in-batch"),
    )
    assert result.exit_code == 0, result.output
    assert "2 steps, held out mrr" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--steps N or --minutes N"),
        (("--steps", 2, "--teacher-weight", 1), "--teacher-weight belongs to --teacher"),
        (("--steps", 2, "--guide-margin", 0.1), "belong to --guide"),
        (("--steps", 2, "--directions", "q-d,x"), "Directions are q-d"),
        (("--steps", 2, "--matryoshka", "8,a"), "give numbers such as"),
        (
            ("--steps", 2, "--matryoshka", "8,512"),
            f"asks for 512 values, and the encoder's vectors have {HEAD_DIMENSIONS}",
        ),
        (("--steps", 2, "--licence", "nothing"), "give DATA=TEXT"),
        (("--steps", 2, "--no-in-batch", "--directions", "q-d,d-q"), "Without in-batch negatives there is q-d only"),
        (("--steps", 2, "--no-in-batch", "--negatives", 0), "nothing to contrast"),
    ],
)
def test_wrong_options_are_one_sentence(
    directory: Path, pairs: Path, tmp_path: Path, arguments: tuple[object, ...], message: str
) -> None:
    result = call(pairs, "--encoder", directory, "--output", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_unusable_data_is_one_sentence(directory: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    common = ("--encoder", directory, "--output", tmp_path / "out", "--steps", 2)
    bad.write_text('{"query": "a", "positive": "b"}\n{"query": "c"}\n', encoding="utf-8")
    result = call(bad, *common)
    assert result.exit_code == 2
    assert "bad.jsonl:2 has the keys 'query'" in result.output
    bad.write_text('{"query": "a", "positive": "b"}\n', encoding="utf-8")
    result = call(bad, *common)
    assert result.exit_code == 2
    assert "There is 1 example to train on" in result.output
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine", encoding="utf-8")
    write_examples(bad, some(8))
    result = call(bad, "--encoder", directory, "--output", tmp_path / "used", "--steps", 2)
    assert result.exit_code == 2
    assert "is not empty and holds no run" in result.output
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["mine.txt"]


def test_a_loss_that_is_no_number_is_one_sentence(directory: Path, pairs: Path, tmp_path: Path) -> None:
    result = call(pairs, "--encoder", directory, "--output", tmp_path / "out", "--steps", 9, "--rate", 1e30)
    assert result.exit_code == 2
    assert "is not finite at step" in result.output
    assert not (tmp_path / "out" / "ragindex.json").exists()


def test_queries_of_an_evaluation_are_refused(directory: Path, tmp_path: Path) -> None:
    judged = tmp_path / "judged"
    (judged / "qrels").mkdir(parents=True)
    (judged / "corpus.jsonl").write_text('{"_id": "d", "title": "", "text": "an answer"}\n', encoding="utf-8")
    (judged / "queries.jsonl").write_text('{"_id": "q", "text": "What is asked?"}\n', encoding="utf-8")
    (judged / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n", encoding="utf-8")
    file = tmp_path / "pairs.jsonl"
    write_examples(file, [*some(10), Example("what is ASKED", "something")])
    result = call(
        *(file, "--encoder", directory, "--output", tmp_path / "out", "--steps", 2, "--evaluation", judged),
    )
    assert result.exit_code == 2
    assert "contains an evaluation query: the first is the query of example 11" in result.output
    assert not (tmp_path / "out").exists()


def test_hardness_reaches_the_loss(model: TrainableEncoder) -> None:
    examples = some(6, negatives=(1,))
    plain = ContrastiveTraining(model, examples, ContrastiveOptions(batch=6)).step([0, 1, 2], torch.Tensor.backward)
    loss = InfoNCE(hardness=Hardness(9))
    hard = ContrastiveTraining(model, examples, ContrastiveOptions(batch=6, loss=loss))
    assert hard.step([0, 1, 2], torch.Tensor.backward)["nce"] > plain["nce"]

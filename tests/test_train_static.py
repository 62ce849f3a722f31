"""The static floor from a toy teacher, end to end: crops, teacher vectors, floor, rotation, distillation."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import save_file
from tiny import SENTENCES, tiny_encoder, tiny_tokenizer
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from ragindex.encoder import Encoder, torch_forward
from ragindex.errors import TrainingError
from ragindex.train import distill, rotate, static_init, teacher
from ragindex.train.crops import CropMixture, Record, draw_crops, read_records
from ragindex.train.teacher import Teacher, read_shards

DIMENSIONS = 96
WORDS = sorted({word.strip(".,;:()") for sentence in SENTENCES for word in sentence.split()})


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_forward, "choose_dtype", lambda device: torch.float32)


def call(command: click.Command, *arguments: object) -> str:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return str(result.output)


def write_records(file: Path, records: Sequence[dict[str, object]]) -> Path:
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """records.jsonl, a teacher with random weights, 480 of its vectors in two shards, and a floor made from them."""
    folder = tmp_path_factory.mktemp("workshop")
    generator = random.Random(0)
    records = [
        {"title": " ".join(generator.sample(WORDS, 4)), "text": " ".join(generator.choices(SENTENCES, k=4))}
        for _ in range(60)
    ]
    write_records(folder / "records.jsonl", records)
    write_teacher(folder / "teacher")
    call(
        teacher.main,
        *("--teacher", folder / "teacher", "--text", folder / "records.jsonl"),
        *("--output", folder / "shards", "--shards", 2, "--shard-size", 240),
    )
    call(
        static_init.main,
        *("--teacher", folder / "teacher", "--shards", folder / "shards", "--output", folder / "floor"),
        *("--layers", 1, "--hidden", 32, "--epochs", 30),
    )
    return folder


def write_teacher(directory: Path) -> None:
    words = tiny_tokenizer()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(directory)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=words.get_vocab_size(),
        hidden_size=DIMENSIONS,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=256,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(directory)


def crops_and_targets(workshop: Path) -> tuple[list[str], np.ndarray]:
    shards = list(read_shards(workshop / "shards"))
    return [crop for crops, _ in shards for crop in crops], np.concatenate([vectors for _, vectors in shards])


def mean_cosine(encoder: Encoder, crops: list[str], targets: np.ndarray) -> float:
    return float((encoder.encode_documents(crops) * targets).sum(1).mean())


def test_teacher_vectors_are_unit_and_in_order(workshop: Path) -> None:
    crops, targets = crops_and_targets(workshop)
    assert targets.shape == (480, DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(targets, axis=1), 1.0, atol=2e-3)
    again = Teacher(workshop / "teacher").encode(crops[:30])
    np.testing.assert_allclose(again, targets[:30], atol=2e-3)
    alone = np.concatenate([Teacher(workshop / "teacher").encode([crop]) for crop in crops[:3]])
    np.testing.assert_allclose(again[:3], alone, atol=1e-5)


def test_finished_shards_are_not_made_again_and_a_missing_one_is_the_same(workshop: Path, tmp_path: Path) -> None:
    shards = Path(shutil.copytree(workshop / "shards", tmp_path / "shards"))
    first, second = (shards / f"0000{number}.safetensors" for number in (0, 1))
    first.write_bytes(b"kept as it is")
    lost = second.read_bytes()
    second.unlink()
    options = ("--teacher", workshop / "teacher", "--text", workshop / "records.jsonl", "--output", shards)
    call(teacher.main, *options, "--shards", 2, "--shard-size", 240)
    assert first.read_bytes() == b"kept as it is"
    assert second.read_bytes() == lost
    assert list(shards.glob("*.partial")) == []


def test_the_floor_is_an_encoder_that_refinement_made_better(workshop: Path) -> None:
    encoder = Encoder.load(workshop / "floor", device="cpu")
    before, after = (step["held_out_cosine"] for step in encoder.config.card["steps"])
    assert 0.2 < before < after - 0.003 < 1.0
    crops, targets = crops_and_targets(workshop)
    # What was measured without a decoder is what the decoder gives: it passes its token rows through.
    assert mean_cosine(encoder, crops, targets) == pytest.approx(after, abs=0.1)
    assert encoder.dimensions == DIMENSIONS
    assert encoder.tokenizer.specials == 0
    np.testing.assert_allclose(
        encoder.encode_documents(["key rotate", "kettle " * 90])[0],
        encoder.encode_documents(["rotate key"])[0],
        atol=1e-4,
    )


def test_refinement_can_be_left_out(workshop: Path, tmp_path: Path) -> None:
    options = ("--teacher", workshop / "teacher", "--shards", workshop / "shards", "--output", tmp_path / "plain")
    call(static_init.main, *options, "--layers", 1, "--hidden", 32, "--epochs", 0)
    (step,) = Encoder.load(tmp_path / "plain").config.card["steps"]
    whole = Encoder.load(workshop / "floor").config.card["steps"]
    assert step == whole[0]  # the same seed, so the same held-out crops and the same start


def test_pairs_bring_what_belongs_together_nearer(workshop: Path, tmp_path: Path) -> None:
    """The handles of these records have nothing to do with their texts until the pairs say so."""
    generator = random.Random(1)
    texts = [" ".join(generator.sample(WORDS, 8)) for _ in range(40)]
    handles = [" ".join(generator.sample(WORDS, 3)) for _ in texts]
    rows = [{"query": handle, "positive": text} for handle, text in zip(handles, texts, strict=True)]
    pairs = write_records(tmp_path / "pairs.jsonl", rows)
    options = ("--teacher", workshop / "teacher", "--shards", workshop / "shards", "--output", tmp_path / "contrasted")
    call(static_init.main, *options, "--layers", 0, "--hidden", 32, "--epochs", 30, "--pairs", pairs, "--steps", 40)

    def found(path: Path) -> float:
        encoder = Encoder.load(path, device="cpu")
        scores = encoder.encode_queries(handles) @ encoder.encode_documents(texts).T
        return float((scores.argmax(1) == np.arange(len(texts))).mean())

    assert found(tmp_path / "contrasted") > found(workshop / "floor") + 0.3
    card = Encoder.load(tmp_path / "contrasted").config.card
    assert [step["step"].split(",")[0].split(" ")[0] for step in card["steps"]] == ["token", "refinement", "contrast"]
    assert card["text"] == ["pairs.jsonl"]


def test_rotation_keeps_cosines_and_makes_cut_vectors_better(workshop: Path, tmp_path: Path) -> None:
    rotated = Path(shutil.copytree(workshop / "floor", tmp_path / "rotated"))
    call(rotate.main, "--encoder", rotated, "--shards", workshop / "shards", "--steps", "16,64,128")
    crops, _ = crops_and_targets(workshop)
    crops = crops[:200]
    before, after = (Encoder.load(path, device="cpu") for path in (workshop / "floor", rotated))
    cosines = before.encode_documents(crops) @ before.encode_documents(crops).T
    np.testing.assert_allclose(after.encode_documents(crops) @ after.encode_documents(crops).T, cosines, atol=1e-5)
    assert after.fingerprint != before.fingerprint
    assert after.config.matryoshka == (16, 64)  # 128 is more than there are
    for cut in (16, 64):
        errors = []
        for path in (workshop / "floor", rotated):
            vectors = Encoder.load(path, dimensions=cut, device="cpu").encode_documents(crops)
            errors.append(float(np.abs(vectors @ vectors.T - cosines).mean()))
        assert errors[1] < 0.7 * errors[0]


def test_principal_axes_are_orthogonal_largest_first() -> None:
    generator = np.random.default_rng(0)
    vectors = (generator.standard_normal((500, 6)) * [1, 5, 2, 0.1, 3, 0]).astype(np.float32)
    axes = rotate.principal_axes(vectors)
    np.testing.assert_allclose(axes @ axes.T, np.eye(6), atol=1e-9)
    energy = np.square(vectors @ axes.T).sum(0)
    assert (np.diff(energy) <= 1e-6).all()
    np.testing.assert_allclose(np.abs(axes[0]), [0, 1, 0, 0, 0, 0], atol=0.1)


def test_distillation_runs_and_its_card_says_what_the_encoder_does(workshop: Path, tmp_path: Path) -> None:
    output = call(
        distill.main,
        *("--encoder", workshop / "floor", "--shards", workshop / "shards", "--output", tmp_path / "student"),
        *("--minutes", 0.01, "--tokens", 512, "--seed", 3),
    )
    last = json.loads(output.splitlines()[-1])
    encoder = Encoder.load(tmp_path / "student", device="cpu")
    assert encoder.config.card["distillation"] == last
    assert encoder.config.card["method"].startswith("static floor")
    crops, targets = crops_and_targets(workshop)
    order = list(range(len(crops)))
    random.Random(3).shuffle(order)
    held_out = order[: len(crops) - last["crops"]]
    measured = mean_cosine(encoder, [crops[index] for index in held_out], targets[held_out])
    assert measured == pytest.approx(last["held_out_cosine"], abs=5e-3)
    assert encoder.fingerprint != Encoder.load(workshop / "floor").fingerprint


def test_learning_rate_warms_up_and_falls() -> None:
    rates = [distill.rate_at(step / 100) for step in range(101)]
    peak = rates.index(max(rates))
    assert rates[0] == 0.0
    assert rates[peak] == pytest.approx(1.0)
    assert peak == 3
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[peak:]))
    assert rates[-1] == pytest.approx(0.01)
    assert distill.rate_at(1.5) == pytest.approx(0.01)


def test_batches_respect_the_budget_and_use_every_example() -> None:
    examples = [distill.Example([1] * (1 + number % 17), np.zeros(2, np.float32)) for number in range(50)]
    stream = distill.batches(examples, tokens=40, seed=1)
    seen: list[int] = []
    while len(seen) < len(examples):
        batch = next(stream)
        assert len(batch) * max(len(item.ids) for item in batch) <= 40
        seen.extend(id(item) for item in batch)
    assert sorted(seen) == sorted(id(item) for item in examples)


def write_shard(directory: Path, crops: list[str]) -> Path:
    directory.mkdir()
    with gzip.open(directory / "00000.json.gz", "wt", encoding="utf-8") as out:
        json.dump(crops, out)
    save_file({"vectors": np.ones((len(crops), DIMENSIONS), np.float16)}, directory / "00000.safetensors")
    return directory


def test_too_little_to_learn_from_is_said(workshop: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    few = write_shard(tmp_path / "few", ["key", "kettle"])
    floor, out = workshop / "floor", tmp_path / "out"
    for shards, message in ((tmp_path / "none", "no finished shards"), (few, "2 crops; at least 10")):
        for command, options in (
            (static_init.main, ("--teacher", workshop / "teacher", "--output", out)),
            (distill.main, ("--encoder", floor, "--output", out, "--minutes", 0.01)),
        ):
            with pytest.raises(TrainingError, match=message):
                call(command, *options, "--shards", shards)
    with pytest.raises(TrainingError, match="no finished shards"):
        call(rotate.main, "--encoder", floor, "--shards", tmp_path / "none")
    assert not out.exists()


def test_an_encoder_without_head_has_nothing_to_train(workshop: Path, tmp_path: Path) -> None:
    headless = tiny_encoder(tmp_path / "headless", head=False)
    with pytest.raises(TrainingError, match="no head to rotate"):
        call(rotate.main, "--encoder", headless, "--shards", workshop / "shards")
    with pytest.raises(TrainingError, match="no head to train; start from a static floor"):
        call(
            distill.main,
            *("--encoder", headless, "--shards", workshop / "shards", "--output", tmp_path / "out", "--minutes", 0.01),
        )


def test_the_same_seed_draws_the_same_crops(workshop: Path) -> None:
    files = [workshop / "records.jsonl"]

    def first(seed: int) -> list[str]:
        return list(itertools.islice(draw_crops(files, seed=seed), 300))

    assert first(1) == first(1)
    assert first(1) != first(2)
    assert all(len(crop) > 2 for crop in first(1))


def test_crops_are_of_the_kinds_and_lengths_asked_for(tmp_path: Path) -> None:
    text = " ".join(f"w{number}" for number in range(400))
    file = write_records(tmp_path / "one.jsonl", [{"title": "handle", "text": text}])
    mixture = CropMixture(passages=1.0, sentences=0.0, shortest=5, longest=20)
    words = [
        crop.removeprefix("handle\n").split()
        for crop in itertools.islice(draw_crops([file], seed=0, mixture=mixture), 400)
    ]
    assert {5, 20} <= {len(crop) for crop in words} <= set(range(5, 21))
    for crop in words:
        start = int(crop[0][1:])
        assert crop == [f"w{number}" for number in range(start, start + len(crop))]
    queries = CropMixture(passages=0.0, sentences=0.0)
    assert "handle" in set(itertools.islice(draw_crops([file], seed=0, mixture=queries), 50))


def test_records_of_both_kinds_packed_or_not(tmp_path: Path) -> None:
    rows = [{"title": "Keys", "text": "Rotate them."}, {"query": "how?", "positive": "Like this."}]
    expected = [Record("Keys", "Rotate them."), Record("how?", "Like this.")]
    file = write_records(tmp_path / "a.jsonl", rows)
    assert read_records(file) == expected
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert read_records(packed) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"",
        b"[]",
        b"5",
        b'"query"',
        b'{"title": "no text"}',
        b'{"query": "no positive"}',
        b'{"title": null, "text": "body"}',
        b'{"title": "a", "text": ["body"]}',
        b'{"title": "\xff", "text": "body"}',
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_malformed_record_is_named_by_its_line(tmp_path: Path, line: bytes, packed: bool) -> None:
    content = b'{"title": "fine", "text": "fine"}\n' * 2 + line + b'\n{"title": "fine", "text": "fine"}\n'
    file = tmp_path / ("bad.jsonl.gz" if packed else "bad.jsonl")
    file.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(TrainingError, match=rf"{file.name}:3 is not a record with title and text, or query and pos"):
        read_records(file)


def test_damaged_and_empty_files_are_said_to_be_so(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"title": "fine", "text": "fine"}\n' * 500)
    for content in (b"no gzip", whole[: len(whole) // 2], whole[:12] + b"\x00" * 30):
        (tmp_path / "a.jsonl.gz").write_bytes(content)
        with pytest.raises(TrainingError, match=r"a\.jsonl\.gz cannot be read after line \d+"):
            read_records(tmp_path / "a.jsonl.gz")
    empty = write_records(tmp_path / "empty.jsonl", [])
    blank = write_records(tmp_path / "blank.jsonl", [{"title": "", "text": ""}])
    for files in ([], [empty], [blank], [empty, blank]):
        with pytest.raises(TrainingError, match="no training text"):
            next(draw_crops(files, seed=0))

"""The static floor from a toy teacher, end to end: crops, teacher vectors, floor, rotation."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.numpy import save_file
from tiny import SENTENCES, tiny_encoder, tiny_tokenizer
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from ragindex.cli import main
from ragindex.encoder import Encoder, torch_forward
from ragindex.errors import TrainingError, UsageError
from ragindex.train import rotate
from ragindex.train.crops import CropMixture, Record, draw_crops, read_records
from ragindex.train.teacher import make_shards, read_shards
from ragindex.train.token_vectors import token_vectors

DIMENSIONS = 96
WORDS = sorted({word.strip(".,;:()") for sentence in SENTENCES for word in sentence.split()})


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_forward, "choose_dtype", lambda device: torch.float32)


def call(command: str, *arguments: object) -> str:
    result = CliRunner().invoke(main, ["train", command, *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return str(result.output)


def refused(command: str, *arguments: object) -> str:
    result = CliRunner().invoke(main, ["train", command, *map(str, arguments)])
    assert result.exit_code == 2
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
    shards(folder)
    static(folder, folder / "floor", "--layers", 1, "--epochs", 30)
    return folder


def shards(workshop: Path, output: Path | None = None, **changes: Any) -> None:
    options = {"shards": 2, "seed": 7, "size": 240, **changes}
    make_shards(str(workshop / "teacher"), [workshop / "records.jsonl"], output or workshop / "shards", **options)


def static(workshop: Path, output: Path, *arguments: object) -> str:
    common = ("--teacher", workshop / "teacher", "--vectors", workshop / "shards", "--hidden", 32)
    return call("static", "--output", output, *common, *arguments)


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
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    rows = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(modules)
    ]
    (directory / "modules.json").write_text(json.dumps(rows), encoding="utf-8")
    (directory / "sentence_bert_config.json").write_text('{"max_seq_length": 256}', encoding="utf-8")
    (directory / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": DIMENSIONS, "pooling_mode_mean_tokens": True}
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")


def crops_and_targets(workshop: Path) -> tuple[list[str], np.ndarray]:
    shards = list(read_shards(workshop / "shards"))
    return [crop for crops, _ in shards for crop in crops], np.concatenate([vectors for _, vectors in shards])


def mean_cosine(encoder: Encoder, crops: list[str], targets: np.ndarray) -> float:
    return float((encoder.encode_documents(crops) * targets).sum(1).mean())


def test_teacher_vectors_are_unit_and_in_order(workshop: Path) -> None:
    crops, targets = crops_and_targets(workshop)
    assert targets.shape == (480, DIMENSIONS)
    np.testing.assert_allclose(np.linalg.norm(targets, axis=1), 1.0, atol=2e-3)
    again = Encoder.load(workshop / "teacher").encode_documents(crops[:30])
    np.testing.assert_allclose(again, targets[:30], atol=2e-3)


def test_finished_shards_are_not_made_again_and_a_missing_one_is_the_same(workshop: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(workshop / "shards", tmp_path / "shards"))
    first, second = (folder / f"0000{number}.safetensors" for number in (0, 1))
    first.write_bytes(b"kept as it is")
    lost = second.read_bytes()
    second.unlink()
    shards(workshop, folder)
    assert first.read_bytes() == b"kept as it is"
    assert second.read_bytes() == lost
    assert list(folder.glob("*.partial")) == []


def test_vectors_is_the_command_that_makes_shards(workshop: Path, tmp_path: Path) -> None:
    common = ("--teacher", workshop / "teacher", "--text", workshop / "records.jsonl", "--shards", 1)
    said = json.loads(call("vectors", *common, "--seed", 3, "--output", tmp_path / "cache", "--json"))
    assert said == {"vectors": str(tmp_path / "cache"), "shards": 1, "texts": 4096}
    ((crops, vectors),) = read_shards(tmp_path / "cache")
    assert crops == list(itertools.islice(draw_crops([workshop / "records.jsonl"], seed=3), 4096))
    np.testing.assert_allclose(Encoder.load(workshop / "teacher").encode_documents(crops[:20]), vectors[:20], atol=2e-3)
    assert "4,096 texts in 1 shards" in call("vectors", *common, "--seed", 3, "--output", tmp_path / "cache")
    assert "the seed 3" in refused("vectors", *common, "--output", tmp_path / "cache")
    # A folder in which nothing was made yet belongs to nobody.
    empty = tmp_path / "empty"
    bad = write_records(tmp_path / "bad.jsonl", [{"no": "record"}])
    assert "bad.jsonl:1 is not a record" in refused(
        "vectors", *common[:2], "--text", bad, *common[4:], "--output", empty
    )
    call("vectors", *common, "--output", empty)
    assert "--teacher" in refused("vectors", "--text", workshop / "records.jsonl", "--shards", 1, "--output", "x")


def test_shards_of_different_making_are_not_mixed(workshop: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(workshop / "shards", tmp_path / "shards"))
    for changes, message in (({"seed": 8}, "the seed 7"), ({"size": 99}, "shards of 240 texts")):
        with pytest.raises(UsageError, match=message):
            shards(workshop, folder, shards=3, **changes)
    other = write_records(tmp_path / "other.jsonl", [{"title": "kettle", "text": SENTENCES[1]}])
    with pytest.raises(UsageError, match="made with other text"):
        make_shards(str(workshop / "teacher"), [other], folder, shards=3, seed=7, size=240)
    with pytest.raises(UsageError, match="made with another teacher"):
        make_shards(str(tiny_encoder(tmp_path / "t")), [workshop / "records.jsonl"], folder, shards=3, seed=7, size=240)
    (folder / "made.json").unlink()
    with pytest.raises(UsageError, match=r"but not made\.json"):
        shards(workshop, folder, shards=3)
    assert len(list(folder.glob("*.safetensors"))) == 2


def test_single_tokens_are_read_as_the_teacher_reads_them(workshop: Path) -> None:
    words = tiny_tokenizer()
    vectors = token_vectors(workshop / "teacher", words.get_vocab_size())
    assert vectors.shape == (words.get_vocab_size(), DIMENSIONS)
    expected = Encoder.load(workshop / "teacher").encode_documents(["kettle", "vaccine"])
    found = vectors[[words.token_to_id(word) for word in ("kettle", "vaccine")]]
    np.testing.assert_allclose(found, expected, atol=2e-3)


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
    static(workshop, tmp_path / "plain", "--layers", 1, "--epochs", 0)
    (step,) = Encoder.load(tmp_path / "plain").config.card["steps"]
    whole = Encoder.load(workshop / "floor").config.card["steps"]
    assert step == whole[0]  # the same seed, so the same held-out crops and the same start


def test_words_get_tokens_and_tokens_count_by_place_and_repetition(workshop: Path, tmp_path: Path) -> None:
    crops, targets = crops_and_targets(workshop)
    word = "kettlewright"  # "kettle" and pieces
    folder = write_shard(tmp_path / "shards", [f"{crop} {word}" for crop in crops[:240]], targets[:240])
    options = ("--layers", 1, "--words", 1, "--saturation", 4, "--lead", 20, "--pooling", "mean-query", "--epochs", 3)
    common = ("--teacher", workshop / "teacher", "--vectors", folder, "--hidden", 32)
    assert len(tiny_tokenizer().encode(word, add_special_tokens=False).tokens) > 1
    call("static", "--output", tmp_path / "made", *common, *options)
    encoder = Encoder.load(tmp_path / "made", device="cpu")
    assert encoder.tokenizer.count(word) == 1
    assert encoder.config.card["words"] == 1
    assert (encoder.config.pooling, *encoder.config.counting) == ("mean-query", 4.0, 20.0)
    # What was measured without a decoder is what the encoder gives.
    measured = encoder.config.card["steps"][-1]["held_out_cosine"]
    assert mean_cosine(encoder, [f"{crop} {word}" for crop in crops[:240]], targets[:240]) == pytest.approx(
        measured, abs=0.1
    )
    vectors = token_vectors(workshop / "teacher", 3, [word, "vaccine"])
    expected = Encoder.load(workshop / "teacher").encode_documents([word, "vaccine"])
    np.testing.assert_allclose(vectors[3:], expected, atol=2e-3)


def test_pairs_bring_what_belongs_together_nearer(workshop: Path, tmp_path: Path) -> None:
    """The handles of these records have nothing to do with their texts until the pairs say so."""
    generator = random.Random(1)
    texts = [" ".join(generator.sample(WORDS, 8)) for _ in range(40)]
    handles = [" ".join(generator.sample(WORDS, 3)) for _ in texts]
    rows = [{"query": handle, "positive": text} for handle, text in zip(handles, texts, strict=True)]
    pairs = write_records(tmp_path / "pairs.jsonl", rows)
    static(workshop, tmp_path / "contrasted", "--layers", 0, "--epochs", 30, "--pairs", pairs, "--steps", 80)

    def found(path: Path) -> float:
        encoder = Encoder.load(path, device="cpu")
        scores = encoder.encode_queries(handles) @ encoder.encode_documents(texts).T
        return float((scores.argmax(1) == np.arange(len(texts))).mean())

    assert found(tmp_path / "contrasted") > found(workshop / "floor") + 0.3
    card = Encoder.load(tmp_path / "contrasted").config.card
    assert [step["step"].split(",")[0].split(" ")[0] for step in card["steps"]] == ["token", "refinement", "contrast"]
    assert card["text"] == ["pairs.jsonl"]


def test_rotation_keeps_cosines_and_makes_cut_vectors_better(workshop: Path, tmp_path: Path) -> None:
    rotated = tmp_path / "rotated"
    options = ("--vectors", workshop / "shards", "--output", rotated, "--matryoshka", "16,64,128", "--json")
    shown = json.loads(call("rotate", "--encoder", workshop / "floor", *options))
    assert shown == {"encoder": str(rotated), "matryoshka": [16, 64]}
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


def write_shard(directory: Path, crops: list[str], vectors: np.ndarray | None = None) -> Path:
    directory.mkdir()
    with gzip.open(directory / "00000.json.gz", "wt", encoding="utf-8") as out:
        json.dump(crops, out)
    vectors = np.ones((len(crops), DIMENSIONS)) if vectors is None else vectors
    save_file({"vectors": vectors.astype(np.float16)}, directory / "00000.safetensors")
    return directory


def test_too_little_to_learn_from_is_said(workshop: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    few = write_shard(tmp_path / "few", ["key", "kettle"])
    out = tmp_path / "out"
    floor = ("--teacher", workshop / "teacher", "--output", out)
    assert "no finished shards" in refused("static", *floor, "--vectors", tmp_path / "none")
    assert "2 crops; at least 10" in refused("static", *floor, "--vectors", few)
    turned = ("--encoder", workshop / "floor", "--output", out)
    assert "no finished shards" in refused("rotate", *turned, "--vectors", tmp_path / "none")
    assert not out.exists()


def test_what_cannot_be_rotated_is_said(workshop: Path, tmp_path: Path) -> None:
    headless, other = tiny_encoder(tmp_path / "headless", head=False), tiny_encoder(tmp_path / "other")
    common = ("--vectors", workshop / "shards", "--output", tmp_path / "out")
    assert "no head to rotate" in refused("rotate", "--encoder", headless, *common)
    said = refused("rotate", "--encoder", other, *common)
    assert f"have {DIMENSIONS} dimensions, the encoder's 24" in said
    assert "give numbers such as" in refused("rotate", "--encoder", workshop / "floor", *common, "--matryoshka", "x")
    used = ("--vectors", workshop / "shards", "--output", workshop / "floor")
    assert "is not empty" in refused("rotate", "--encoder", workshop / "floor", *used)
    assert "is not empty" in refused("static", "--teacher", workshop / "teacher", *used)


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
        for crop in itertools.islice(draw_crops([file], seed=0, mixture=mixture), 4000)
    ]
    assert {5, 20} <= {len(crop) for crop in words} <= set(range(5, 21))
    for crop in words:
        start = int(crop[0][1:])
        assert crop == [f"w{number}" for number in range(start, start + len(crop))]
    # An octave of lengths gets as many words as the next: mean ln 4 / (1/5 - 1/20) = 9.2, log-uniform it would be 10.8.
    assert 8.8 < np.mean([len(crop) for crop in words]) < 9.7
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

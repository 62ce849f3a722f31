"""`ragindex train clm` and `train mntp` on the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from language_kit import plain_decoder, some_texts

from ragindex import Encoder
from ragindex.cli import main
from ragindex.train.data.texts import Texts
from ragindex.train.prediction import TokenPrediction
from ragindex.train.run import Run


@pytest.fixture(scope="module")
def texts() -> Texts:
    return some_texts()


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    return plain_decoder(tmp_path / "decoder")


def _run(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(item) for item in arguments])


@pytest.fixture
def notes(tmp_path: Path, texts: Texts) -> Path:
    file = tmp_path / "notes.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return file


def test_the_commands_make_a_decoder_and_then_an_encoder(tmp_path: Path, notes: Path) -> None:
    size = ["--layers", 1, "--hidden", 32, "--heads", 2, "--vocabulary", 350, "--block", 32, "--tokens", 256]
    arguments = ["train", "clm", "--text", notes, "--output", tmp_path / "decoder", "--steps", 4, *size, "--json"]
    result = _run(*arguments)
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert made.keys() == {"decoder", "steps", "seconds", "parameters", "vocabulary", "before", "after"}
    assert (made["steps"], made["vocabulary"]) == (4, 350)
    log = Run(tmp_path / "decoder").rows()
    assert {"loss", "rate", "gradient_norm", "tokens", "predicted"} <= log[1].keys()
    arguments = ["train", "mntp", "--encoder", tmp_path / "decoder", "--text", notes, "--output", tmp_path / "encoder"]
    result = _run(*arguments, "--steps", 4, "--block", 32, "--lora", 4, "--adapter", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["after"].keys() == {
        "held_out_loss",
        "held_out_perplexity",
        "held_out_accuracy",
    }
    assert (tmp_path / "encoder" / "adapter" / "adapter_config.json").is_file()
    assert Encoder.load(tmp_path / "encoder").config.card["mntp"]["data"] == ["notes.jsonl"]


def test_a_tokenizer_is_not_made_a_second_time(tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """WordPiece training breaks ties by chance: other tokens would fit neither the weights nor the data's order."""
    arguments = ["train", "clm", "--text", notes, "--output", tmp_path / "decoder", "--steps", 6, "--layers", 1]
    arguments += ["--hidden", 32, "--heads", 2, "--vocabulary", 350, "--block", 32, "--algorithm", "wordpiece"]
    original = TokenPrediction.step
    taken: list[int] = []

    def stop(self: TokenPrediction, batch: list[int], backward: Any) -> Mapping[str, float]:
        taken.append(1)
        if len(taken) == 3:
            raise KeyboardInterrupt
        return original(self, batch, backward)

    monkeypatch.setattr(TokenPrediction, "step", stop)
    assert _run(*arguments).exit_code != 0
    kept = (tmp_path / "decoder" / "run" / "tokenizer.json").read_bytes()
    monkeypatch.setattr(TokenPrediction, "step", original)
    monkeypatch.setattr("ragindex.train.vocabulary.train_tokenizer", lambda *_: pytest.fail("made anew"))
    result = _run(*arguments)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "decoder" / "tokenizer.json").read_bytes() == kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clm", "--output", "o", "--steps", "1"], "Say what to learn from"),
        (["clm", "--output", "o", "--text", "t.txt"], "Say how long to train"),
        (["clm", "--output", "o", "--text", "t.txt", "--steps", "1", "--from", "d", "--hidden", "64"], "--hidden is"),
        (["clm", "--output", "o", "--text", "t.txt", "--steps", "1", "--tokenizer", "t.txt", "--lowercase"], "given"),
        (["clm", "--output", "o", "--text", "t.txt", "--steps", "1", "--tokenizer", "t.txt"], "not a readable"),
        (["clm", "--output", "o", "--text", "t.txt", "--steps", "1", "--hidden", "90", "--heads", "4"], "even parts"),
        (["clm", "--output", "o", "--text", "e.txt", "--steps", "1"], "e.txt holds no text"),
        (["clm", "--output", "o", "--text", "t.txt", "--steps", "1", "--block", "256"], "fewer than one block"),
        (["mntp", "--encoder", "d", "--output", "o", "--text", "t.txt", "--steps", "1", "--adapter"], "--lora RANK"),
        (["mntp", "--encoder", "none", "--output", "o", "--text", "t.txt", "--steps", "1"], "no encoder 'none'"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoder: Path, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    decoder.rename(tmp_path / "d")
    (tmp_path / "t.txt").write_text("A short text.", encoding="utf-8")
    (tmp_path / "e.txt").write_text("\n", encoding="utf-8")
    result = _run("train", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "o").exists()

"""`ragindex train recipe`: stages in order, none repeated, none begun with a mistake in a later one."""

from __future__ import annotations

import gzip
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_train_contrastive import some
from test_train_static import write_teacher
from tiny import tiny_encoder

from ragindex import Encoder
from ragindex.cli import main
from ragindex.train.data.examples import write_examples

RECIPE = """
[first]
command = "contrastive"
examples = ["{pairs}"]
steps = 2
batch = 8
held-out = 0.1

[mine]
examples = "{pairs}"
negatives = 2
margin = 0
lexical = false

[second]
command = "contrastive"
examples = ["{{mine}}"]
steps = {steps}
batch = 8
matryoshka = [8, 16]
learn_temperature = true
"""


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    tiny_encoder(tmp_path / "tiny", layers=1)
    write_examples(tmp_path / "pairs.jsonl", some(24))
    write_recipe(tmp_path)
    return tmp_path


def write_recipe(folder: Path, text: str = RECIPE, *, steps: int = 3) -> None:
    (folder / "recipe.toml").write_text(text.format(pairs=folder / "pairs.jsonl", steps=steps), encoding="utf-8")


def call(folder: Path, *arguments: object) -> Any:
    common = (folder / "recipe.toml", "--output", folder / "out", "--encoder", folder / "tiny")
    return CliRunner().invoke(main, ["train", "recipe", *map(str, (*common, *arguments))])


def states(folder: Path) -> list[str]:
    result = call(folder, "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    return [row["state"] for row in json.loads(result.stdout)["stages"]]


def test_stages_follow_each_other_and_are_not_repeated(workshop: Path) -> None:
    assert states(workshop) == ["to do"] * 3
    assert not (workshop / "out").exists()  # a dry run makes nothing
    result = call(workshop, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["stages"]
    assert [row["stage"] for row in rows] == ["1-first", "2-mine", "3-second"]
    card = Encoder.load(workshop / "out" / "3-second").config.card
    assert card["contrastive"]["from"] == str(workshop / "out" / "1-first")
    assert card["contrastive"]["data"] == ["2-mine.jsonl"]
    assert states(workshop) == ["finished"] * 3
    before = (workshop / "out" / "3-second" / "model.safetensors").stat().st_mtime_ns
    again = call(workshop)
    assert again.exit_code == 0, again.output
    assert (workshop / "out" / "3-second" / "model.safetensors").stat().st_mtime_ns == before
    write_recipe(workshop, steps=4)
    changed = call(workshop)
    assert changed.exit_code == 2
    assert "3-second was made with other options, data or stages before it" in changed.output
    write_recipe(workshop)
    write_examples(workshop / "pairs.jsonl", some(25))
    changed = call(workshop)
    assert changed.exit_code == 2
    assert "1-first was made with other" in changed.output


def test_a_stage_that_failed_is_done_again_and_the_ones_before_it_are_not(workshop: Path) -> None:
    write_recipe(workshop, RECIPE.replace("batch = 8\nmatry", "rate = 1e30\nbatch = 8\nmatry"))
    failed = call(workshop)
    assert failed.exit_code == 2
    assert "is not finite" in failed.output
    assert states(workshop) == ["finished", "finished", "begun"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("batch = 8\nheld-out", "batsh = 8\nheld-out"), "[first] has the unknown key 'batsh'; did you mean 'batch'?"),
        (('[second]\ncommand = "contrastive"', "[contrastif]"), "names no stage: 'contrastif'; did you mean"),
        (("margin = 0", 'margin = "low"'), "[mine] Invalid value for '--margin'"),
        (("lexical = false", "lexical = 3"), "[mine] has lexical = 3; give true or false."),
        (("{{mine}}", "{{nine}}"), "[second] names {nine}, which no stage before it has made."),
        (("[first]", "output = 3\n[first]"), "has 'output' outside of a table"),
        (("held-out = 0.1", 'output = "x"'), "[first] has the unknown key 'output'"),
        (("[first]", "[first"), "cannot be read as TOML"),
        (("{pairs}", "none.jsonl"), "does not exist"),
        (('command = "contrastive"\nexamples = ["{pairs}"]', 'command = "recipe"'), "[first] names no stage"),
    ],
)
def test_mistakes_are_found_before_anything_runs(workshop: Path, change: tuple[str, str], message: str) -> None:
    write_recipe(workshop, RECIPE.replace(*change))
    result = call(workshop)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not (workshop / "out").exists()


def test_an_output_with_something_else_in_it_is_left_alone(workshop: Path) -> None:
    (workshop / "out").mkdir()
    (workshop / "out" / "mine.txt").write_text("mine", encoding="utf-8")
    result = call(workshop)
    assert result.exit_code == 2
    assert "holds no recipe's output" in result.output


def test_the_recipe_of_llm2vec_can_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(__file__).parent.parent / "docs" / "recipes" / "llm2vec.toml"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.jsonl.gz").write_bytes(b"")
    (tmp_path / "pairs.jsonl").write_text("", encoding="utf-8")
    result = CliRunner().invoke(main, ["train", "recipe", str(file), "--output", "out", "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    stages = json.loads(result.stdout)["stages"]
    assert [row["stage"] for row in stages] == [
        f"{number}-{name}" for number, name in enumerate(tomllib.loads(file.read_text(encoding="utf-8")), start=1)
    ]
    assert "--encoder out/1-clm" in stages[1]["command"]
    assert "--encoder out/3-simcse" in stages[3]["command"]
    assert stages[4]["command"].endswith("-- out/4-mine.jsonl")


def test_the_recipe_of_llm2vec_ends_in_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its sizes and lengths cut down; everything else is as it is given out."""
    recipe = (Path(__file__).parent.parent / "docs" / "recipes" / "llm2vec.toml").read_text(encoding="utf-8")
    for pattern, short in (
        (r"^steps = .*", "steps = 2"),
        (r"^batch = .*", "batch = 8"),
        (r'^size = "small"', 'size = "nano"\nvocabulary = 300\nblock = 32'),
        (r"^\[mntp\]", "[mntp]\nblock = 32"),
    ):
        recipe, count = re.subn(pattern, short, recipe, flags=re.MULTILINE)
        assert count
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.toml").write_text(recipe, encoding="utf-8")
    with gzip.open(tmp_path / "text.jsonl.gz", "wt", encoding="utf-8") as text:
        text.writelines(
            json.dumps({"title": "", "text": f"{one.positive} and {one.query}."}) + "\n" for one in some(60)
        )
    write_examples(tmp_path / "pairs.jsonl", some(24))
    result = CliRunner().invoke(main, ["train", "recipe", "recipe.toml", "--output", "out"])
    assert result.exit_code == 0, result.output
    encoder = Encoder.load("out/5-contrastive")
    assert encoder.config.attention == "bidirectional"
    assert {"clm", "mntp", "simcse", "contrastive"} <= encoder.config.card.keys()


def test_the_recipe_of_the_bundled_encoder_ends_in_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tiny teacher, little text and short lengths; everything else is as it is given out."""
    recipe = (Path(__file__).parent.parent / "docs" / "recipes" / "bundled.toml").read_text(encoding="utf-8")
    recipe, count = re.subn(r"^shards = 90$", "shards = 1", recipe, flags=re.MULTILINE)
    assert count == 1
    recipe = recipe.replace("hidden = 384", "hidden = 32\nsteps = 4")
    recipe = recipe.replace("[rotate]", '[rotate]\nmatryoshka = "8,16"')
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.toml").write_text(recipe, encoding="utf-8")
    write_teacher(tmp_path / "teacher")
    (tmp_path / "text").mkdir()
    names = sorted(set(re.findall(r"text/([a-z-]+)\.jsonl\.gz", recipe)))
    assert len(names) == 15
    for name in names:
        with gzip.open(tmp_path / "text" / f"{name}.jsonl.gz", "wt", encoding="utf-8") as text:
            text.writelines(json.dumps({"query": one.query, "positive": one.positive}) + "\n" for one in some(20))
    result = CliRunner().invoke(main, ["train", "recipe", "recipe.toml", "--output", "out"])
    assert result.exit_code == 0, result.output
    encoder = Encoder.load("out/3-rotate")
    assert encoder.config.matryoshka == (8, 16)
    assert (encoder.config.trust, encoder.config.pooling) == (1.0, "mean-query")
    again = CliRunner().invoke(main, ["train", "recipe", "recipe.toml", "--output", "out"])
    assert "3-rotate is finished" in again.output

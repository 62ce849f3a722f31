"""`query --task`: a query in the words of a task that the encoder knows by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import tiny_encoder

from ragindex import Index
from ragindex.cli import main
from ragindex.encoder import Prompts, Task
from ragindex.errors import UsageError

PROMPTS = Prompts(
    instructed_query="Instruct: {instruction}\nQuery: {text}",
    tasks={"facts": Task("Find what proves the claim."), "likeness": Task("Find the same.", symmetric=True)},
)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    directory = tiny_encoder(tmp_path / "tiny", prompts=PROMPTS)
    (tmp_path / "notes").mkdir()
    for number in range(4):
        (tmp_path / "notes" / f"{number}.md").write_text(f"The key number {number} is kept in a safe.\n")
    with Index.open(tmp_path / ".ragindex", encoder=str(directory)) as opened:
        opened.add(tmp_path / "notes")
        yield opened


def test_the_query_is_put_as_the_task_has_it(index: Index) -> None:
    (query,) = index.encoder.encode_queries(["where is the key?"], task="facts")
    (plain,) = index.encoder.encode_queries(["where is the key?"])
    assert float(query @ plain) < 0.9999
    for hit in index.search("where is the key?", mode="dense", task="facts"):
        (text,) = index.encoder.encode_documents([hit.text], titles=[hit.title])
        assert hit.scores.dense == pytest.approx(float(query @ text), abs=2e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "poems"}, "no task 'poems': it knows facts, likeness"),
        ({"task": "likeness"}, "prompts queries and documents alike"),
        ({"task": "facts", "instruction": "Find it."}, "give one of the two"),
    ],
)
def test_a_task_that_cannot_be_is_a_sentence(index: Index, options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        index.search("where is the key?", mode="dense", **options)  # type: ignore[arg-type]


def test_the_command_says_what_the_encoder_was_told(index: Index) -> None:
    store = str(index.store)
    done = CliRunner().invoke(main, ["query", "where is the key?", "--task", "facts", "--json", "--store", store])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["instruction"] == "Find what proves the claim."

"""`ragindex bench storage` on a small store."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from index_kit import SMALL, corpus
from index_kit import write as write_files

from ragindex import Index
from ragindex.cli import main
from ragindex.errors import EncoderError, UsageError
from ragindex.measure import storage
from ragindex.store.schemes import SCHEMES

NAMES = tuple(SCHEMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_encoder_dir):
    home = tmp_path_factory.mktemp("bench")
    write_files(home, corpus(80))
    with Index.open(home / ".ragindex", encoder=str(tiny_encoder_dir), settings=SMALL) as index:
        index.add(home)
    return home


@pytest.fixture
def here(folder, tmp_path, monkeypatch):
    """The store is found, but pictures fall elsewhere."""
    for name in [name for name in os.environ if name.startswith("RAGINDEX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAGINDEX_STORE", str(folder / ".ragindex"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(main, ["bench", "storage", *arguments])


def contents(folder):
    return {file: file.read_bytes() for file in (folder / ".ragindex").rglob("*") if file.is_file()}


def test_every_scheme_is_measured_and_nothing_changes(here, folder):
    before = contents(folder)
    done = run("--json", "--queries", "12")
    assert done.exit_code == 0, done.output
    value = json.loads(done.stdout)
    assert [row["scheme"] for row in value["schemes"]] == list(NAMES)
    assert (value["vectors"], value["queries"], value["queries_from"], value["chosen"]) == (80, 12, "texts", "flat")
    for row in value["schemes"]:
        assert 0.96 < row["recall"] <= 1
        assert 0.96 < row["ndcg"] <= 1
        assert row["memory_bytes"] > 0 < row["latency_ms"]
        assert (row["disk_bytes"] > 0) == SCHEMES[row["scheme"]].rescored
    by_name = {row["scheme"]: row for row in value["schemes"]}
    assert by_name["flat"]["recall"] == 1
    assert by_name["flat"]["ndcg"] > 0.999  # scores that are equal when rounded may change places
    assert by_name["ivf-sq8"]["memory_bytes"] < by_name["ivf-fp16"]["memory_bytes"] < by_name["flat"]["memory_bytes"]
    assert value["picture"] == "storage.png"
    assert (here / "storage.png").read_bytes().startswith(b"\x89PNG")
    assert contents(folder) == before


def test_a_table_of_those_that_were_named(here):
    done = run("--schemes", "flat, binary", "--queries", "5", "--output", "deep/down")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("80 vectors of 24 values; 5 queries: passages of the chunks")
    assert [line.split()[0] for line in lines[3:5]] == ["flat", "binary"]
    assert lines[3].split()[1] == "*"
    assert len({len(line) for line in lines[2:5]}) == 1
    assert (here / "deep" / "down" / "storage.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--schemes", "lsh"), "no scheme 'lsh'; choose among flat, ivf-fp16"),
        (("--schemes", "auto"), "no scheme 'auto'"),
        (("--schemes", ","), "names none"),
        (("--queries", "0"), "--queries"),
        (("--collection", "other"), "no collection 'other'"),
    ],
)
def test_what_cannot_be_measured(here, arguments, said):
    done = run(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (here / "storage.png").exists()


def test_a_picture_that_cannot_be_written_is_told_of_before_the_work(here, monkeypatch):
    monkeypatch.setattr(storage, "measure_storage", None)
    (here / "file").write_text("")
    done = run("--schemes", "flat", "--queries", "3", "--output", "file/below")
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr


def test_without_matplotlib_there_is_the_table_alone(here, monkeypatch):
    monkeypatch.setattr(importlib_util := sys.modules["importlib.util"], "find_spec", lambda name: None)
    assert importlib_util is not None
    done = run("--schemes", "flat", "--queries", "3")
    assert done.exit_code == 0
    assert "pip install 'ragindex[train]'" in done.stderr
    assert "recall@10" in done.stdout
    assert not (here / "storage.png").exists()


def test_a_store_whose_encoder_is_gone_is_asked_with_vectors(folder, monkeypatch):
    with Index.open(folder / ".ragindex", create=False, settings=SMALL) as index:

        def gone(self):
            raise EncoderError("gone")

        monkeypatch.setattr(Index, "encoder", property(gone))
        report = storage.measure_storage(index, schemes=["rabitq"], queries=300)
    assert (report.queries_from, report.queries) == ("vectors", 300)
    assert report.schemes[0].recall > 0.98


def test_too_few_vectors(tmp_path, tiny_encoder_dir):
    write_files(tmp_path, corpus(3))
    with Index.open(tmp_path / ".ragindex", encoder=str(tiny_encoder_dir), settings=SMALL) as index:
        with pytest.raises(UsageError, match="at least to compare"):
            storage.measure_storage(index)
        index.add(tmp_path)
        with pytest.raises(UsageError, match="There are 3 vectors; it takes 20 at least"):
            storage.measure_storage(index)


def test_the_order_counts_in_ndcg():
    exact = [np.arange(10)]
    assert storage._ndcg(exact, exact) == 1.0
    assert storage._ndcg([np.arange(10)[::-1]], exact) < 0.95
    assert 0 < storage._ndcg([np.array([9])], exact) < storage._ndcg([np.array([0])], exact) < 1
    assert storage._ndcg([np.arange(20, 30)], exact) == 0

"""`index --reembed`, `encoder rollback`, and what `status` and `compact` tell of encoders."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from index_kit import corpus, write
from tiny import tiny_encoder

from ragindex.cli import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable, value in {"RAGINDEX_CHUNK_TOKENS": "64", "RAGINDEX_OVERLAP": "8"}.items():
        monkeypatch.setenv(variable, value)
    write(tmp_path / "docs", corpus(4))
    tiny_encoder(tmp_path / "old", layers=0, seed=1)
    tiny_encoder(tmp_path / "new", layers=0, seed=2)
    monkeypatch.chdir(tmp_path)
    assert run("index", "docs", "--encoder", "old").exit_code == 0
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"COLUMNS": "200"})


def run_json(*arguments: str) -> dict:
    result = run(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_reembed_then_rollback_and_again(here: Path) -> None:
    result = run("index", "docs", "--encoder", "new", "--reembed")
    assert result.exit_code == 0
    assert f"now uses the encoder {here / 'new'} (" in result.stderr
    assert "4 chunks were embedded anew" in result.stderr
    assert "`ragindex encoder rollback` goes back to it" in result.stderr
    answer = run_json("encoder", "rollback")
    assert answer == {
        "encoder": str(here / "old"),
        "fingerprint": run_json("status")["encoder"]["fingerprint"],
        "previous": str(here / "new"),
        "previous_fingerprint": run_json("status")["previous_encoder"]["fingerprint"],
        "embedded_chunks": 0,
        "seconds": answer["seconds"],
    }
    told = run("encoder", "rollback").stdout
    assert told.startswith(f"The store now uses the encoder {here / 'new'} (")
    assert "); nothing had to be embedded.\n" in told
    assert f"The one before is {here / 'old'} (" in told


def test_status_shows_both_encoders_and_why(here: Path) -> None:
    assert "previous encoder" not in run("status").stdout
    run("index", "docs", "--encoder", "new", "--reembed")
    told = "".join(run("status").stdout.split())  # long lines are broken anywhere
    assert re.search(rf"encoder{here}/new\(24dimensions,\w{{8}}\),activated[\w:-]+Z:ragindexindex--reembed", told)
    assert re.search(rf"previousencoder{here}/old\(24dimensions,\w{{8}}\),activated[\w:-]+Z:firstencoder", told)
    assert len(run_json("status")["activations"]) == 2


def test_rollback_without_a_previous_encoder_is_one_line(here: Path) -> None:
    result = run("encoder", "rollback")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "no previous encoder" in result.stderr


def test_rollback_without_a_store_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("encoder", "rollback")
    assert result.exit_code == 2
    assert result.stderr.startswith("ragindex: No store found here or above")


def test_compact_says_what_it_forgets(here: Path) -> None:
    assert "There was no previous encoder to forget." in run("compact", "--forget-previous").stdout
    run("index", "docs", "--encoder", "new", "--reembed")
    assert run_json("compact")["forgotten"] is None
    assert f"The encoder {here / 'old'} was forgotten" in run("compact", "--forget-previous").stdout
    assert run("encoder", "rollback").exit_code == 2

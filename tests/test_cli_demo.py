"""The demo, on corpora of one file each, and its questions against the corpora that travel with the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ragindex.cli import demo, main
from ragindex.resources import resource


@pytest.fixture
def small(tmp_path: Path, tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in sorted({pick.corpus for pick in demo._PICKS}):
        (tmp_path / "samples" / name / "corpus").mkdir(parents=True)
        (tmp_path / "samples" / name / "corpus" / "page.md").write_text(f"# {name}\n\nThe kettle of the {name}.\n")
        queries = [{"_id": pick.query, "text": f"kettle {pick.query}"} for pick in demo._PICKS if pick.corpus == name]
        text = "".join(json.dumps(query) + "\n" for query in queries)
        (tmp_path / "samples" / name / "queries.jsonl").write_text(text)
    monkeypatch.setattr(demo, "resource", lambda name: tmp_path / "samples")
    monkeypatch.setenv("RAGINDEX_ENCODER", str(tiny_encoder_dir))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_demo_answers_with_citations_and_leaves_nothing(small: Path) -> None:
    result = CliRunner().invoke(main, ["demo"])
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert len(lines) <= 60
    assert all(len(line) <= 100 for line in lines)
    assert sum(line.startswith('$ ragindex query "kettle q') for line in lines) == len(demo._PICKS)
    assert sum("page.md:" in line for line in lines) == len(demo._PICKS)
    assert "3 files, 3 passages" in result.stdout
    assert sorted(entry.name for entry in small.iterdir()) == ["samples"]


def test_the_demo_can_be_kept(small: Path) -> None:
    result = CliRunner().invoke(main, ["demo", "--keep", "kept"])
    assert result.exit_code == 0
    assert "kept/.ragindex" in result.stdout
    found = CliRunner().invoke(main, ["list", "--store", "kept/.ragindex", "--json"])
    assert [row["path"] for row in json.loads(found.stdout)] == [
        f"{name}/page.md" for name in ("codebase", "handbook", "science")
    ]
    again = CliRunner().invoke(main, ["demo", "--keep", "kept"])
    assert again.exit_code == 2
    assert "not an empty folder" in again.stderr


@pytest.mark.parametrize("pick", demo._PICKS)
def test_its_questions_are_in_the_samples(pick: demo._Pick) -> None:
    assert (resource("sample_corpora") / pick.corpus / "corpus").is_dir()
    assert demo._question(pick)

"""How a command finds its store."""

from __future__ import annotations

from pathlib import Path

import pytest

from ragindex.cli.discovery import existing_store, find_store
from ragindex.errors import UsageError


def make_store(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "catalog.sqlite").touch()
    return folder


def test_the_nearest_store_upward_is_found(tmp_path: Path) -> None:
    outer = make_store(tmp_path / ".ragindex")
    inner = make_store(tmp_path / "a" / "b" / ".ragindex")
    deep = tmp_path / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    assert find_store(None, {}, deep) == inner
    assert find_store(None, {}, tmp_path / "a") == outer
    assert existing_store(None, {}, tmp_path) == outer


def test_a_file_of_that_name_is_no_store(tmp_path: Path) -> None:
    outer = make_store(tmp_path / ".ragindex")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".ragindex").touch()
    assert find_store(None, {}, tmp_path / "a") == outer


def test_the_flag_goes_before_the_environment_and_that_before_the_search(tmp_path: Path) -> None:
    make_store(tmp_path / ".ragindex")
    environment = {"RAGINDEX_STORE": "from-environment"}
    assert find_store(Path("from-flag"), environment, tmp_path) == tmp_path / "from-flag"
    assert find_store(None, environment, tmp_path) == tmp_path / "from-environment"
    assert find_store(None, {"RAGINDEX_STORE": ""}, tmp_path) == tmp_path / ".ragindex"
    assert find_store(Path("/absolute"), {}, tmp_path) == Path("/absolute")
    assert find_store(Path("~/store"), {}, tmp_path) == Path.home() / "store"


def test_no_store_says_how_to_make_one(tmp_path: Path) -> None:
    folder = tmp_path / "nothing"
    folder.mkdir()
    if find_store(None, {}, folder) is None:  # unless somebody keeps a store above the temporary folder
        with pytest.raises(UsageError, match="No store found here or above; make one with `ragindex index PATH`"):
            existing_store(None, {}, folder)
    with pytest.raises(UsageError, match=r"There is no store in .*missing; make one with `ragindex index PATH --store"):
        existing_store(Path("missing"), {}, folder)


def test_the_folder_around_a_store_is_a_likely_mistake(tmp_path: Path) -> None:
    make_store(tmp_path / "docs" / ".ragindex")
    with pytest.raises(UsageError, match=r"use `--store .*docs/\.ragindex`"):
        existing_store(Path("docs"), {}, tmp_path)

"""A store says the same however it came about, and keeps what it was told."""

from __future__ import annotations

from pathlib import Path

import pytest
from index_kit import SMALL, answers, corpus, open_index, paths, write

from ragindex import Encoder, Index, Settings
from ragindex.config import Chunking
from ragindex.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


def lexical(index: Index) -> list[list[tuple[str, float]]]:
    return [
        [(hit.path, round(hit.score, 4)) for hit in index.search(query, mode="lexical")] for query in ("kettle", "note")
    ]


def test_scores_do_not_depend_on_what_was_deleted_before(folder: Path, tiny_encoder_dir: Path, tmp_path: Path) -> None:
    write(folder, corpus(12))
    with open_index(folder, tiny_encoder_dir) as index:
        index.add(folder)
        write(folder, {f"doc{number:03}.txt": "A kettle, once more.\n" for number in range(5)}, age=30)
        index.add(folder)
        write(folder, corpus(5), age=15)
        index.add(folder)
        (folder / "doc011.txt").unlink()
        index.add(folder)
        grown = (lexical(index), answers(index))
    fresh = tmp_path / "fresh" / "notes"
    write(fresh, corpus(11))
    with open_index(fresh, tiny_encoder_dir) as index:
        index.add(fresh)
        assert (lexical(index), answers(index)) == grown


def test_a_named_file_stays_although_the_walk_would_skip_it(folder: Path, tiny_encoder_dir: Path) -> None:
    write(folder, {**corpus(3), ".gitignore": "secret.txt\n", "secret.txt": "The kettle is hidden.\n"})
    with open_index(folder, tiny_encoder_dir) as index:
        index.add(folder)
        assert "secret.txt" not in paths(index.search("hidden kettle", mode="lexical"))
        index.add(folder / "secret.txt")
        assert index.add(folder).deleted == 0
        assert "secret.txt" in paths(index.search("hidden kettle", mode="lexical"))
        (folder / "secret.txt").unlink()
        assert index.add(folder).deleted == 1


def test_chunking_is_kept_until_it_is_said_otherwise(folder: Path, tiny_encoder_dir: Path) -> None:
    write(folder, corpus(3))
    with open_index(folder, tiny_encoder_dir, settings=SMALL) as index:
        index.add(folder)
    for settings, wanted in (
        (Settings(), Chunking(64, 8)),
        (Settings(overlap=4), Chunking(64, 4)),
        (Settings(chunk_tokens=256, overlap=32), Chunking(256, 32)),
        (Settings(), Chunking(256, 32)),
    ):
        with open_index(folder, tiny_encoder_dir, settings=settings) as index:
            assert index.chunking == wanted
            index.add(folder)


def test_a_small_chunk_gets_a_small_overlap() -> None:
    assert Settings(chunk_tokens=40).chunking() == Chunking(40, 5)
    with pytest.raises(UsageError, match="less than half"):
        Settings(chunk_tokens=40, overlap=30)


def test_seconds_cover_the_whole_run(folder: Path, tiny_encoder_dir: Path) -> None:
    write(folder, corpus(3))
    with open_index(folder, tiny_encoder_dir) as index:
        index.add(folder)
        assert index.add(folder).seconds > 0


def test_a_store_begun_with_cut_vectors_is_opened_with_cut_vectors(folder: Path, tiny_encoder_dir: Path) -> None:
    write(folder, corpus(3))
    with Index.open(folder / ".ragindex", encoder=Encoder.load(tiny_encoder_dir, dimensions=8)) as index:
        index.add(folder)
        before = answers(index)
    with Index.open(folder / ".ragindex") as index:
        assert index.encoder.dimensions == 8
        assert answers(index) == before

"""Collections of one store, opened together: each answers for itself, and they share what was loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from index_kit import answers, corpus, open_index, write
from tiny import tiny_encoder

from ragindex import Index
from ragindex.encoder import Encoder
from ragindex.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with the collections "default" and "other"."""
    folder = tmp_path / "notes"
    write(folder, corpus(4))
    encoder = tiny_encoder(tmp_path / "old", layers=0, seed=1)
    for collection in ("default", "other"):
        with open_index(folder, encoder, collection=collection) as index:
            index.add(folder)
    return folder


def test_the_encoder_is_loaded_once_for_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    load = Encoder.load
    monkeypatch.setattr(Encoder, "load", lambda *given, **options: loaded.append(1) or load(*given, **options))
    with Index.open(folder / ".ragindex") as index, index.sibling("other") as other:
        assert (index.collection, other.collection) == ("default", "other")
        assert other.encoder is index.encoder
        assert answers(other) == answers(index)
        assert loaded == [1]
        index.close()
        assert answers(other)


def test_they_switch_together(folder: Path, tmp_path: Path) -> None:
    new = tiny_encoder(tmp_path / "new", layers=0, seed=2)
    with Index.open(folder / ".ragindex") as index, index.sibling("other") as other:
        before = other.encoder.fingerprint
        index.promote(str(new))
        assert other.encoder is index.encoder
        assert other.encoder.fingerprint != before
        with index.sibling("other") as later:  # which must not ask for the encoder that was left
            assert later.encoder is index.encoder


def test_a_collection_that_is_not_there_is_told(folder: Path) -> None:
    with Index.open(folder / ".ragindex") as index, pytest.raises(UsageError, match="nowhere"):
        index.sibling("nowhere")

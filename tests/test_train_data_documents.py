"""Documents from folders and stores, and how some of them are kept apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from index_kit import open_index, write
from pdf_writer import Line, write_pdf

from ragindex.config import Settings
from ragindex.errors import StoreError, TrainingError, UsageError
from ragindex.train.data import folder_documents, pairs_from_documents, parsed_again, split_documents, store_documents
from ragindex.train.data.keys import folded
from ragindex.types import Document, Failure

PAGE = """\
# Tide gauges

The float gauge at the pier records the height of the sea. A stilling well keeps the waves out of the reading.

## Cleaning the well

Barnacles narrow the inlet until the trace flattens. Divers scrape the pipe twice each summer with a bronze brush.

## How often is the staff levelled?

Levelling from the benchmark is repeated every spring. The result is written into the station log by the surveyor.
"""
CODE = 'def read(port):\n    """Read the level of the sea from a port."""\n    return port.ask("L")\n    # end\n'
HTML = "<title>Lamps</title><h1>Lamps</h1><p>Each lantern burns an electric bulb inside a drum of ground glass.</p>"


def numbered(count: int) -> list[Document]:
    """Documents whose words no other one has."""

    return [Document(f"{n}.txt", f"Keeper {n} rowed to light {n * n}.") for n in range(count)]


def test_a_folder_is_read_as_indexing_would_read_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "docs/page.md": PAGE,
            "lamps.html": HTML,
            "read.py": CODE,
            "empty.pdf": b"no PDF",
            "picture.png": b"\x89PNG",
            ".git/config": "hidden",
            ".ragindexignore": "secret/\n",
            "secret/a.md": "left out",
        },
    )
    failures: list[Failure] = []
    documents = {each.path: each for each in folder_documents(tmp_path, failed=failures.append)}
    assert sorted(documents) == ["docs/page.md", "lamps.html", "read.py"]
    assert documents["lamps.html"].title == "Lamps"
    assert [failure.path for failure in failures] == ["empty.pdf"]
    assert [each.path for each in folder_documents(tmp_path, include=["*.md"])] == ["docs/page.md"]
    assert [each.path for each in folder_documents(tmp_path / "read.py")] == ["read.py"]


def test_fragile_formats_are_read_in_the_sandbox(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(write_pdf([[Line("The float gauge at the pier records the sea.", 80)]]))
    (document,) = folder_documents(tmp_path)
    assert "float gauge" in document.text


def test_a_folder_without_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere cannot be indexed"):
        list(folder_documents(tmp_path / "nowhere"))
    write(tmp_path, {"picture.png": b"\x89PNG", "empty.pdf": b"no PDF"})
    with pytest.raises(TrainingError, match="holds no file that can be read; training needs documents"):
        list(folder_documents(tmp_path))


def test_a_store_gives_the_pairs_that_its_folder_gives(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    write(tmp_path, {"page.md": PAGE, "lamps.html": HTML, "read.py": CODE})
    with open_index(tmp_path, tiny_encoder_dir, settings=Settings(chunk_tokens=200, overlap=20)) as index:
        index.add(tmp_path)
        index.put([Document("note 7", "A note about the lantern that is no file at all.", title="Note")])
    stored = {each.path: each for each in store_documents(tmp_path / ".ragindex")}
    assert sorted(stored) == ["lamps.html", "note 7", "page.md", "read.py"]
    assert stored["note 7"].title == "Note"
    for document in folder_documents(tmp_path):
        again = stored[document.path]
        assert (again.text, again.title, again.sha256) == (document.text, document.title, document.sha256)
        if document.path != "lamps.html":
            assert again.blocks == document.blocks
    kinds = ["heading-section", "question-answer", "docstring-code", "title-section"]
    from_folder = list(pairs_from_documents(folder_documents(tmp_path), kinds=kinds, seed=1))
    files = [each for each in stored.values() if each.path != "note 7"]
    from_store = list(pairs_from_documents(files, kinds=kinds, seed=1))
    assert {example.source for example in from_store} == set(kinds)
    assert from_store == from_folder


def test_only_text_that_is_the_file_s_own_is_parsed_again() -> None:
    page = Document("page.md", PAGE, title="Tide gauges")
    again = parsed_again(page)
    assert {"Cleaning the well"} < {title for block in again.blocks for title in block.heading}
    assert (again.path, again.title, again.text) == (page.path, page.title, page.text)
    for other in (Document("a.html", PAGE), Document("note 7", PAGE), Document("a.md", "text with a \r\n line end")):
        assert parsed_again(other) is other


def test_a_store_without_documents_is_refused(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    with pytest.raises(StoreError, match="There is no store"):
        list(store_documents(tmp_path / ".ragindex"))
    open_index(tmp_path, tiny_encoder_dir).close()
    with pytest.raises(TrainingError, match=r"holds no documents in 'default'; run `ragindex index PATH` first"):
        list(store_documents(tmp_path / ".ragindex"))
    with pytest.raises(UsageError, match="other"):
        list(store_documents(tmp_path / ".ragindex", collection="other"))


def test_a_split_never_shares_a_text_and_does_not_depend_on_the_others() -> None:
    documents = numbered(400)
    split = split_documents(documents, share=0.2, seed=3)
    assert 50 < len(split.held_out) < 115
    assert len(split.train) + len(split.held_out) == 400
    half = split_documents(documents[::2], share=0.2, seed=3).held_out
    assert half == [each for each in split.held_out if each in documents[::2]]
    assert split_documents(documents, share=0.2, seed=4).held_out != split.held_out
    copies = [Document(f"copy of {each.path}", f"  {each.text.upper()}\n") for each in documents]
    both = split_documents([*documents, *copies], share=0.2, seed=3)
    held_out = {folded(each.text) for each in both.held_out}
    assert not held_out & {folded(each.text) for each in both.train}
    assert len(both.held_out) == 2 * len(split.held_out)
    assert split_documents(documents, share=0.0).held_out == []
    assert split_documents(documents, share=1.0).train == []
    with pytest.raises(UsageError, match="must be from 0 to 1"):
        split_documents(documents, share=2)

"""Documents come back out of the catalogue with their text and most of their structure."""

from __future__ import annotations

from pathlib import Path

import pytest
from index_kit import open_index, prose, write

from ragindex import Index
from ragindex.types import Document

HANDBOOK = f"""---
author: Ada
---
# Handbook

Welcome to the company.

## Keys

{prose(4)}
Keep the previous one.

## Rules

{prose(1)}
### Short

Be kind.

Backups
-------

{prose(12)}"""

CODE = '''"""Reads settings."""

import json


def parse(path):
    """Read the file and check every field.

    Raise a clear error.
    """
    return json.loads(path.read_text())


class Store:
    """Keeps things."""

    def put(self, key):
        """Keep one thing under a key."""
        self.things[key] = key
'''


@pytest.fixture
def index(tmp_path: Path, tiny_encoder_dir: Path):
    folder = tmp_path / "home"
    write(folder, {"a/handbook.md": HANDBOOK, "code.py": CODE, "plain.txt": prose(30), "t.csv": "a,b\n1,2\n3,4\n"})
    with open_index(folder, tiny_encoder_dir) as made:
        made.add(folder)
        yield made


def blocks(document: Document, kind: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(document.text[one.start : one.end], one.heading) for one in document.blocks if one.kind == kind]


def recovered(index: Index, path: str) -> Document:
    return next(document for document in index.iter_documents() if document.path == path)


def test_documents_come_by_path_with_text_title_and_metadata(index):
    found = list(index.iter_documents())
    assert [document.path for document in found] == ["a/handbook.md", "code.py", "plain.txt", "t.csv"]
    listed = {row["path"]: row for row in index.documents()}
    for document in found:
        assert document.title == listed[document.path]["title"]
        assert document.sha256 == listed[document.path]["sha256"]
        assert document.metadata["mime"] == listed[document.path]["mime"]
    assert found[0].text == HANDBOOK
    assert found[0].metadata["author"] == "Ada"
    assert found[1].text == CODE


def test_blocks_are_in_order_and_hold_everything_that_was_indexed(index):
    for document in index.iter_documents():
        position = 0
        for block in document.blocks:
            assert position <= block.start < block.end <= len(document.text)
            position = block.end
        kept = "".join("".join(document.text[one.start : one.end].split()) for one in document.blocks)
        indexed = "".join(document.text.split())
        assert kept == indexed or (document.path == "a/handbook.md" and indexed.endswith(kept))


def test_paragraphs_of_prose_have_their_headings(index):
    document = recovered(index, "a/handbook.md")
    assert [title for title, _ in blocks(document, "heading")] == [
        "# Handbook",
        "## Keys",
        "## Rules",
        "Backups\n-------",
    ]
    assert {heading for _, heading in blocks(document, "heading")[1:]} == {("Handbook",)}
    assert (prose(4).strip(), ("Handbook", "Keys")) in blocks(document, "prose")
    assert ("Keep the previous one.", ("Handbook", "Keys")) in blocks(document, "prose")
    # Its section was joined with the one above it, so its chunk has the heading that they share.
    assert ("### Short", ("Handbook", "Rules")) in blocks(document, "prose")
    long = [text for text, heading in blocks(document, "prose") if heading == ("Handbook", "Backups")]
    assert long == [prose(12).strip()]  # one paragraph, though it was cut into several chunks that overlap


def test_definitions_stay_whole(index):
    document = recovered(index, "code.py")
    assert {block.kind for block in document.blocks} == {"code"}
    headings = [heading for _, heading in blocks(document, "code")]
    assert ("parse",) in headings
    parse = next(text for text, heading in blocks(document, "code") if heading == ("parse",))
    assert parse.startswith("def parse(path):")
    assert parse.endswith("return json.loads(path.read_text())")


def test_a_table_is_one_block(index):
    assert blocks(recovered(index, "t.csv"), "table") != []


def test_documents_that_are_no_files_and_ones_removed_meanwhile(index):
    index.put([Document("https://example.org/page", "alpha\n\nbeta", title="Greek", metadata={"year": 1999})])
    page = recovered(index, "https://example.org/page")
    assert (page.text, page.title, page.metadata["year"]) == ("alpha\n\nbeta", "Greek", 1999)
    assert [text for text, _ in blocks(page, "prose")] == ["alpha", "beta"]
    documents = index.iter_documents()
    next(documents)
    index.remove("code.py", "https://example.org/page")
    assert [document.path for document in documents] == ["plain.txt", "t.csv"]

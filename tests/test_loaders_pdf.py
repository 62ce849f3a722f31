"""PDF files: pages, paragraphs, headings, titles, and the ways in which a PDF cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
from pdf_writer import Line, write_pdf

from ragindex.config import Limits
from ragindex.errors import LoadError
from ragindex.loaders import load
from ragindex.types import Document

BODY = [
    Line("A Big Title", 72, 20),
    Line("The first para-", 110),
    Line("graph of the thing goes", 124),
    Line("on (with brackets).", 138),
    Line("Second paragraph.", 174),
]


def read(folder: Path, content: bytes, limits: Limits | None = None) -> Document:
    (folder / "a.pdf").write_bytes(content)
    return load(folder / "a.pdf", name="a.pdf", limits=limits or Limits())


def test_pages_paragraphs_and_headings(tmp_path: Path) -> None:
    document = read(tmp_path, write_pdf([BODY, [], [Line("On page three.", 80)]], author="Ann"))
    assert [(b.kind, b.heading, document.text[b.start : b.end]) for b in document.blocks] == [
        ("heading", (), "A Big Title"),
        ("prose", ("A Big Title",), "The first paragraph of the thing goes\non (with brackets)."),
        ("prose", ("A Big Title",), "Second paragraph."),
        ("prose", ("A Big Title",), "On page three."),
    ]
    assert len(document.page_starts) == 3
    assert document.page_at(document.text.index("Second")) == 1
    assert document.page_at(document.text.index("On page")) == 3
    assert document.title == "A Big Title"
    assert (document.metadata["pages"], document.metadata["pages_without_text"]) == (3, 1)
    assert document.metadata["author"] == "Ann"


@pytest.mark.parametrize(
    ("declared", "title"),
    [("Real Title", "Real Title"), ("Microsoft Word - report.docx", "A Big Title"), ("untitled", "A Big Title")],
)
def test_a_declared_title_wins_unless_it_is_junk(tmp_path: Path, declared: str, title: str) -> None:
    assert read(tmp_path, write_pdf([BODY], title=declared)).title == title


def test_two_columns_are_not_one_paragraph(tmp_path: Path) -> None:
    lines = [Line("Left one", 100), Line("left two", 114), Line("Right one", 100), Line("right two", 114)]
    document = read(tmp_path, write_pdf([lines]))
    assert len(document.blocks) >= 2


def test_running_headers_and_footers_are_left_out(tmp_path: Path) -> None:
    words = ["alpha", "beta", "gamma", "delta"]
    pages = [
        [
            Line("Annual report", 40, 9),
            Line(f"About {word} and more", 100),
            Line("it goes on.", 114),
            Line(f"page {number} of 4", 800, 9),
        ]
        for number, word in enumerate(words, start=1)
    ]
    document = read(tmp_path, write_pdf(pages))
    assert "Annual report" not in document.text
    assert "page 2" not in document.text
    assert [document.page_at(document.text.index(word)) for word in words] == [1, 2, 3, 4]
    assert "Annual report" in read(tmp_path, write_pdf(pages[:2])).text, "two pages prove nothing"


def test_no_text_layer(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"^no text layer on any of 2 pages$"):
        read(tmp_path, write_pdf([[], []]))


def test_password(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"^password-protected$"):
        read(tmp_path, write_pdf([BODY], encrypt=True))


@pytest.mark.parametrize("kept", [0.5, 0.1])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: float) -> None:
    whole = write_pdf([BODY])
    with pytest.raises(LoadError, match=r"not a PDF file, or a truncated one|no text layer"):
        read(tmp_path, whole[: int(len(whole) * kept)])


def test_a_wrong_index_is_rebuilt(tmp_path: Path) -> None:
    head, tail = write_pdf([BODY]).split(b"startxref\n")
    document = read(tmp_path, head + b"startxref\n1" + tail)
    assert "Second paragraph." in document.text


def test_garbage(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="not a PDF"):
        read(tmp_path, b"garbage, and not short either" * 10)


def test_too_many_pages(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"^3 pages; limit 2 \(limits.pages\)$"):
        read(tmp_path, write_pdf([BODY] * 3), Limits(pages=2))

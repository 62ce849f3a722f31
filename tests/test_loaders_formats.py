"""HTML, tables, notebooks, Office files, e-books and e-mail."""

from __future__ import annotations

import json
import zipfile
from datetime import datetime
from pathlib import Path

import docx
import openpyxl
import pptx
import pytest
from docx.oxml import OxmlElement

from ragindex.config import Limits
from ragindex.errors import LoadError
from ragindex.loaders import load
from ragindex.types import Document

PAGE = """<!DOCTYPE html>
<html><head><title>My
 page</title><style>p { x: y }</style><meta name="author" content="Ann"></head>
<body><nav>menu</nav>
<h1>Top</h1>
<p>Caf&eacute; &amp; <b>bold</b>
text<br>next</p>
<p hidden>no</p><p style="display: none">no</p><p aria-hidden="true">no</p><script>no()</script><template>no</template>
<h2>Sub <em>part</em></h2>
<ul><li>one<ul><li>inner</li></ul></li><li><p>two</p></li></ul>
<table><tr><th>a</th><th>b</th></tr>
<tr><td>1</td><td><p>2</p></td></tr></table>
<pre>
 x = 1
   y
</pre>
loose <img alt="a cat" src="x.png"> <a href="z">link</a>
<h2>Last</h2><p>end</p></body></html>
"""


def read(folder: Path, name: str, content: str | bytes) -> Document:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load(path, name=name, limits=Limits())


def outline(document: Document) -> list[tuple[str, tuple[str, ...], str]]:
    return [(b.kind, b.heading, document.text[b.start : b.end]) for b in document.blocks]


def test_html(tmp_path: Path) -> None:
    document = read(tmp_path, "a.html", PAGE)
    assert (document.title, document.metadata["author"]) == ("My page", "Ann")
    assert outline(document) == [
        ("heading", (), "Top"),
        ("prose", ("Top",), "Café & bold text\nnext"),
        ("heading", ("Top",), "Sub part"),
        ("list", ("Top", "Sub part"), "- one\n- inner\n- two"),
        ("table", ("Top", "Sub part"), "a | b\n1 | 2"),
        ("code", ("Top", "Sub part"), " x = 1\n   y"),
        ("prose", ("Top", "Sub part"), "loose a cat link"),
        ("heading", ("Top",), "Last"),
        ("prose", ("Top", "Last"), "end"),
    ]


def test_html_lines_are_those_of_the_file(tmp_path: Path) -> None:
    document = read(tmp_path, "a.html", PAGE)
    lines = PAGE.split("\n")
    for words in ("Top", "Sub", "- inner", "1 | 2", "x = 1", "loose", "Last"):
        cited = document.line_at(document.text.index(words))
        assert words.strip("- ").split(" ")[0] in lines[cited - 1], words


@pytest.mark.parametrize("charset", ["iso-8859-2", "shift_jis"])
def test_html_charset_is_obeyed(tmp_path: Path, charset: str) -> None:
    word = "Łódź" if charset == "iso-8859-2" else "日本語"
    page = f'<html><head><meta charset="{charset}"></head><body><p>{word}</p></body></html>'
    document = read(tmp_path, "a.html", page.encode(charset))
    assert document.text == word


def test_html_nests_deeper_than_python_recurses(tmp_path: Path) -> None:
    document = read(tmp_path, "a.html", "<div>" * 20_000 + "deep" + "<b>" * 5_000)
    assert document.text == "deep"


def test_csv(tmp_path: Path) -> None:
    text = 'name;note\nBob;"multi\nline"\n\nAl;"x ""q"""\n'
    document = read(tmp_path, "a.csv", text)
    assert document.text == text
    assert [part for _, _, part in outline(document)] == ["name;note", 'Bob;"multi\nline"', 'Al;"x ""q"""']
    assert {kind for kind, _, _ in outline(document)} == {"table"}
    assert (document.metadata["columns"], document.metadata["rows"]) == ("name, note", 2)


def test_a_stray_quotation_mark_does_not_swallow_a_csv(tmp_path: Path) -> None:
    document = read(tmp_path, "a.csv", 'h,size\n5" pipe,1\n' + "x,y\n" * 300)
    assert len(document.blocks) == 302


def test_jsonl(tmp_path: Path) -> None:
    text = '{"title":"T","body":"a\\nb","n":3,"tags":["x","y"],"meta":{"k":"v"},"none":null}\n\n{bad\n"str"\n'
    document = read(tmp_path, "a.jsonl", text)
    assert [part for _, _, part in outline(document)] == [
        "title: T\nbody: a\nb\nn: 3\ntags: x, y\nmeta.k: v",
        "{bad",
        "str",
    ]
    assert [document.line_at(block.start) for block in document.blocks] == [1, 3, 4]
    assert len(document.source_lines) == document.text.count("\n") + 1
    assert document.metadata["unreadable_lines"] == 1


def test_notebook(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Héading\n", "text"]},
        {
            "cell_type": "code",
            "source": 'x = "1"\nx',
            "outputs": [{"data": {"text/plain": ["'1'"]}}, {"text": "\x1b[31mred\x1b[0m"}],
        },
        {"cell_type": "markdown", "source": "## Sub\nmore"},
        {"cell_type": "code", "source": [], "outputs": [{"text": ["row\n"] * 2000}]},
    ]
    raw = json.dumps({"cells": cells, "metadata": {"kernelspec": {"language": "python"}}, "nbformat": 4}, indent=1)
    document = read(tmp_path, "a.ipynb", raw)
    assert (document.title, document.metadata["kernel_language"]) == ("Héading", "python")
    assert outline(document)[:6] == [
        ("heading", (), "# Héading"),
        ("prose", ("Héading",), "text"),
        ("code", ("Héading",), 'x = "1"\nx'),
        ("code", ("Héading",), "'1'"),
        ("code", ("Héading",), "red"),
        ("heading", ("Héading",), "## Sub"),
    ]
    assert len(document.text) < 3000
    assert "text" in raw.split("\n")[document.line_at(document.text.index("text")) - 1]
    assert "Sub" in raw.split("\n")[document.line_at(document.text.index("## Sub")) - 1]


def test_a_broken_notebook_says_so(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="not a notebook"):
        read(tmp_path, "a.ipynb", '{"cells": [')


def test_docx(tmp_path: Path) -> None:
    document = docx.Document()
    document.core_properties.author = "Ann"
    document.add_heading("The Title", 0)
    document.add_heading("First", 1)
    document.add_paragraph("para one")
    document.add_paragraph("it1", style="List Bullet")
    document.add_paragraph("it2", style="List Number")
    table = document.add_table(2, 2)
    table.cell(0, 0).text = "a"
    table.cell(1, 1).text = "b\nc"
    document.add_heading("Second", 2)
    # A content control: the library's own list of paragraphs leaves its text out.
    control, content = OxmlElement("w:sdt"), OxmlElement("w:sdtContent")
    content.append(document.add_paragraph("controlled")._p)
    control.append(content)
    document.element.body.insert(len(document.element.body) - 1, control)
    document.save(str(tmp_path / "a.docx"))
    loaded = load(tmp_path / "a.docx", name="a.docx", limits=Limits())
    assert (loaded.title, loaded.metadata["author"]) == ("The Title", "Ann")
    assert outline(loaded) == [
        ("heading", (), "The Title"),
        ("heading", (), "First"),
        ("prose", ("First",), "para one"),
        ("list", ("First",), "- it1\n- it2"),
        ("table", ("First",), "a | \n | b c"),
        ("heading", ("First",), "Second"),
        ("prose", ("First", "Second"), "controlled"),
    ]


def test_pptx(tmp_path: Path) -> None:
    deck = pptx.Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "Plan"
    slide.placeholders[1].text = "one\ntwo"
    slide.notes_slide.notes_text_frame.text = "say this"
    deck.slides.add_slide(deck.slide_layouts[6])
    last = deck.slides.add_slide(deck.slide_layouts[5])
    last.shapes.title.text = "Numbers"
    table = last.shapes.add_table(1, 2, 0, 0, 100, 100).table
    table.cell(0, 0).text, table.cell(0, 1).text = "x", "y"
    deck.save(str(tmp_path / "a.pptx"))
    loaded = load(tmp_path / "a.pptx", name="a.pptx", limits=Limits())
    assert outline(loaded) == [
        ("heading", (), "Plan"),
        ("prose", ("Plan",), "one\ntwo"),
        ("prose", ("Plan", "Notes"), "say this"),
        ("heading", (), "Numbers"),
        ("table", ("Numbers",), "x | y"),
    ]
    assert loaded.title == "Plan"
    assert [loaded.page_at(loaded.text.index(word)) for word in ("Plan", "say", "Numbers")] == [1, 1, 3]
    with pytest.raises(LoadError, match=r"3 slides; limit 2 \(limits.pages\)"):
        load(tmp_path / "a.pptx", name="a.pptx", limits=Limits(pages=2))


def test_xlsx(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "People"
    for row in (["Name", "Age", "When"], ["Bob", 3.0, datetime(2020, 1, 2)], [], [None, 1.5, "x\ny"]):
        sheet.append(row)
    book.create_sheet("Bare").append([1, 2])
    book.save(tmp_path / "a.xlsx")
    loaded = load(tmp_path / "a.xlsx", name="a.xlsx", limits=Limits())
    assert outline(loaded) == [
        ("heading", (), "People"),
        ("table", ("People",), "Name | Age | When"),
        ("table", ("People",), "Name: Bob | Age: 3 | When: 2020-01-02"),
        ("table", ("People",), "Age: 1.5 | When: x y"),
        ("heading", (), "Bare"),
        ("table", ("Bare",), "1 | 2"),
    ]
    assert loaded.page_at(loaded.text.index("1 | 2")) == 2


CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="O/c.opf"/></rootfiles></container>'
)
PACKAGE = (
    '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/"><metadata>'
    "<dc:title>Book</dc:title>"
    "<dc:creator>Ann</dc:creator></metadata><manifest>"
    '<item id="b" href="b%20.xhtml" media-type="application/xhtml+xml"/>'
    '<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>'
    '<item id="gone" href="gone.xhtml" media-type="application/xhtml+xml"/>'
    '</manifest><spine><itemref idref="a"/><itemref idref="gone"/><itemref idref="b"/></spine></package>'
)


def write_epub(path: Path, package: str = PACKAGE) -> None:
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("META-INF/container.xml", CONTAINER)
        book.writestr("O/c.opf", package)
        book.writestr("O/b .xhtml", "<html><head><title>C2</title></head><body><p>second</p></body></html>")
        book.writestr(
            "O/a.xhtml", '<?xml version="1.0"?><!DOCTYPE html><html><body><h1>One</h1><p>first</p></body></html>'
        )


def test_epub(tmp_path: Path) -> None:
    write_epub(tmp_path / "a.epub")
    loaded = load(tmp_path / "a.epub", name="a.epub", limits=Limits())
    assert (loaded.title, loaded.metadata["author"], loaded.metadata["chapters"]) == ("Book", "Ann", 2)
    assert outline(loaded) == [("heading", (), "One"), ("prose", ("One",), "first"), ("prose", ("C2",), "second")]


def test_epub_entities_are_refused(tmp_path: Path) -> None:
    write_epub(tmp_path / "a.epub", '<!DOCTYPE p [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><package>&b;</package>')
    with pytest.raises(LoadError, match="entity bomb"):
        load(tmp_path / "a.epub", name="a.epub", limits=Limits())


MAIL = b"""\
From: Ann <a@x.y>
To: b@x.y
Subject: =?utf-8?q?Caf=C3=A9?= plan
Date: Mon, 02 Jan 2023 10:00:00 +0100
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=BB

--BB
Content-Type: multipart/alternative; boundary=CC

--CC
Content-Type: text/html; charset=utf-8

<p>html side</p>
--CC
Content-Type: text/plain; charset=no-such-charset

Hello

Second
--CC--
--BB
Content-Type: application/pdf; name="x.pdf"
Content-Disposition: attachment; filename="x.pdf"

zzz
--BB
Content-Type: message/rfc822

Subject: inner
Content-Type: text/html

<h1>Head</h1><p>inner body</p>
--BB--
"""


def test_eml(tmp_path: Path) -> None:
    document = read(tmp_path, "a.eml", MAIL.replace(b"\n", b"\r\n"))
    assert document.title == "Café plan"
    assert document.metadata["from"] == "Ann <a@x.y>"
    assert document.metadata["date"] == "2023-01-02T09:00:00Z"
    assert document.metadata["attachments"] == "x.pdf"
    assert "html side" not in document.text
    assert outline(document)[1:] == [
        ("prose", (), "Hello"),
        ("prose", (), "Second"),
        ("table", ("inner",), "Subject: inner"),
        ("heading", ("inner",), "Head"),
        ("prose", ("inner", "Head"), "inner body"),
    ]

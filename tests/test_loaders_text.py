"""Plain text, Markdown, reStructuredText, program text: encodings, exact text, blocks and headings."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ragindex.config import Limits
from ragindex.errors import LoadError
from ragindex.loaders import load, mime_type, supported
from ragindex.types import Document

GERMAN = "Die Größe des Gebäudes ist nicht die Länge der Straße, und das wird für die Prüfung gemessen.\n"


def read(folder: Path, name: str, content: str | bytes) -> Document:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load(path, name=name, limits=Limits())


def outline(document: Document) -> list[tuple[str, tuple[str, ...], str]]:
    return [(b.kind, b.heading, document.text[b.start : b.end]) for b in document.blocks]


def test_plain_text_is_kept_and_cut_into_paragraphs(tmp_path: Path) -> None:
    document = read(tmp_path, "a.txt", "one\r\ntwo\r\n\r\n  \t\rthree\n")
    assert document.text == "one\ntwo\n\n  \t\nthree\n"
    assert outline(document) == [("prose", (), "one\ntwo"), ("prose", (), "three")]
    assert document.line_at(document.text.index("three")) == 5


def test_facts_of_the_file(tmp_path: Path) -> None:
    document = read(tmp_path, "a.txt", GERMAN)
    assert document.path == "a.txt"
    assert document.sha256 == hashlib.sha256(GERMAN.encode()).hexdigest()
    assert document.metadata["size"] == len(GERMAN.encode())
    assert document.metadata["mime"] == "text/plain"
    assert document.metadata["language"] == "de"
    assert str(document.metadata["modified"]).endswith("Z")


def test_an_empty_file_is_an_empty_document(tmp_path: Path) -> None:
    for suffix in (".txt", ".md", ".py", ".csv", ".html", ".rst", ".jsonl", ".ipynb", ".eml", ".java", ".json"):
        document = read(tmp_path, f"empty{suffix}", b"")
        assert (document.text, document.blocks) == ("", ()), suffix


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (GERMAN.encode(), "utf-8"),
        (b"\xef\xbb\xbf" + GERMAN.encode(), "utf-8"),
        (b"\xff\xfe" + GERMAN.encode("utf-16-le"), "utf-16-le"),
        (b"\xfe\xff" + GERMAN.encode("utf-16-be"), "utf-16-be"),
        (GERMAN.encode("utf-16-le"), "utf-16-le"),
        (GERMAN.encode("utf-16-be"), "utf-16-be"),
        (b"\xff\xfe\0\0" + GERMAN.encode("utf-32-le"), "utf-32-le"),
        (GERMAN.encode("cp1252"), "cp1252"),
        ("It’s “quoted” – for €5\n".encode("cp1252"), "cp1252"),
    ],
)
def test_encodings(tmp_path: Path, content: bytes, encoding: str) -> None:
    document = read(tmp_path, "a.txt", content)
    assert document.metadata["encoding"] == encoding
    assert document.text in (GERMAN, "It’s “quoted” – for €5\n")


def test_eight_bit_russian_is_detected(tmp_path: Path) -> None:
    text = "Это обычный русский текст, и он не написан латинскими буквами, потому что так не бывает.\n" * 3
    assert read(tmp_path, "a.txt", text.encode("cp1251")).text == text


def test_one_bad_byte_does_not_spoil_a_utf8_file(tmp_path: Path) -> None:
    document = read(tmp_path, "a.log", GERMAN.encode() * 3 + b"\xff\n")
    assert document.metadata["encoding"] == "utf-8"
    assert document.text == GERMAN * 3 + "\ufffd\n"


@pytest.mark.parametrize(
    "content", [bytes(range(256)) * 8, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(50), b"MZ\x90\0\x03\0\0\0"]
)
def test_binary_content_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(LoadError, match=r"^binary content$"):
        read(tmp_path, "a.txt", content)


def test_text_can_always_be_stored(tmp_path: Path) -> None:
    document = read(tmp_path, "a.txt", b"\xff\xfe" + b"a\0\0\xd8b\0" + b"c\0")
    assert document.text == "a\ufffdbc"
    assert "\0" not in read(tmp_path, "b.txt", b"x" * 5000 + b"\0" + b"y" * 5000).text


MARKDOWN = """\
---
title: "The: Guide"
tags: [ops, keys]
draft: false
size: 12
---
Lead paragraph
goes on.

# Rotate *keys* #

```sh
# not a heading
```

Deploying
---------
- one

  still one
- two

| a | b |
|---|---|
| 1 | 2 |
### Deep [link](http://x.y)
    indented? no, a paragraph follows directly

#NoHeading
"""


def test_markdown(tmp_path: Path) -> None:
    document = read(tmp_path, "a.md", MARKDOWN)
    assert document.text == MARKDOWN
    assert document.title == "The: Guide"
    assert document.metadata["tags"] == "ops, keys"
    assert document.metadata["draft"] is False
    # The file's own facts win over a key of the front matter.
    assert document.metadata["size"] == len(MARKDOWN)
    keys = ("Rotate keys",)
    assert [(kind, heading, text.split("\n")[0]) for kind, heading, text in outline(document)] == [
        ("table", (), "---"),
        ("prose", (), "Lead paragraph"),
        ("heading", (), "# Rotate *keys* #"),
        ("code", keys, "```sh"),
        ("heading", keys, "Deploying"),
        ("list", (*keys, "Deploying"), "- one"),
        ("table", (*keys, "Deploying"), "| a | b |"),
        ("heading", (*keys, "Deploying"), "### Deep [link](http://x.y)"),
        ("code", (*keys, "Deploying", "Deep link"), "    indented? no, a paragraph follows directly"),
        ("prose", (*keys, "Deploying", "Deep link"), "#NoHeading"),
    ]


def test_markdown_title_falls_back_to_the_first_h1(tmp_path: Path) -> None:
    assert read(tmp_path, "a.md", "## Small\n\n# Big\n\n# Second\n").title == "Big"
    assert read(tmp_path, "b.md", "Set ext\n=======\ntext\n").title == "Set ext"
    assert read(tmp_path, "c.md", "no heading\n").title == ""


def test_markdown_fences(tmp_path: Path) -> None:
    document = read(tmp_path, "a.md", "````\n```\n# no\n````\n# yes\n~~~\nopen to the end\n\n# no\n")
    assert [block[0] for block in outline(document)] == ["code", "heading", "code"]


def test_markdown_thematic_break_is_no_front_matter(tmp_path: Path) -> None:
    document = read(tmp_path, "a.md", "---\n\nplain words here\n\n---\n\n# T\n")
    assert document.title == "T"
    assert "title" not in document.metadata
    assert [kind for kind, _, _ in outline(document)] == ["prose", "prose", "prose", "heading"]


def test_toml_front_matter(tmp_path: Path) -> None:
    document = read(tmp_path, "a.md", '+++\ntitle = "T"\nweight = 3\n[nested]\nx = 1\n+++\ntext\n')
    assert (document.title, document.metadata["weight"]) == ("T", 3)
    assert "nested" not in document.metadata


RST = """\
=====
Title
=====

Intro::

   code here

Part
----
para

==== ====
a    b
==== ====
1    2
==== ====

.. code-block:: python

   x = 1

Other :ref:`thing <t>`
----------------------
- item
"""


def test_rst(tmp_path: Path) -> None:
    document = read(tmp_path, "a.rst", RST)
    assert (document.text, document.title) == (RST, "Title")
    assert [(kind, heading) for kind, heading, _ in outline(document)] == [
        ("heading", ()),
        ("prose", ("Title",)),
        ("code", ("Title",)),
        ("heading", ("Title",)),
        ("prose", ("Title", "Part")),
        ("table", ("Title", "Part")),
        ("code", ("Title", "Part")),
        ("heading", ("Title",)),
        ("list", ("Title", "Other thing")),
    ]


PYTHON = '''\
"""Module."""
import os

LIMIT = 3

# about f
@deco
def f():
    return "class Fake:"


class A(B):
    """Doc."""

    x = 1

    async def m(self): ...

    class Inner:
        def n(self): ...

END = 1
'''


def test_python(tmp_path: Path) -> None:
    document = read(tmp_path, "a.py", PYTHON)
    assert (document.text, document.title, document.metadata["language"]) == (PYTHON, "", "python")
    assert [(heading, text.split("\n")[0].strip()) for _, heading, text in outline(document)] == [
        ((), '"""Module."""'),
        (("f",), "# about f"),
        (("A",), "class A(B):"),
        (("A", "m"), "async def m(self): ..."),
        (("A", "Inner"), "class Inner:"),
        (("A", "Inner", "n"), "def n(self): ..."),
        ((), "END = 1"),
    ]


def test_python_that_does_not_parse_is_still_cut(tmp_path: Path) -> None:
    document = read(
        tmp_path, "a.py", "print 'two'\n\ndef f(x):\n    print x\n\nclass C:\n    def g(self):\n        exec 'x'\n"
    )
    assert [heading for _, heading, _ in outline(document)] == [(), ("f",), ("C",), ("C", "g")]


JAVASCRIPT = """\
import x from 'y'
export const f = async (a) => {
  g(a)
}

export default class A {
  b = 1
  constructor(x) {
    super(x)
  }
  async run() {
    if (x) {
    }
  }
}
function h() {}
"""
JAVA = """\
package x;
/** Doc. */
public class Foo extends Bar {
    private int x;

    // hi
    public int getX(int a,
                    int b) {
        return call(a);
    }

    void y() throws E {
    }
}
"""
GO = """\
package main

// Foo does.
func (r *T) Foo(a int) error {
	return nil
}

type T struct {
	a int
}
"""
RUST = """\
use a;
#[derive(Debug)]
pub struct S {
    a: u8,
}
impl S {
    pub fn new() -> Self {
        x(1)
    }
}
"""
C = """\
#include <a.h>
static int helper(int x);
/* doc */
static int helper(int x)
{
    return call(x);
}
int main(void) {
    helper(1);
}
"""
RUBY = "module M\n  class C\n    def go(x)\n      run(x)\n    end\n  end\nend\n"
SHELL = "set -e\n# does\nfoo() {\n  ls\n}\nfunction bar {\n  ls\n}\n"
SQL = "CREATE TABLE IF NOT EXISTS foo (\n a int\n);\n\n-- idx\ncreate unique index bar on foo(a);\n"
CODE = {
    "a.js": (JAVASCRIPT, [(), ("f",), ("A",), ("A", "constructor"), ("A", "run"), ("h",)]),
    "A.java": (JAVA, [(), ("Foo",), ("Foo", "getX"), ("Foo", "y")]),
    "a.go": (GO, [(), ("Foo",), ("T",)]),
    "a.rs": (RUST, [(), ("S",), ("S",), ("S", "new")]),
    "a.c": (C, [(), ("helper",), ("main",)]),
    "a.rb": (RUBY, [("M",), ("M", "C"), ("M", "C", "go")]),
    "a.sh": (SHELL, [(), ("foo",), ("bar",)]),
    "a.sql": (SQL, [("foo",), ("bar",)]),
    "a.yaml": ("a: 1\n\nb:\n  c: 2\n", [(), ()]),
}


@pytest.mark.parametrize("name", CODE)
def test_other_languages(tmp_path: Path, name: str) -> None:
    text, headings = CODE[name]
    document = read(tmp_path, name, text)
    assert document.text == text
    assert [heading for _, heading, _ in outline(document)] == headings
    assert {kind for kind, _, _ in outline(document)} == {"code"}


def test_a_comment_stays_with_its_definition(tmp_path: Path) -> None:
    document = read(tmp_path, "a.go", CODE["a.go"][0])
    assert outline(document)[1][2].startswith("// Foo does.\nfunc")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The quick brown fox is at the door and it was not for you to see that this is so.", "en"),
        ("Le chat est sur la table et il ne veut pas que les autres chats soient dans la maison.", "fr"),
        ("El perro que está en la casa es de los vecinos y no se quiere ir por la puerta.", "es"),
        ("これは日本語の文章です。漢字も使います。", "ja"),
        ("这是一个用中文写的简单句子。", "zh"),
        ("Это не то, что он хотел, и так как у него нет времени, он ушёл на работу.", "ru"),
        ("xyzzy 12 34", None),
    ],
)
def test_language(tmp_path: Path, text: str, language: str | None) -> None:
    assert read(tmp_path, "a.txt", text).metadata["language"] == language


def test_names() -> None:
    assert supported(Path("x/Makefile"))
    assert supported(Path("A.PDF"))
    assert not supported(Path("a.exe"))
    assert mime_type(Path("a.md")) == "text/markdown"
    assert mime_type(Path("a.exe")) == "application/octet-stream"

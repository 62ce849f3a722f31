"""Files that attack, lie or break: limits, bombs, crashing parsers, changes during reading, random bytes."""

from __future__ import annotations

import os
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import docx
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pdf_writer import Line, write_pdf

from ragindex.config import Limits
from ragindex.errors import LoadError
from ragindex.loaders import LoaderPool, load, reading, sandbox
from ragindex.loaders.formats import _DOCUMENTS
from ragindex.types import Document

LIMITS = Limits()
SUFFIXES = [suffix for group in _DOCUMENTS for suffix in group.split()] + [
    ".py",
    ".c",
    ".sql",
    ".sh",
    ".rb",
    ".yaml",
    ".ts",
]


def check(document: Document) -> None:
    """What every document promises to those who chunk, store and cite it."""
    text = document.text
    words = [text, document.title, *(word for block in document.blocks for word in block.heading)]
    for word in [*words, *(value for value in document.metadata.values() if isinstance(value, str))]:
        word.encode("utf-8")
    assert "\0" not in text
    assert "\r" not in text
    position = 0
    for block in document.blocks:
        assert position <= block.start < block.end <= len(text)
        assert not text[position : block.start].strip(), "text outside of every block"
        assert text[block.start : block.end].strip()
        position = block.end
    assert not text[position:].strip(), "text after the last block"
    assert list(document.page_starts) == sorted(document.page_starts)
    assert all(0 <= start <= len(text) for start in document.page_starts)
    assert not document.source_lines or len(document.source_lines) == text.count("\n") + 1
    assert list(document.source_lines) == sorted(document.source_lines)


def attempt(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        document = load(path, name=path.name, limits=LIMITS)
    except LoadError as error:
        reason: str = error.reason
    else:
        reason = "none: it is a document"
        check(document)
    assert reason.strip()
    assert "\n" not in reason


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


HEADS = [
    b"",
    b"%PDF-1.4\n",
    b"PK\x03\x04",
    b"{",
    b"[{",
    b"---\n",
    b"<html>",
    b"From: a\n\n",
    b"\xff\xfe",
    b"\xfe\xff\0",
]
WORDS = (
    "# ^- ^===^---^```^~~~^\n^\n\n^  ^\t^a^B1^| b | c |^:--^<p>^</p>^<table>^<tr><td>^<pre>^</ul>^<ul><li>"
    "^<h2>^</h2>^&amp;"
    "^def f():^class A:^    ^{^}^\"^'^:^::^.. code::^,^;^é^日本^<!--^<script>^&#xd800;^\r\n^\r^\0^\ud800^\x0c^\u2028^"
    'x = 1^(^)^[^]^#^*^{"a": "\\ud800"}'
)
MARKUP = st.lists(st.sampled_from(WORDS.split("^")), max_size=60).map(
    lambda parts: "".join(parts).encode("utf-8", "surrogatepass")
)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(head=st.sampled_from(HEADS), tail=st.binary(max_size=300), markup=MARKUP)
def test_anything_gives_a_document_or_a_reason(
    folder: Path, suffix: str, head: bytes, tail: bytes, markup: bytes
) -> None:
    attempt(folder / f"fuzz{suffix}", head + tail)
    attempt(folder / f"fuzz{suffix}", markup)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(markup=MARKUP, suffix=st.sampled_from([".md", ".rst", ".html", ".py", ".ts", ".csv", ".jsonl", ".txt"]))
def test_odd_markup_keeps_every_promise(folder: Path, markup: bytes, suffix: str) -> None:
    attempt(folder / f"markup{suffix}", markup)


def test_damaged_real_files(tmp_path: Path) -> None:
    docx.Document().save(str(tmp_path / "whole.docx"))
    for content, suffix in (
        ((tmp_path / "whole.docx").read_bytes(), ".docx"),
        (write_pdf([[Line("some words", 80)]] * 3), ".pdf"),
    ):
        for step in range(1, 12):
            cut = len(content) * step // 12
            attempt(tmp_path / f"cut{suffix}", content[:cut])
            attempt(tmp_path / f"flip{suffix}", content[:cut] + bytes([content[cut] ^ 0xFF]) + content[cut + 1 :])


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".md", b"#" * 300_000),
        (".md", b"*" * 300_000),
        (".md", b"[" * 300_000),
        (".md", b"a\n" * 100_000),
        (".md", b"> " * 200_000),
        (".rst", b"`" * 300_000),
        (".rst", b"=" * 300_000),
        (".txt", b" " * 1_000_000),
        (".c", b"a " * 300_000),
        (".c", b"a\n" * 100_000),
        (".py", b"(" * 100_000),
        (".py", b"-" * 100_000 + b"1"),
        (".ts", b"const a" + b" " * 300_000),
        (".csv", b'"\n' * 50_001),
        (".jsonl", b"[" * 100_000),
        (".ipynb", b"[" * 100_000),
        (".html", b"<p>a</p>" * 20_000),
        (".html", b"<!--" * 50_000),
        (".html", b"<" * 100_000),
        (".eml", b"Content-Type: multipart/mixed; boundary=a\n\n" + b"--a\n" * 5_000),
    ],
)
def test_hostile_repetition_ends(tmp_path: Path, suffix: str, content: bytes) -> None:
    # Quadratic code needs hours for these; the suite's time limit is the assertion.
    attempt(tmp_path / f"a{suffix}", content)


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    os.truncate(tmp_path / "a.txt", 3 << 20)
    with pytest.raises(LoadError, match=r"^3 MB; limit 2 MB \(limits.file_mb\)$"):
        load(tmp_path / "a.txt", name="a.txt", limits=Limits(file_mb=2))


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".html", ".csv"])
def test_too_much_text(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_text("word\n\n" * 250_000)
    with pytest.raises(LoadError, match=r"limits.text_mb"):
        load(tmp_path / f"a{suffix}", name="a", limits=Limits(text_mb=1))


def test_a_missing_file_a_folder_and_a_fifo(tmp_path: Path) -> None:
    (tmp_path / "dir.md").mkdir()
    os.mkfifo(tmp_path / "pipe.md")
    for name, reason in (
        ("no.md", "no longer exists"),
        ("dir.md", "not a regular file"),
        ("pipe.md", "not a regular file"),
    ):
        with pytest.raises(LoadError, match=reason):
            load(tmp_path / name, name=name, limits=LIMITS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x")
    (tmp_path / "a.md").chmod(0)
    with pytest.raises(LoadError, match="permission denied"):
        load(tmp_path / "a.md", name="a.md", limits=LIMITS)


@pytest.mark.parametrize("changes", [1, 2])
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: int) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    real, calls = os.fstat, []

    def meddling(descriptor: int) -> os.stat_result:
        result = real(descriptor)
        calls.append(descriptor)
        if len(calls) in (1, 3)[:changes]:
            path.write_text("new" * len(calls))
        return result

    monkeypatch.setattr(reading.os, "fstat", meddling)
    if changes == 1:
        assert load(path, name="a.txt", limits=LIMITS).text == "new"
    else:
        with pytest.raises(LoadError, match=r"^changed while it was read$"):
            load(path, name="a.txt", limits=LIMITS)


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("suffix", [".docx", ".xlsx", ".pptx", ".epub"])
def test_zip_bomb(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_zip(path, {"word/document.xml": bytes(20_000_000)})
    with pytest.raises(LoadError, match=r"^archive expands \d{3,4} times; limit 200$"):
        load(path, name="a", limits=LIMITS)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entity_bombs_are_refused(tmp_path: Path, encoding: str) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><a>&c;</a>'
    write_zip(
        tmp_path / "a.docx", {"[Content_Types].xml": b"<a/>", "word/document.xml": (" " * 70 + bomb).encode(encoding)}
    )
    with pytest.raises(LoadError, match="entity bomb"):
        load(tmp_path / "a.docx", name="a", limits=LIMITS)


def test_old_or_encrypted_office_files(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    with pytest.raises(LoadError, match="password-protected, or in the old"):
        load(tmp_path / "a.docx", name="a", limits=LIMITS)


# A worker whose parser does what the file's name says.
MEAN_WORKER = """
import os, sys, time
import ragindex.loaders.pdf as pdf
import ragindex.loaders.worker as worker
from ragindex.loaders.draft import Draft
def parse(source):
    if "hang" in source.name: time.sleep(60)
    if "crash" in source.name: os.kill(os.getpid(), 11)
    if "exit" in source.name: os._exit(7)
    if "eat" in source.name: return Draft("x" * (3 << 30))
    if "talk" in source.name: print("noise", flush=True); os.write(1, b"more noise")
    return Draft(str(os.getpid()))
pdf.parse = parse
worker.main()
"""


@pytest.fixture
def mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoaderPool]:
    limits = Limits(seconds=1.0, memory_mb=300)
    monkeypatch.setattr(LoaderPool, "_command", (sys.executable, "-c", MEAN_WORKER))
    with LoaderPool(limits) as pool:
        for name in ("ok", "hang", "crash", "exit", "eat", "talk"):
            (tmp_path / f"{name}.pdf").write_bytes(b"x")
        yield pool


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hang", "parser ran longer than 1 s"),
        ("crash", "parser crashed (signal 11)"),
        ("exit", "parser crashed (exit status 7)"),
        ("eat", "parser used more than 300 MB"),
    ],
)
def test_a_mean_parser_costs_one_file(mean: LoaderPool, tmp_path: Path, name: str, reason: str) -> None:
    first = mean.load(tmp_path / "ok.pdf", "ok").text
    assert mean.load(tmp_path / "ok.pdf", "ok").text == first, "the worker is kept"
    with pytest.raises(LoadError) as caught:
        mean.load(tmp_path / f"{name}.pdf", name)
    assert caught.value.reason == reason
    assert not psutil.pid_exists(int(first))
    assert mean.load(tmp_path / "ok.pdf", "ok").text != first, "a new worker serves the next file"


def test_a_parser_that_prints_does_not_garble_answers(mean: LoaderPool, tmp_path: Path) -> None:
    assert mean.load(tmp_path / "talk.pdf", "talk").text.isdigit()
    assert mean.load(tmp_path / "ok.pdf", "ok").text.isdigit()


def test_an_interrupt_does_not_mix_up_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (tmp_path / f"{name}.pdf").write_bytes(write_pdf([[Line(f"words of {name}", 80)]]))
    with LoaderPool(LIMITS) as pool:
        pool.load(tmp_path / "a.pdf", "a")

        def interrupted(pipe: object) -> bytes:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(sandbox, "read_frame", interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool.load(tmp_path / "a.pdf", "a")
        assert pool.load(tmp_path / "b.pdf", "b").text == "words of b"


def test_the_pool_gives_what_load_gives(tmp_path: Path) -> None:
    name = os.fsdecode(b"odd \xff\nname.pdf") if sys.platform == "linux" else "odd name.pdf"
    path = tmp_path / name
    path.write_bytes(write_pdf([[Line("Some words ü", 80)], []], title="T"))
    (tmp_path / "a.md").write_text("# T\n\ntext\n")
    (tmp_path / "bad.pdf").write_bytes(b"no")
    with LoaderPool(LIMITS) as pool:
        assert pool.load(path, name) == load(path, name=name, limits=LIMITS)
        assert pool.load(tmp_path / "a.md", "a.md") == load(tmp_path / "a.md", name="a.md", limits=LIMITS)
        with pytest.raises(LoadError, match="not a PDF"):
            pool.load(tmp_path / "bad.pdf", "bad.pdf")
        with pytest.raises(LoadError, match="no longer exists"):
            pool.load(tmp_path / "gone.pdf", "gone.pdf")
    with pytest.raises(LoadError, match="closed"):
        pool.load(path, name)


def test_threads_share_a_pool(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.pdf").write_bytes(write_pdf([[Line(f"words {number}", 80)]]))
    texts: dict[int, str] = {}
    with LoaderPool(LIMITS, workers=2) as pool:

        def work(number: int) -> None:
            texts[number] = pool.load(tmp_path / f"{number}.pdf", "x").text

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert texts == {number: f"words {number}" for number in range(6)}


def test_closing_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(write_pdf([[Line("words", 80)]]))
    before = {child.pid for child in psutil.Process().children()}
    pool = LoaderPool(LIMITS)
    pool.load(tmp_path / "a.pdf", "a")
    assert {child.pid for child in psutil.Process().children()} - before
    pool.close()
    pool.close()
    assert {child.pid for child in psutil.Process().children()} == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_parent_leaves_no_orphan(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(write_pdf([[Line("words", 80)]]))
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom ragindex.config import Limits\n"
        "from ragindex.loaders import LoaderPool\n"
        "pool = LoaderPool(Limits())\npool.load(Path(sys.argv[1]), 'a')\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    parent = psutil.Popen([sys.executable, "-c", script, str(tmp_path / "a.pdf")], stdout=-1, env=environment)
    assert parent.stdout.readline() == b"ready\n"
    [worker] = parent.children()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the worker outlived its parent")


def test_a_lone_surrogate_in_a_heading_is_replaced(tmp_path: Path) -> None:
    cell = '{"cell_type": "markdown", "source": "# a\\ud800b\\ntext"}'
    (tmp_path / "a.ipynb").write_text(f'{{"cells": [{cell}]}}')
    document = load(tmp_path / "a.ipynb", name="a.ipynb", limits=LIMITS)
    check(document)
    assert document.blocks[1].heading == ("a\ufffdb",)


def test_importing_the_loaders_imports_no_parser() -> None:
    heavy = [
        "pypdfium2",
        "docx",
        "pptx",
        "openpyxl",
        "selectolax",
        "lxml",
        "charset_normalizer",
        "email.policy",
        "numpy",
    ]
    script = f"import sys, ragindex.loaders; print([name for name in {heavy!r} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with psutil.Popen([sys.executable, "-c", script], stdout=-1, env=environment) as process:
        assert process.stdout.read() == b"[]\n"

"""What the command line does to text before a terminal sees it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from ragindex.cli import terminal
from ragindex.cli.excerpt import excerpt, mark, query_terms
from ragindex.cli.render import (
    failure_lines,
    field_lines,
    hit_json,
    hit_lines,
    human_bytes,
    human_seconds,
    report_json,
    report_lines,
)
from ragindex.cli.terminal import Terminal, cells, emit_json, neutral, one_line, shorten, shorten_left, wrap
from ragindex.types import Explanation, Failure, Hit, IndexReport, Scores

PLAIN = Terminal(styled=False, width=80)
STYLED = Terminal(styled=True, width=80)


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def make_hit(**changes: object) -> Hit:
    values: dict[str, object] = {
        "rank": 1,
        "score": 0.5,
        "scores": Scores(0.5, 2.0, 0.5),
        "path": "docs/keys.md",
        "title": "Keys",
        "heading": ("Keys", "Rotation"),
        "page": None,
        "line_start": 3,
        "line_end": 9,
        "char_start": 10,
        "char_end": 60,
        "chunk_id": 7,
        "text": "Rotate the key every month.",
        "metadata": {"mime": "text/markdown"},
    }
    return Hit(**(values | changes))  # type: ignore[arg-type]


def test_controls_become_visible_and_cannot_reach_the_terminal() -> None:
    hostile = "a\x1b[2Jb\x07c\x9b31md\x7f\u202eevil\ud800\r\nnext\ttab"
    shown = neutral(hostile)
    assert shown == "a␛[2Jb␇c\ufffd31md␡evil\ufffd\nnext\ttab"
    assert one_line("a\n b\u2028c\td") == "a b c d"


def test_zero_width_joiners_stay_because_scripts_need_them() -> None:
    assert neutral("می\u200cخواهم 👩\u200d🔬") == "می\u200cخواهم 👩\u200d🔬"


def test_every_field_of_a_hit_is_neutral() -> None:
    bad = "x\x1b]0;owned\x07"
    hit = make_hit(path=bad, title=bad, heading=(bad,), text=bad, explanation=Explanation(1, 1, 0.5, (bad,), ()))
    for line in hit_lines(hit, query="x", base=Path("/tmp"), terminal=PLAIN):
        assert "\x1b" not in line
        assert "\x07" not in line
    styled = "\n".join(hit_lines(hit, query="x", base=Path("/tmp"), terminal=STYLED))
    assert "\x1b]0;" not in styled
    assert "\x07" not in styled


def test_wide_characters_take_two_cells() -> None:
    assert cells("abc") == 3
    assert cells("潮位") == 4
    assert cells("e\u0301") == 1


@pytest.mark.parametrize("width", [5, 8, 21])
@pytest.mark.parametrize(
    "line", ["one two three four", "潮位計の時計は毎月合わせる", "x" * 50, "    indented code here", "a"]
)
def test_wrap_never_exceeds_the_width_and_loses_nothing(line: str, width: int) -> None:
    rows = wrap(line, width)
    assert all(cells(row) <= width for row in rows)
    assert "".join("".join(rows).split()) == "".join(line.split())


def test_wrap_cuts_at_spaces_and_drops_blank_lines() -> None:
    assert wrap("alpha beta gamma", 11) == ["alpha beta", "gamma"]
    assert wrap("alpha beta", 10) == ["alpha beta"]
    assert wrap("   ", 10) == []
    assert wrap("  alpha beta", 8) == ["  alpha", "  beta"]


def test_shortening_counts_cells() -> None:
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"
    assert shorten_left("abcdefg", 6) == "…cdefg"
    assert cells(shorten("潮位計の時計", 7)) <= 7


def test_styles_only_where_they_are_understood() -> None:
    assert terminal.terminal_for(_Screen(), {}).styled
    assert not terminal.terminal_for(io.StringIO(), {}).styled
    assert not terminal.terminal_for(_Screen(), {"NO_COLOR": "1"}).styled
    assert terminal.terminal_for(_Screen(), {"NO_COLOR": ""}).styled
    assert not terminal.terminal_for(_Screen(), {"TERM": "dumb"}).styled


def test_json_is_one_line_that_any_stream_takes(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": "é 潮 \x1b \x9b \u2028 \ud800", "number": 1.5}
    emit_json(value)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "é 潮" in out
    assert not set(out) & {"\x1b", "\x9b", "\u2028", "\ud800"}
    assert json.loads(out) == value


def test_json_says_null_for_nan(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json({"metadata": {"x": float("nan"), "y": [1.0, float("inf")]}})
    assert json.loads(capsys.readouterr().out) == {"metadata": {"x": None, "y": [1.0, None]}}


def test_query_terms_leave_out_function_words_unless_there_is_nothing_else() -> None:
    assert query_terms("How do I rotate the KEY?") == {"rotate", "key"}
    assert query_terms("to be or not") == {"to", "be", "or", "not"}
    assert query_terms("潮位計") == {"潮位", "位計"}
    assert query_terms("¿?") == frozenset()


def test_excerpt_shows_the_rows_that_match_rarer_words() -> None:
    text = "\n".join([*(f"line {n} about keys" for n in range(20)), "rotation of keys happens monthly", "last line"])
    shown = excerpt(text, query_terms("key rotation"), width=60, rows=2)
    assert shown.rows == ["rotation of keys happens monthly", "last line"]
    assert shown.before
    assert not shown.after


def test_excerpt_begins_at_the_top_when_nothing_matches() -> None:
    shown = excerpt("first\nsecond\nthird", frozenset({"absent"}), width=40, rows=2)
    assert (shown.rows, shown.before, shown.after) == (["first", "second"], False, True)


def test_excerpt_leaves_out_headings_that_are_shown_anyway() -> None:
    shown = excerpt("# Keys\n\n## Rotation\n\nEvery month.", (), headings=("Keys", "Rotation"), width=40, rows=3)
    assert shown.rows == ["Every month."]
    only_heading = excerpt("# Keys", (), headings=("Keys",), width=40, rows=3)
    assert only_heading.rows == ["# Keys"]


def test_excerpt_lets_prose_flow_but_keeps_code_lines() -> None:
    prose = "alpha beta gamma delta epsilon\nzeta eta"
    assert excerpt(prose, (), width=20, rows=9).rows == ["alpha beta gamma", "delta epsilon zeta", "eta"]
    code = "    first_statement_is_long();\n    second();"
    assert excerpt(code, (), width=20, rows=9).rows[-1] == "second();"
    bullets = "- alpha beta gamma delta\n- second"
    assert excerpt(bullets, (), width=20, rows=9).rows[-1] == "- second"


def test_excerpt_of_nothing_is_empty() -> None:
    assert excerpt("", {"x"}, width=40, rows=3).rows == []
    assert excerpt(" \n\n", (), width=40, rows=3).rows == []


@pytest.mark.parametrize(
    ("row", "query", "marked"),
    [
        ("Rotation of keys", "rotate key", "[Rotation] of [keys]"),
        ("Well-behaved dogs", "dog", "Well-behaved [dogs]"),
        ("the category", "cat", "the category"),
        ("QRN-4005 and QRN-4006", "QRN-4005", "[QRN]-[4005] and [QRN]-4006"),
        ("この潮位計は", "潮位計", "この[潮位]計は"),
        ("nothing here", "", "nothing here"),
    ],
)
def test_mark(row: str, query: str, marked: str) -> None:
    assert mark(row, query_terms(query), before="[", after="]") == marked


def test_a_hit_in_plain_text_and_on_a_terminal() -> None:
    plain = hit_lines(make_hit(), query="rotate a key", base=Path("/base"), terminal=PLAIN)
    assert plain == [" 1  docs/keys.md:3-9  0.500", "    Keys › Rotation", "    Rotate the key every month."]
    styled = hit_lines(make_hit(), query="rotate a key", base=Path("/base"), terminal=STYLED)
    assert "\x1b]8;;file:///base/docs/keys.md\x1b\\" in styled[0]
    assert styled[2] == "    \x1b[1mRotate\x1b[22m the \x1b[1mkey\x1b[22m every month."


def test_long_fields_keep_the_layout_and_the_citation_whole() -> None:
    path = "deep/" * 40 + "file.md"
    heading = tuple(f"section number {n} with a long name" for n in range(9))
    lines = hit_lines(
        make_hit(path=path, heading=heading, text="word " * 400), query="q", base=Path("/b"), terminal=PLAIN
    )
    assert f"{path}:3-9" in lines[0]
    assert all(cells(line) <= 80 for line in lines[1:])
    assert lines[1].strip().startswith("…")
    assert lines[1].endswith("section number 8 with a long name")
    assert len(lines) == 6


def test_hit_json_has_the_promised_keys() -> None:
    assert list(hit_json(make_hit())) == [
        "rank",
        "score",
        "scores",
        "path",
        "title",
        "heading",
        "page",
        "line_start",
        "line_end",
        "char_start",
        "char_end",
        "chunk_id",
        "text",
        "metadata",
    ]
    explained = hit_json(make_hit(explanation=Explanation(1, None, 0.5, ("key",), (8,))), explain=True)
    assert explained["explanation"]["terms"] == ("key",)


def test_report() -> None:
    report = IndexReport(added=2, unchanged=1, chunks=5, embedded_chunks=4, reused_chunks=1, tokens=1000, seconds=0.5)
    assert report_lines(report) == [
        "Documents: 2 added, 1 unchanged.",
        "Chunks: 5, of them 4 embedded, 1 reused.",
        "Time: 1,000 tokens in 0.5 s (2,000 a second).",
    ]
    assert report_lines(IndexReport(), dry_run=True) == ["Documents: none found. Nothing was written (--dry-run)."]
    value = report_json(IndexReport(failed=(Failure("a.pdf", "no text"),)))
    assert value["failed"] == [{"path": "a.pdf", "reason": "no text"}]
    assert set(value) == {
        "added",
        "updated",
        "moved",
        "deleted",
        "unchanged",
        "failed",
        "chunks",
        "embedded_chunks",
        "reused_chunks",
        "tokens",
        "seconds",
        "tokens_per_second",
    }


def test_failures_are_listed_up_to_twenty() -> None:
    assert failure_lines([]) == []
    lines = failure_lines([Failure(f"f{n}", "bad\x1b") for n in range(25)])
    assert lines[0] == "25 files could not be indexed:"
    assert lines[1] == "  f0: bad␛"
    assert lines[-1] == "  … and 5 more, see `ragindex failures`."
    assert len(lines) == 22
    assert len(failure_lines([Failure(f"f{n}", "bad") for n in range(25)], limit=None)) == 26


def test_fields_are_aligned_and_nested() -> None:
    lines = field_lines({"a": 1234, "long_name": None, "nested": {"x": True, "y": 0.123456}}, terminal=PLAIN)
    assert lines == ["a          1,234", "long name  –", "nested", "  x  yes", "  y  0.123"]


def test_units() -> None:
    assert [human_bytes(size) for size in (0, 1023, 1536, 5 << 40)] == ["0 B", "1023 B", "1.5 KiB", "5.0 TiB"]
    assert [human_seconds(s) for s in (0.04, 59.9, 65, 3700)] == ["0.0 s", "59.9 s", "1 min 5 s", "1 h 1 min"]

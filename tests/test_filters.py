from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragindex.errors import FilterSyntaxError, UsageError
from ragindex.filters import And, Contains, Empty, Eq, Exists, Filter, In, Like, Not, Or, Range, parse, to_text
from ragindex.filters.values import MAX_DEPTH


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = 1", Eq("a", 1)),
        ("a == 'x'", Eq("a", "x")),
        ("a != -2.5", Not(Eq("a", -2.5))),
        ("a <> 'x'", Not(Eq("a", "x"))),
        ("a=true", Eq("a", True)),
        ("a = NULL", Eq("a", None)),
        ("a is null", Not(Exists("a"))),
        ("a IS NOT NULL", Exists("a")),
        ("a < 3", Range("a", None, 3, include_high=False)),
        ("a <= 3", Range("a", None, 3)),
        ("a>1e3", Range("a", 1000.0, None, include_low=False)),
        ("3 > a", Range("a", None, 3, include_high=False)),
        ("'x' = a", Eq("a", "x")),
        ("1 <= a < 5", Range("a", 1, 5, include_high=False)),
        ("5 >= a > 1", Range("a", 1, 5, include_low=False)),
        ("a between 1 and 5 and b = 2", And((Range("a", 1, 5), Eq("b", 2)))),
        ("a not between 1 and 5", Not(Range("a", 1, 5))),
        ("mime in ('a', \"b\")", In("mime", ("a", "b"))),
        ("mime not in (1)", Not(In("mime", (1,)))),
        ("mime in ()", In("mime", ())),
        ("a not like '%x_'", Not(Like("a", "%x_"))),
        ("tags contains 'x' and not b contains 2", And((Contains("tags", "x"), Not(Contains("b", 2))))),
        ("a is empty or b is not empty", Or((Empty("a"), Not(Empty("b"))))),
        ("a not contains true", Not(Contains("a", True))),
        ("a = 'it''s'", Eq("a", "it's")),
        ('a = "say ""x"" it\'s"', Eq("a", 'say "x" it\'s')),
        ("`not a word``s` = 1", Eq("not a word`s", 1)),
        ("meta.some-key.2 = 1", Eq("meta.some-key.2", 1)),
        ("täg = 'é'", Eq("täg", "é")),
        ("true", And(())),
        ("false or a = 1", Or((Or(()), Eq("a", 1)))),
        ("((a = 1))", Eq("a", 1)),
    ],
)
def test_every_operator_parses_to_its_value(text: str, expected: Filter) -> None:
    assert parse(text) == expected


def test_numbers_keep_their_type() -> None:
    for text, kind in (("1", int), ("1.0", float), ("true", bool), ("'1'", str)):
        value = parse(f"a = {text}")
        assert isinstance(value, Eq)
        assert type(value.value) is kind


def test_not_binds_before_and_before_or() -> None:
    a, b, c = (Eq(name, 1) for name in "abc")
    assert parse("a=1 or not b=1 and c=1") == Or((a, And((Not(b), c))))
    assert parse("not (a=1 or b=1)") == Not(Or((a, b)))
    text = "path like 'ops/%' and (language = 'en' or size >= 1000) and not modified < '2024-01-01'"
    modified = Range("modified", None, "2024-01-01", include_high=False)
    assert parse(text) == And(
        (Like("path", "ops/%"), Or((Eq("language", "en"), Range("size", 1000, None))), Not(modified))
    )


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("", 1, "a field name"),
        ("   ", 4, "a field name"),
        ("a", 2, "an operator after 'a'"),
        ("a = ", 5, "a value"),
        ("a = b", 5, "a value in quotes"),
        ("a = 'x", 5, "a closing quote"),
        ("a = 1 b = 2", 7, "'and', 'or' or the end"),
        ("(a = 1", 7, "')'"),
        ("a like 3", 8, "a pattern in quotes"),
        ("a not = 3", 7, "'like', 'contains', 'in' or 'between'"),
        ("a in 3", 6, "'('"),
        ("a in (1", 8, "')'"),
        ("a between 1 or 2", 13, "'and'"),
        ("a is 3", 6, "'null'"),
        ("a = 1 and", 10, "a field name"),
        ("a ; b", 3, "an operator"),
        ("1 < a > 0", 7, "'and', 'or' or the end"),
        ("3 4", 3, "a comparison"),
        ("a < null", 1, "ordered"),
        ("a = 99999999999999999999", 1, "64 bits"),
        ("a = 1e999", 1, "finite"),
        ("a = 12abc", 5, "a field, a value"),
    ],
)
def test_errors_are_one_line_with_the_column(text: str, column: int, expected: str) -> None:
    with pytest.raises(FilterSyntaxError) as caught:
        parse(text)
    message = str(caught.value)
    assert f"column {column}:" in message
    assert expected in message
    assert "\n" not in message


def test_nesting_is_bounded_and_length_is_not() -> None:
    for opening, closing in (("(", ")"), ("not ", "")):
        assert parse(opening * MAX_DEPTH + "a = 1" + closing * MAX_DEPTH)
        with pytest.raises(FilterSyntaxError, match="nested deeper"):
            parse(opening * 100_000 + "a = 1" + closing * 100_000)
    flat = parse(" or ".join(["(not (a = 1))"] * 20_000))
    assert isinstance(flat, Or)
    assert len(flat.parts) == 20_000
    deep: Filter = Eq("a", 1)
    for _ in range(MAX_DEPTH + 1):
        deep = Not(deep)
    with pytest.raises(UsageError, match="deeper"):
        to_text(deep)


def test_values_that_no_backend_can_hold_are_refused() -> None:
    for build in (
        lambda: Eq("a", float("nan")),
        lambda: In("a", (1, 1 << 63)),
        lambda: Range("a"),
        lambda: Range("a", True, 3),
        lambda: Exists(""),
        lambda: Like("a", "\udc80"),
    ):
        with pytest.raises(UsageError):
            build()


def test_open_sides_have_one_spelling() -> None:
    assert Range("a", 1, None, include_high=False) == Range("a", 1, None)


_names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6) | st.sampled_from(
    ["and", "True", "a.b-c"]
)
_strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_numbers = st.integers(-(1 << 63), (1 << 63) - 1) | st.floats(allow_nan=False, allow_infinity=False)
_values = st.none() | st.booleans() | _numbers | _strings
_bounds = st.none() | _numbers | _strings
_ranges = st.tuples(_names, _bounds, _bounds, st.booleans(), st.booleans()).filter(
    lambda r: r[1] is not None or r[2] is not None
)


def _leaf(parts: tuple[type[Like | Contains | Exists | Empty], str, str]) -> Filter:
    kind, name, text = parts
    return kind(name, text) if kind in (Like, Contains) else kind(name)


_leaves = (
    st.builds(Eq, _names, _values)
    | st.builds(In, _names, st.lists(_values, max_size=3).map(tuple))
    | _ranges.map(lambda r: Range(*r))
    | st.tuples(st.sampled_from((Like, Contains, Exists, Empty)), _names, _strings).map(_leaf)
)


def _compound(inner: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    several = st.lists(inner, max_size=3).filter(lambda parts: len(parts) != 1).map(tuple)
    return st.builds(And, several) | st.builds(Or, several) | st.builds(Not, inner)


@given(st.recursive(_leaves, _compound, max_leaves=8))
def test_text_round_trip(value: Filter) -> None:
    again = parse(to_text(value))
    assert again == value
    assert repr(again) == repr(value)  # 1, 1.0 and True are equal but not the same filter


def test_a_single_part_needs_no_connective() -> None:
    nested = Not(And((Or((And((Eq("a", 1), Eq("b", 2))),)),)))
    assert parse(to_text(nested)) == Not(And((Eq("a", 1), Eq("b", 2))))


@given(st.text(max_size=30) | st.text("ab='\"`()<>!, andotrliknu1.", max_size=30))
def test_any_text_parses_or_raises_the_syntax_error(text: str) -> None:
    try:
        parse(text)
    except FilterSyntaxError:
        return

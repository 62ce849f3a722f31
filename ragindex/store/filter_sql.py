"""Compiles filter values to SQL conditions; every value and every metadata key travels as a parameter.

`path`, `title`, `page` and `text` are columns, `heading` is any level of the chunk's headings, every other field is a
key of the document's metadata, and so is what follows `metadata.`; with dots in it, it may also lead into an object.
Conditions are EXISTS tests or comparisons of columns that are never NULL, so `NOT` is their exact complement.
"""

# ruff: noqa: S608 - statements are put together from constants; whatever a user wrote is a parameter
from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from ragindex.filters import And, Contains, Empty, Eq, Exists, Filter, In, Like, Not, Or, Range
from ragindex.filters.values import LITERALLY
from ragindex.types import MetadataValue

__all__ = ["Condition", "condition", "needs_chunks"]

Leaf = Eq | In | Range | Like | Contains | Exists | Empty
_OWN = "metadata."
_CHUNK_FIELDS = frozenset({"page", "heading", "text"})
# What json_each calls them. SQLite orders every number before every text, so that a comparison must not cross kinds.
_TYPES = {"text": "('text')", "number": "('integer', 'real')", "boolean": "('true', 'false')"}


class Condition(NamedTuple):
    """A test in SQL and the values of its question marks, in their order."""

    sql: str
    parameters: tuple[MetadataValue, ...] = ()


_TRUE, _FALSE = Condition("1"), Condition("0")


def needs_chunks(filter: Filter) -> bool:  # noqa: A002
    """Whether the condition looks at columns of a chunk; otherwise it holds for whole documents."""
    if isinstance(filter, And | Or):
        return any(needs_chunks(part) for part in filter.parts)
    if isinstance(filter, Not):
        return needs_chunks(filter.part)
    return filter.field in _CHUNK_FIELDS


def condition(filter: Filter) -> Condition:  # noqa: A002
    """The condition over `documents` and, where `needs_chunks` says so, `chunks`."""
    match filter:
        case And(parts):
            return _joined("AND", map(condition, parts), empty=_TRUE)
        case Or(parts):
            return _joined("OR", map(condition, parts), empty=_FALSE)
        case Not(part):
            return _not(condition(part))
        case Eq(field, None):
            return _not(condition(Exists(field)))
        case Empty():
            return _not(_leaf(filter))  # as a leaf it is the test for something being there
        case In(field, values) if None in values:
            present = In(field, tuple(value for value in values if value is not None))
            return _joined("OR", [_not(condition(Exists(field))), condition(present)], empty=_FALSE)
        case _:
            return _leaf(filter)


def _leaf(leaf: Leaf) -> Condition:
    match leaf.field:
        case "path" | "title":
            column = f"documents.{leaf.field}"
            # An empty title is a missing one.
            return _both(Condition(f"{column} != ''"), _matches(leaf, column, {"text": "1"}))
        case "page":
            test = _matches(leaf, "chunks.page", {"number": "1"})
            return Condition(f"coalesce(chunks.page IS NOT NULL AND {test.sql}, 0)", test.parameters)
        case "text":
            return _matches(leaf, "chunks.text", {"text": "1"})
        case "heading":
            test = _matches(leaf, "levels.value", _typed("levels.type"))
            return Condition(f"EXISTS (SELECT 1 FROM json_each(chunks.heading) AS levels WHERE {test.sql})", test[1])
        case field:
            return _joined("OR", (_entry(leaf, *place) for place in _places(field.removeprefix(_OWN))), empty=_FALSE)


def _places(key: str) -> Iterable[tuple[str, str]]:
    """Where a key may be found: the JSON path of an object in the metadata, and the key there."""
    yield "$", key
    parts = key.split(".")
    for count in range(1, len(parts)):
        above = parts[:count]
        if all(above) and not any('"' in part for part in above):  # a quote cannot stand in SQLite's paths
            yield "$" + "".join(f'."{part}"' for part in above), ".".join(parts[count:])


def _entry(leaf: Leaf, path: str, key: str) -> Condition:
    test = _matches(leaf, "entries.value", _typed("entries.type"))
    if isinstance(leaf, Empty):
        test = Condition("(entries.type NOT IN ('text', 'array') OR entries.value NOT IN ('', '[]'))")
    if isinstance(leaf, Contains):
        items = Condition(
            "EXISTS (SELECT 1 FROM json_each(CASE entries.type WHEN 'array' THEN entries.value END) AS items"
        )
        equal = _matches(Eq(leaf.field, leaf.value), "items.value", _typed("items.type"))
        test = _joined("OR", [test, Condition(f"{items.sql} WHERE {equal.sql})", equal.parameters)], empty=_FALSE)
    found = _both(Condition("entries.key = ? AND entries.type != 'null'", (key,)), test)
    source = (
        Condition("json_each(documents.metadata)")
        if path == "$"
        else Condition("json_each(documents.metadata, ?)", (path,))
    )
    sql = f"EXISTS (SELECT 1 FROM {source.sql} AS entries WHERE {found.sql})"
    return Condition(sql, (*source.parameters, *found.parameters))


def _typed(column: str) -> dict[str, str]:
    """Tests of json_each's `type`, by kind of value."""
    return {kind: f"{column} IN {types}" for kind, types in _TYPES.items()}


def _matches(leaf: Leaf, value: str, is_kind: dict[str, str]) -> Condition:
    """`value` is an SQL expression; `is_kind` has a test for each kind of value that it can be."""
    match leaf:
        case Exists():
            return _TRUE
        case Empty():
            return Condition(f"{value} != ''")
        case Eq(_, wanted):
            return _both(_kind_test(is_kind, wanted), Condition(f"{value} = ?", (wanted,)))
        case In(_, values):
            return _joined("OR", (_among(kind, test, values, value) for kind, test in is_kind.items()), empty=_FALSE)
        case Like(_, pattern):
            return _both(_kind_test(is_kind, ""), Condition(f"{value} LIKE ? ESCAPE '{LITERALLY}'", (pattern,)))
        case Contains(_, str() as part):
            return _both(_kind_test(is_kind, part), Condition(f"instr({value}, ?) > 0", (part,)))
        case Contains():
            return _FALSE
        case Range(_, low, high, include_low, include_high):
            tests = [_kind_test(is_kind, bound) for bound in (low, high) if bound is not None]
            if low is not None:
                tests.append(Condition(f"{value} {'>=' if include_low else '>'} ?", (low,)))
            if high is not None:
                tests.append(Condition(f"{value} {'<=' if include_high else '<'} ?", (high,)))
            return _joined("AND", tests, empty=_TRUE)


def _kind_test(is_kind: dict[str, str], value: MetadataValue) -> Condition:
    return Condition(is_kind.get(_kind(value), "0"))


def _among(kind: str, test: str, values: tuple[MetadataValue, ...], value: str) -> Condition:
    # One JSON parameter instead of one per value: SQLite limits the number of parameters.
    chosen = json.dumps([item for item in values if _kind(item) == kind])
    return _both(Condition(test), Condition(f"{value} IN (SELECT value FROM json_each(?))", (chosen,)))


def _kind(value: MetadataValue) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"


def _not(part: Condition) -> Condition:
    return Condition(f"NOT ({part.sql})", part.parameters)


def _both(first: Condition, second: Condition) -> Condition:
    return _joined("AND", (first, second), empty=_TRUE)


def _joined(operator: str, parts: Iterable[Condition], *, empty: Condition) -> Condition:
    several = list(parts)
    if len(several) < 2:
        return several[0] if several else empty
    sql = f" {operator} ".join(part.sql for part in several)
    return Condition(f"({sql})", tuple(value for part in several for value in part.parameters))

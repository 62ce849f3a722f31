"""Compiles filter values to SQL conditions; every value and every metadata key travels as a parameter.

`path`, `title`, `page` and `text` are columns, `heading` is any level of the chunk's headings, every other field is a
key of the document's metadata, and so is what follows `metadata.`; with dots in it, it may also lead into an object.
Conditions are EXISTS tests or comparisons of columns that are never NULL, so `NOT` is their exact complement.

A field of the metadata is tested in one of two ways, which agree. Of a few documents the metadata are read; of all of
them the values are looked up in `document_fields`, which lists those that are short and no objects, and the metadata
are read of the others alone.
"""

# ruff: noqa: S608 - statements are put together from constants; whatever a user wrote is a parameter
from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ragindex.filters import And, Contains, Empty, Eq, Exists, Filter, In, Like, Not, Or, Range
from ragindex.filters.values import LITERALLY
from ragindex.types import MetadataValue

__all__ = ["Condition", "condition", "is_led", "needs_chunks"]

Leaf = Eq | In | Range | Like | Contains | Exists | Empty
_OWN = "metadata."
_CHUNK_FIELDS = frozenset({"page", "heading", "text"})
_COLUMNS = _CHUNK_FIELDS | {"path", "title"}
_FIELDS = "SELECT document_id FROM document_fields"
_ROW = "document_fields.collection_id = ? AND document_fields.key = ?"
_LISTED = {kind: f"kind = '{kind}'" for kind in ("text", "number", "boolean")}
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


def is_led(filter: Filter) -> bool:  # noqa: A002
    """Whether the documents that match are among those that a look-up finds."""
    match filter:
        case And(parts):
            return any(map(is_led, parts))
        case Or(parts):
            return bool(parts) and all(map(is_led, parts))
        case Not() | Empty() | Eq(_, None):
            return False
        case In(_, values) if None in values:
            return False
        case _:
            return filter.field not in _COLUMNS


def condition(filter: Filter, *, collection: int | None = None) -> Condition:  # noqa: A002
    """The condition over `documents` and, where `needs_chunks` says so, `chunks`.

    collection: the one whose listed values are looked up, to test all of its documents; None: for a few documents.
    """

    def inner(part: Filter) -> Condition:
        return condition(part, collection=collection)

    match filter:
        case And(parts):
            return _joined("AND", map(inner, parts), empty=_TRUE)
        case Or(parts):
            return _joined("OR", map(inner, parts), empty=_FALSE)
        case Not(part):
            return _not(inner(part))
        case Eq(field, None):
            return _not(inner(Exists(field)))
        case Empty():
            return _not(_leaf(filter, collection))  # as a leaf it is the test for something being there
        case In(field, values) if None in values:
            present = In(field, tuple(value for value in values if value is not None))
            return _joined("OR", [_not(inner(Exists(field))), inner(present)], empty=_FALSE)
        case _:
            return _leaf(filter, collection)


def _leaf(leaf: Leaf, collection: int | None) -> Condition:
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
            places = _places(field.removeprefix(_OWN))
            if collection is not None:
                return _looked_up(leaf, places, collection)
            return _joined("OR", (_entry(leaf, place) for place in places), empty=_FALSE)


class _Place(NamedTuple):
    """Where a key may be found: the JSON path of an object in the metadata, the key there, and the key at the top under
    which that lies.
    """

    path: str
    key: str
    top: str


def _places(key: str) -> list[_Place]:
    places = [_Place("$", key, key)]
    parts = key.split(".")
    for count in range(1, len(parts)):
        above = parts[:count]
        if all(above) and not any('"' in part for part in above):  # a quote cannot stand in SQLite's paths
            path = "$" + "".join(f'."{part}"' for part in above)
            places.append(_Place(path, ".".join(parts[count:]), parts[0]))
    return places


def _looked_up(leaf: Leaf, places: Sequence[_Place], collection: int) -> Condition:
    """The documents that the listed values name, and of those with values that are not listed the ones that match."""
    listed = _listed(leaf)
    found = [Condition(f"{_FIELDS} WHERE {_ROW} AND {listed.sql}", (collection, places[0].key, *listed.parameters))]
    for place in places:
        if place.path != "$" or _may_be_long(leaf):
            test = _entry(leaf, place, of="own")
            rows = f"{_FIELDS} JOIN documents AS own ON own.id = document_id WHERE {_ROW} AND kind = 'other'"
            found.append(Condition(f"{rows} AND {test.sql}", (collection, place.top, *test.parameters)))
    sql = " UNION ALL ".join(part.sql for part in found)
    return Condition(f"documents.id IN ({sql})", tuple(value for part in found for value in part.parameters))


def _listed(leaf: Leaf) -> Condition:
    """The test of a row of `document_fields`; its kinds and values are those of `schema.DocumentFieldModel`."""
    match leaf:
        case Empty():
            return Condition(
                "(kind IN ('number', 'boolean', 'other') OR kind IN ('text', 'array') AND value NOT IN ('', 0))"
            )
        case Contains(_, value):
            item = Condition(f"kind = 'item {_kind(value)}' AND value = ?", (value,))
            return _joined("OR", [item, _matches(leaf, "value", _LISTED)], empty=_FALSE)
        case _:
            return _matches(leaf, "value", _LISTED)


def _may_be_long(leaf: Leaf) -> bool:
    """Whether the leaf may match a value that is too long to be listed."""
    match leaf:
        case Exists() | Empty():
            return False  # that there is one is listed
        case Eq(_, value):
            return isinstance(value, str)
        case In(_, values):
            return any(isinstance(value, str) for value in values)
        case Range(_, low, high):
            return isinstance(low, str) or isinstance(high, str)
        case _:
            return True


def _entry(leaf: Leaf, place: _Place, *, of: str = "documents") -> Condition:
    """The test of the metadata themselves; `of` is the name of the row of `documents`."""
    test = _matches(leaf, "entries.value", _typed("entries.type"))
    if isinstance(leaf, Empty):
        test = Condition("(entries.type NOT IN ('text', 'array') OR entries.value NOT IN ('', '[]'))")
    if isinstance(leaf, Contains):
        items = Condition(
            "EXISTS (SELECT 1 FROM json_each(CASE entries.type WHEN 'array' THEN entries.value END) AS items"
        )
        equal = _matches(Eq(leaf.field, leaf.value), "items.value", _typed("items.type"))
        test = _joined("OR", [test, Condition(f"{items.sql} WHERE {equal.sql})", equal.parameters)], empty=_FALSE)
    found = _both(Condition("entries.key = ? AND entries.type != 'null'", (place.key,)), test)
    source = (
        Condition(f"json_each({of}.metadata)")
        if place.path == "$"
        else Condition(f"json_each({of}.metadata, ?)", (place.path,))
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
            kinds = set(map(_kind, values))
            among = (_among(kind, test, values, value) for kind, test in is_kind.items() if kind in kinds)
            return _joined("OR", among, empty=_FALSE)
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

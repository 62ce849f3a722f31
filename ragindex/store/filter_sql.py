"""Compiles filter values to SQL conditions; every value and every metadata key travels as a parameter.

`path`, `title` and `page` are columns, `heading` is any level of the chunk's headings, every other field is a key of
the document's metadata. Conditions are EXISTS tests or comparisons of columns that are never NULL, so `NOT` is their
exact complement.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, false, func, literal, not_, or_, select, true

from ragindex.filters import And, Eq, Exists, Filter, In, Like, Not, Or, Range
from ragindex.store.schema import ChunkModel, DocumentModel
from ragindex.types import MetadataValue

__all__ = ["condition", "needs_chunks"]

Leaf = Eq | In | Range | Like | Exists
_CHUNK_FIELDS = frozenset({"page", "heading"})


def needs_chunks(filter: Filter) -> bool:  # noqa: A002
    """Whether the condition looks at columns of a chunk; otherwise it holds for whole documents."""
    if isinstance(filter, And | Or):
        return any(needs_chunks(part) for part in filter.parts)
    if isinstance(filter, Not):
        return needs_chunks(filter.part)
    return filter.field in _CHUNK_FIELDS


def condition(filter: Filter) -> ColumnElement[bool]:  # noqa: A002
    """The condition over `documents` and, where `needs_chunks` says so, `chunks`."""
    match filter:
        case And(parts):
            return and_(true(), *(condition(part) for part in parts))
        case Or(parts):
            return or_(false(), *(condition(part) for part in parts))
        case Not(part):
            return not_(condition(part))
        case Eq(field, None):
            return not_(condition(Exists(field)))
        case In(field, values) if None in values:
            present = In(field, tuple(value for value in values if value is not None))
            return or_(not_(condition(Exists(field))), condition(present))
        case _:
            return _leaf(filter)


def _leaf(leaf: Leaf) -> ColumnElement[bool]:
    column: ColumnElement[Any]
    match leaf.field:
        case "path" | "title":
            column = DocumentModel.path.expression if leaf.field == "path" else DocumentModel.title.expression
            # An empty title is a missing one.
            return and_(column != "", _matches(leaf, column, lambda kind: true() if kind == "text" else false()))
        case "page":
            page = ChunkModel.page.expression
            test = _matches(leaf, page, lambda kind: true() if kind == "number" else false())
            return and_(page.is_not(None), func.coalesce(test, literal(0, literal_execute=True)) == 1)
        case "heading":
            levels = func.json_each(ChunkModel.heading).table_valued("value", "type", name="levels")
            kind = levels.c.type
            return exists(select(1).select_from(levels).where(_matches(leaf, levels.c.value, _typed(kind))))
        case key:
            entries = func.json_each(DocumentModel.document_metadata).table_valued(
                "key", "value", "type", name="entries"
            )
            kind = entries.c.type
            found = and_(entries.c.key == key, kind != "null", _matches(leaf, entries.c.value, _typed(kind)))
            return exists(select(1).select_from(entries).where(found))


_KindTest = Callable[[str], ColumnElement[bool]]


def _typed(kind: ColumnElement[Any]) -> _KindTest:
    """Tests of json_each's `type`: SQLite orders every number before every text, so a range must not cross types."""
    types = {"text": ("text",), "number": ("integer", "real"), "boolean": ("true", "false")}
    return lambda wanted: kind.in_(types[wanted])


def _matches(leaf: Leaf, value: ColumnElement[Any], is_kind: _KindTest) -> ColumnElement[bool]:
    match leaf:
        case Exists():
            return true()
        case Eq(_, wanted):
            return and_(is_kind(_kind(wanted)), value == literal(wanted))
        case In(_, values):
            return or_(false(), *(_among(kind, values, value, is_kind) for kind in ("text", "number", "boolean")))
        case Like(_, pattern):
            return and_(is_kind("text"), value.like(literal(pattern)))
        case Range(_, low, high, include_low, include_high):
            tests = [is_kind(_kind(bound)) for bound in (low, high) if bound is not None]
            if low is not None:
                tests.append(value >= literal(low) if include_low else value > literal(low))
            if high is not None:
                tests.append(value <= literal(high) if include_high else value < literal(high))
            return and_(true(), *tests)


def _among(
    kind: str, values: tuple[MetadataValue, ...], value: ColumnElement[Any], is_kind: _KindTest
) -> ColumnElement[bool]:
    chosen = [item for item in values if _kind(item) == kind]
    if not chosen:
        return false()
    # One JSON parameter instead of one per value: SQLite limits the number of parameters.
    listed = func.json_each(json.dumps(chosen)).table_valued("value", name=f"listed_{kind}")
    return and_(is_kind(kind), value.in_(select(listed.c.value)))


def _kind(value: MetadataValue) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"

"""Haystack's filters as ragindex's: every operator of theirs, or a `FilterError`.

Texts compare exactly. Dates are ordered as the ISO texts they are, so keep to one form of them in a store.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from haystack.errors import FilterError

from ragindex.errors import UsageError
from ragindex.filters import And, Eq, Filter, In, Not, Or
from ragindex.integrations.conditions import bounded, equal, within

__all__ = ["translated"]

_COMPARISONS = ("==", "!=", ">", ">=", "<", "<=", "in", "not in")
_NOT_STORED = frozenset({"blob", "embedding", "score", "sparse_embedding"})


def translated(filters: Mapping[str, Any] | None) -> Filter | None:
    """The filter; None for none. Raises FilterError for one that Haystack does not know, or that cannot be held."""
    if not filters:
        return None
    try:
        return _condition(filters)
    except UsageError as error:
        raise FilterError(str(error)) from error


def _condition(filters: Any) -> Filter:
    if not isinstance(filters, Mapping):
        raise FilterError(f"A filter is a dictionary, not {filters!r}.")
    for key in ("operator", "value") if "field" in filters else ("operator", "conditions"):
        if key not in filters:
            raise FilterError(f"{key!r} is missing in the filter {dict(filters)!r}.")
    if "field" in filters:
        return _comparison(filters["field"], filters["operator"], filters["value"])
    parts = tuple(_condition(part) for part in filters["conditions"])
    match filters["operator"]:
        case "AND":
            return And(parts)
        case "OR":
            return Or(parts)
        case "NOT":
            return Not(And(parts))
    raise FilterError(f"Unknown operator {filters['operator']!r} around conditions; known are AND, OR and NOT.")


def _comparison(field: str, operator: str, value: Any) -> Filter:
    if field in _NOT_STORED:
        raise FilterError(f"Nothing can be filtered by {field!r}; take id, content or a field of meta.")
    if isinstance(value, datetime):
        value = value.isoformat()
    match operator:
        case "==":
            return _equal(field, value)
        case "!=":
            return Not(_equal(field, value))
        case "in" | "not in":
            if not isinstance(value, list):
                raise FilterError(f"{operator!r} needs a list of values for {field!r}, not {value!r}.")
            found = _within(field, value)
            return Not(found) if operator == "not in" else found
        case ">" | ">=" | "<" | "<=":
            return _ordered(field, operator, value)
    raise FilterError(f"Unknown operator {operator!r} for {field!r}; known are {', '.join(_COMPARISONS)}.")


def _equal(field: str, value: Any) -> Filter:
    column = _column(field)
    return equal(_key(field), value) if column is None else Eq(column, value)


def _within(field: str, values: list[Any]) -> Filter:
    column = _column(field)
    return within(_key(field), values) if column is None else In(column, tuple(values))


def _ordered(field: str, operator: str, value: Any) -> Filter:
    if value is None:
        return Or(())  # nothing is above or below nothing
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError as error:
            raise FilterError(
                f"{operator!r} compares {field!r} with a number or a date such as 2026-11-21T10:00:00, not with "
                f"{value!r}."
            ) from error
    if _column(field) is not None:
        raise FilterError(f"{field!r} is text, which {operator!r} cannot order; take a field of meta.")
    return bounded(_key(field), operator, value)


def _column(field: str) -> str | None:
    return {"id": "path", "content": "text"}.get(field)


def _key(field: str) -> str:
    return field.removeprefix("meta.")

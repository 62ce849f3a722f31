"""Conditions on metadata for adapters to build filters of; and the dictionaries that LangChain users write.

A name that is also a column of ragindex (`path`, `title`, `page`, `heading`) means either: a record has it in its
metadata, a passage of a file in the column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ragindex.errors import UsageError
from ragindex.filters import And, Contains, Empty, Eq, Exists, Filter, In, Like, Not, Or, Range, parse
from ragindex.types import MetadataValue

__all__ = ["bounded", "containing", "empty", "equal", "from_dict", "given", "like", "present", "within"]

_COLUMNS = frozenset({"path", "title", "page", "heading"})


def equal(name: str, value: Any) -> Filter:
    """The field has this value; None: it is absent or null."""
    if value is None:
        return Not(present(name))
    return _either(name, lambda field: Eq(field, _scalar(name, value)))


def within(name: str, values: Any) -> Filter:
    """The field has one of these values; None among them: or is absent."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise UsageError(f"The filter needs a list of values for {name!r}, not {values!r}.")
    several = tuple(_scalar(name, value) for value in values)
    known = tuple(value for value in several if value is not None)
    found = _either(name, lambda field: In(field, known))
    return found if len(known) == len(several) else Or((found, equal(name, None)))


def bounded(name: str, operator: str, bound: Any) -> Filter:
    """The field is `operator` (`<`, `<=`, `>`, `>=`) this number, or this text in the order of its characters."""
    if isinstance(bound, bool) or not isinstance(bound, str | int | float):
        raise UsageError(f"The filter can compare {name!r} by {operator} with a number or a text, not with {bound!r}.")
    included = operator.endswith("=")
    if operator[0] == "<":
        return _either(name, lambda field: Range(field, high=bound, include_high=included))
    return _either(name, lambda field: Range(field, low=bound, include_low=included))


def like(name: str, pattern: Any) -> Filter:
    """The field is text like this pattern of SQL."""
    if not isinstance(pattern, str):
        raise UsageError(f"The filter needs a pattern in text for {name!r}, not {pattern!r}.")
    return _either(name, lambda field: Like(field, pattern))


def containing(name: str, value: Any) -> Filter:
    """The field is text in which this occurs, or a list that has it."""
    wanted = _scalar(name, value)
    if wanted is None:
        raise UsageError(f"The filter cannot look for nothing in {name!r}; give a value.")
    return _either(name, lambda field: Contains(field, wanted))


def present(name: str) -> Filter:
    """The field is there and not null."""
    return _either(name, Exists)


def empty(name: str) -> Filter:
    """The field is absent, null, an empty text or an empty list."""
    own = Empty(f"metadata.{name}")
    return And((own, Empty(name))) if name in _COLUMNS else own


def given(asked: Any) -> Filter | None:
    """What a user gives as a filter: nothing, an expression, a value of `ragindex.filters`, or a dictionary."""
    match asked:
        case None:
            return None
        case str():
            return parse(asked)
        case And() | Contains() | Empty() | Eq() | Exists() | In() | Like() | Not() | Or() | Range():
            return asked
        case Mapping():
            return from_dict(asked)
    raise UsageError(
        f"A filter is an expression such as \"lang = 'en'\", a dictionary such as {{'lang': 'en'}}, or a value of "
        f"ragindex.filters, not of the type {type(asked).__name__}."
    )


def from_dict(asked: Mapping[str, Any]) -> Filter:
    """A dictionary as a filter: `{"lang": "en", "size": {"$gte": 10}}`, with `$and`, `$or`, `$not` around such.

    Operators are `$eq`, `$ne`, `$gt`, `$gte`, `$lt`, `$lte`, `$in`, `$nin`, `$exists`, `$like`, `$contains`. Raises
    UsageError for any other.
    """
    parts = tuple(_member(name, value) for name, value in asked.items())
    return parts[0] if len(parts) == 1 else And(parts)


def _member(name: str, value: Any) -> Filter:
    if name in ("$and", "$or"):
        if not isinstance(value, list | tuple):
            raise UsageError(f"{name!r} in a filter needs a list of conditions.")
        parts = tuple(from_dict(_table(name, part)) for part in value)
        return And(parts) if name == "$and" else Or(parts)
    if name == "$not":
        return Not(from_dict(_table(name, value)))
    if name.startswith("$"):
        raise UsageError(f"Unknown operator {name!r} in a filter; around conditions stand $and, $or and $not.")
    if not isinstance(value, Mapping):
        return equal(name, value)
    parts = tuple(_compared(name, operator, bound) for operator, bound in value.items())
    return parts[0] if len(parts) == 1 else And(parts)


def _compared(name: str, operator: str, value: Any) -> Filter:
    match operator:
        case "$eq":
            return equal(name, value)
        case "$ne":
            return Not(equal(name, value))
        case "$in":
            return within(name, value)
        case "$nin":
            return Not(within(name, value))
        case "$gt" | "$gte" | "$lt" | "$lte":
            return bounded(name, {"g": ">", "l": "<"}[operator[1]] + "=" * operator.endswith("e"), value)
        case "$exists" if isinstance(value, bool):
            return present(name) if value else Not(present(name))
        case "$like":
            return like(name, value)
        case "$contains":
            return containing(name, value)
    raise UsageError(
        f"Unknown operator {operator!r} for {name!r} in a filter; known are $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, "
        "$exists (true or false), $like and $contains."
    )


def _either(name: str, leaf: Callable[[str], Filter]) -> Filter:
    own = leaf(f"metadata.{name}")
    return Or((own, leaf(name))) if name in _COLUMNS else own


def _scalar(name: str, value: Any) -> MetadataValue:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise UsageError(f"The filter can compare {name!r} with text, a number, true, false or null, not with {value!r}.")


def _table(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{name!r} in a filter needs conditions in a dictionary, not {value!r}.")
    return value

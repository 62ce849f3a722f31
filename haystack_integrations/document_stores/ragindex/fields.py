"""What the meta of many documents holds: fields, types, extremes, different values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["count_unique", "fields_info", "min_max", "unique_values"]

_TYPES = ((bool, "boolean"), (int, "long"), (float, "float"), (str, "keyword"), (list, "array"), (dict, "object"))
_ABSENT = object()


def fields_info(metas: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """The fields by name, each with the type of its values ("mixed" where there are several)."""
    types: dict[str, str] = {}
    for meta in metas:
        for key, value in meta.items():
            if value is not None:
                found = next(name for kind, name in _TYPES if isinstance(value, kind))
                types[key] = found if types.get(key, found) == found else "mixed"
    return {key: {"type": kind} for key, kind in types.items()}


def count_unique(metas: Iterable[Mapping[str, Any]], fields: Sequence[str]) -> dict[str, int]:
    """How many different values each field has."""
    several = list(metas)
    return {field.removeprefix("meta."): len(unique_values(several, field, None)) for field in fields}


def min_max(metas: Iterable[Mapping[str, Any]], field: str) -> dict[str, Any]:
    """The least and the greatest value, of the numbers where a field has texts too; None where it has neither."""
    values = list(_values(metas, field))
    comparable: list[Any] = [value for value in values if isinstance(value, int | float)]
    comparable = comparable or [value for value in values if isinstance(value, str)]
    return {"min": min(comparable, default=None), "max": max(comparable, default=None)}


def unique_values(metas: Iterable[Mapping[str, Any]], field: str, search_term: str | None) -> list[Any]:
    """The different values in order, 1, 1.0, "1" and true apart; of a list its elements. search_term: those that
    contain it, in any case.
    """
    found: dict[tuple[str, str], Any] = {}
    for value in _values(metas, field):
        for item in value if isinstance(value, list) else [value]:
            text = item if isinstance(item, str) else json.dumps(item, sort_keys=True)
            if search_term is None or search_term.casefold() in text.casefold():
                found[text, type(item).__name__] = item
    return [found[key] for key in sorted(found)]


def _values(metas: Iterable[Mapping[str, Any]], field: str) -> Iterable[Any]:
    """The values of a field that are not null; dots lead into objects."""
    name = field.removeprefix("meta.")
    for meta in metas:
        value: Any = meta.get(name, _ABSENT)
        if value is _ABSENT:
            value = meta
            for part in name.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            yield value

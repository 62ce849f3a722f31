"""LlamaIndex's filters as ragindex's: every operator of theirs, nested as deep as they are."""

from __future__ import annotations

from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from ragindex.errors import UsageError
from ragindex.filters import And, Filter, Like, Not, Or
from ragindex.integrations.conditions import bounded, containing, empty, equal, within

__all__ = ["translated"]


def translated(filters: MetadataFilters | None) -> Filter | None:
    """The filter; None for none. Raises UsageError for values without a sense."""
    if filters is None or not filters.filters:
        return None
    parts = [
        translated(part) or And(()) if isinstance(part, MetadataFilters) else _condition(part)
        for part in filters.filters
    ]
    match filters.condition:
        case FilterCondition.OR:
            return Or(tuple(parts))
        case FilterCondition.NOT:
            return Not(Or(tuple(parts)))
    return And(tuple(parts))


def _condition(asked: MetadataFilter) -> Filter:
    key, value = asked.key, asked.value
    match asked.operator:
        case FilterOperator.EQ:
            return equal(key, value)
        case FilterOperator.NE:
            return Not(equal(key, value))
        case FilterOperator.GT | FilterOperator.GTE | FilterOperator.LT | FilterOperator.LTE:
            return bounded(key, asked.operator.value, value)
        case FilterOperator.IN:
            return within(key, value)
        case FilterOperator.NIN:
            return Not(within(key, value))
        case FilterOperator.ANY:
            return Or(tuple(containing(key, part) for part in _listed(asked)))
        case FilterOperator.ALL:
            return And(tuple(containing(key, part) for part in _listed(asked)))
        case FilterOperator.CONTAINS:
            return containing(key, value)
        case FilterOperator.TEXT_MATCH | FilterOperator.TEXT_MATCH_INSENSITIVE if not isinstance(value, str):
            raise UsageError(f"{asked.operator.value!r} looks for a text in {key!r}, not for {value!r}.")
        case FilterOperator.TEXT_MATCH:
            return containing(key, value)
        case FilterOperator.TEXT_MATCH_INSENSITIVE:
            return Like.around(f"metadata.{key}", str(value))
        case FilterOperator.IS_EMPTY:
            return empty(key)
    raise UsageError(f"The filter operator {asked.operator!r} is unknown here.")


def _listed(asked: MetadataFilter) -> list[Any]:
    if not isinstance(asked.value, list):
        raise UsageError(f"{asked.operator.value!r} needs a list of values for {asked.key!r}, not {asked.value!r}.")
    return list(asked.value)

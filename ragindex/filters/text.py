"""Spells a filter in the language that `parse` reads."""

from __future__ import annotations

from ragindex.errors import UsageError
from ragindex.filters.values import MAX_DEPTH, And, Contains, Empty, Eq, Exists, Filter, In, Like, Not, Or, Range
from ragindex.filters.words import CONSTANTS, KEYWORDS, WORD
from ragindex.types import MetadataValue

__all__ = ["to_text"]


def to_text(value: Filter) -> str:
    """The text that `parse` turns into an equal filter (an `And` or `Or` of a single part becomes that part).

    Raises UsageError for a filter nested deeper than `parse` accepts.
    """
    return _text(value, 0)


def _text(value: Filter, depth: int) -> str:
    if depth > MAX_DEPTH:
        raise UsageError(f"The filter nests deeper than {MAX_DEPTH} levels.")
    match value:
        case And(parts) | Or(parts) if len(parts) == 1:
            return _text(parts[0], depth + 1)
        case And(()):
            return "true"
        case Or(()):
            return "false"
        case And(parts):
            return " and ".join(_inner(part, depth) for part in parts)
        case Or(parts):
            return " or ".join(_inner(part, depth) for part in parts)
        case Not(part):
            return f"not {_inner(part, depth)}"
        case _:
            return _leaf(value)


def _inner(value: Filter, depth: int) -> str:
    text = _text(value, depth + 1)
    bare = value
    while isinstance(bare, And | Or) and len(bare.parts) == 1:
        bare = bare.parts[0]
    return f"({text})" if isinstance(bare, And | Or) and bare.parts else text


def _leaf(value: Eq | In | Range | Like | Contains | Exists | Empty) -> str:
    name = value.field
    if not WORD.fullmatch(name) or name.lower() in KEYWORDS:
        name = "`" + name.replace("`", "``") + "`"
    match value:
        case Eq():
            return f"{name} = {_literal(value.value)}"
        case In():
            return f"{name} in ({', '.join(map(_literal, value.values))})"
        case Like():
            return f"{name} like {_literal(value.pattern)}"
        case Contains():
            return f"{name} contains {_literal(value.value)}"
        case Exists():
            return f"{name} is not null"
        case Empty():
            return f"{name} is empty"
    if value.low is not None and value.high is not None and value.include_low and value.include_high:
        return f"{name} between {_literal(value.low)} and {_literal(value.high)}"
    left = "" if value.low is None else f"{_literal(value.low)} {'<=' if value.include_low else '<'} "
    right = "" if value.high is None else f" {'<=' if value.include_high else '<'} {_literal(value.high)}"
    return f"{left}{name}{right}"


def _literal(value: MetadataValue) -> str:
    for word, constant in CONSTANTS:
        if value is constant:
            return word
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)

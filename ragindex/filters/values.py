"""Filters as trees of frozen values; each refuses what no backend can hold."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ragindex.errors import UsageError
from ragindex.types import MetadataValue

__all__ = [
    "LITERALLY",
    "MAX_DEPTH",
    "And",
    "Contains",
    "Empty",
    "Eq",
    "Exists",
    "Filter",
    "In",
    "Like",
    "Not",
    "Or",
    "Range",
]

MAX_DEPTH = 64  # parentheses and `not`s: far above any need, far below the interpreter's stack
_INT64 = 1 << 63
LITERALLY = "\x1b"  # takes the next character of a pattern as it stands; nobody types it


@dataclass(frozen=True, slots=True)
class Eq:
    """The field has this value; None: the field is absent or null. Text compares exactly."""

    field: str
    value: MetadataValue

    def __post_init__(self) -> None:
        _check(self.field, self.value)


@dataclass(frozen=True, slots=True)
class In:
    """The field has one of these values; an empty tuple matches nothing."""

    field: str
    values: tuple[MetadataValue, ...]

    def __post_init__(self) -> None:
        _check(self.field, *self.values)


@dataclass(frozen=True, slots=True)
class Range:
    """The field lies between two bounds of its own type; None leaves a side open, at most one of them."""

    field: str
    low: str | int | float | None = None
    high: str | int | float | None = None
    include_low: bool = True
    include_high: bool = True

    def __post_init__(self) -> None:
        _check(self.field, self.low, self.high)
        if self.low is None and self.high is None:
            raise UsageError(f"A range of {self.field!r} needs at least one bound.")
        if isinstance(self.low, bool) or isinstance(self.high, bool):
            raise UsageError(f"A range of {self.field!r} needs bounds that are numbers or text, not true or false.")
        # An open side has no end to include: one spelling each, so that equal ranges are equal values.
        if self.low is None:
            object.__setattr__(self, "include_low", True)
        if self.high is None:
            object.__setattr__(self, "include_high", True)


@dataclass(frozen=True, slots=True)
class Like:
    """The field is text that matches a SQL LIKE pattern: `%` any run, `_` any character, ASCII case ignored.

    A character after U+001B (`LITERALLY`) stands for itself; `Like.around` spells text that way.
    """

    field: str
    pattern: str

    def __post_init__(self) -> None:
        _check(self.field, self.pattern)

    @classmethod
    def around(cls, field: str, text: str) -> Like:
        """The field is text in which this occurs, ASCII case ignored; no character of it is a wildcard."""
        return cls(field, "%" + "".join(LITERALLY + one if one in f"%_{LITERALLY}" else one for one in text) + "%")


@dataclass(frozen=True, slots=True)
class Contains:
    """The field is text in which this text occurs, or a list that has this element. Case counts."""

    field: str
    value: str | int | float | bool

    def __post_init__(self) -> None:
        _check(self.field, self.value)


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is present and not null."""

    field: str

    def __post_init__(self) -> None:
        _check(self.field)


@dataclass(frozen=True, slots=True)
class Empty:
    """The field is absent, null, a text without characters or a list without elements."""

    field: str

    def __post_init__(self) -> None:
        _check(self.field)


@dataclass(frozen=True, slots=True)
class And:
    """All parts match; no parts match everything."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one part matches; no parts match nothing."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not match."""

    part: Filter


Filter = Eq | In | Range | Like | Contains | Exists | Empty | And | Or | Not


def _check(name: str, *values: MetadataValue) -> None:
    if not name:
        raise UsageError("A filter needs a field name.")
    for value in (name, *values):
        if isinstance(value, int) and not -_INT64 <= value < _INT64:
            raise UsageError(f"The number for {name!r} does not fit in 64 bits.")
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"The number for {name!r} is not finite.")
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise UsageError("A filter holds text that is not valid Unicode.")

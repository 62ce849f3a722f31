"""Turns the text of a filter into its values."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from ragindex.errors import FilterSyntaxError, UsageError
from ragindex.filters.values import MAX_DEPTH, And, Contains, Empty, Eq, Exists, Filter, In, Like, Not, Or, Range
from ragindex.filters.words import CONSTANTS, Token, syntax_error, tokens
from ragindex.types import MetadataValue

__all__ = ["parse"]

_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}


def parse(text: str) -> Filter:
    """The filter that `text` spells.

    Raises FilterSyntaxError with the column, counted from 1, and what was expected there.
    """
    return _Parser(text).whole()


class _Parser:
    """Recursive descent over the tokens of one filter."""

    def __init__(self, text: str) -> None:
        self._tokens = tokens(text)
        self._next = 0
        self._depth = 0

    def whole(self) -> Filter:
        result = self._disjunction()
        if self._peek().kind != "end":
            raise self._unexpected("'and', 'or' or the end")
        return result

    def _peek(self) -> Token:
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _accept(self, *texts: str) -> str | None:
        return self._take().text if self._peek().is_(*texts) else None

    def _expect(self, text: str) -> None:
        if self._accept(text) is None:
            raise self._unexpected(repr(text))

    def _unexpected(self, expected: str) -> FilterSyntaxError:
        token = self._peek()
        return syntax_error(token.column, expected, "the end" if token.kind == "end" else repr(token.text))

    def _disjunction(self) -> Filter:
        parts = [self._conjunction()]
        while self._accept("or"):
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _conjunction(self) -> Filter:
        parts = [self._factor()]
        while self._accept("and"):
            parts.append(self._factor())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _factor(self) -> Filter:
        if not self._peek().is_("not", "("):
            return self._predicate()
        opening = self._take()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise FilterSyntaxError(f"Filter, column {opening.column + 1}: nested deeper than {MAX_DEPTH} levels.")
        result: Filter
        if opening.text == "not":
            result = Not(self._factor())
        else:
            result = self._disjunction()
            self._expect(")")
        self._depth -= 1
        return result

    def _predicate(self) -> Filter:
        start = self._peek()
        if start.kind in {"word", "quoted"}:
            name = self._field()
            return self._checked(start, lambda: self._after_field(name))
        if start.kind in {"string", "number"} or start.is_("true", "false", "null"):
            following = self._tokens[self._next + 1]
            if start.is_("true", "false") and (following.kind == "end" or following.is_("and", "or", ")")):
                return And(()) if self._take().text == "true" else Or(())
            return self._checked(start, self._value_first)
        raise self._unexpected("a field name")

    def _checked(self, start: Token, build: Callable[[], Filter]) -> Filter:
        try:
            return build()
        except FilterSyntaxError:
            raise
        except UsageError as error:
            raise FilterSyntaxError(f"Filter, column {start.column + 1}: {error}") from error

    def _field(self) -> str:
        token = self._peek()
        if token.kind not in {"word", "quoted"}:
            raise self._unexpected("a field name")
        self._next += 1
        return token.text[1:-1].replace("``", "`") if token.kind == "quoted" else token.text

    def _after_field(self, name: str) -> Filter:
        if operator := self._accept("=", "!=", "<", "<=", ">", ">="):
            return _compare(name, operator, self._value())
        if self._accept("is"):
            negated = self._accept("not") is not None
            if self._accept("empty"):
                return Not(Empty(name)) if negated else Empty(name)
            if self._accept("null") is None:
                raise self._unexpected("'null' or 'empty'")
            return Exists(name) if negated else Not(Exists(name))
        negated = self._accept("not") is not None
        result: Filter
        if self._accept("like"):
            if self._peek().kind != "string":
                raise self._unexpected("a pattern in quotes")
            result = Like(name, str(self._value()))
        elif self._accept("contains"):
            if self._peek().is_("null"):
                raise self._unexpected("a value to look for")
            wanted = self._value()
            assert wanted is not None
            result = Contains(name, wanted)
        elif self._accept("in"):
            result = In(name, self._values())
        elif self._accept("between"):
            low = self._bound()
            self._expect("and")
            result = Range(name, low, self._bound())
        else:
            raise self._unexpected(
                "'like', 'contains', 'in' or 'between'" if negated else f"an operator after {name!r}"
            )
        return Not(result) if negated else result

    def _value_first(self) -> Filter:
        value = self._value()
        operator = self._accept("=", "!=", "<", "<=", ">", ">=")
        if operator is None:
            raise self._unexpected("a comparison")
        name = self._field()
        allowed = {"<": ("<", "<="), ">": (">", ">=")}.get(operator[0], ())
        if not self._peek().is_(*allowed):
            return _compare(name, _MIRRORED[operator], value)
        second = self._take().text
        near, far = _Bound(_limit(name, value), "=" in operator), _Bound(self._bound(), "=" in second)
        low, high = (near, far) if operator[0] == "<" else (far, near)
        return Range(name, low.value, high.value, low.included, high.included)

    def _values(self) -> tuple[MetadataValue, ...]:
        self._expect("(")
        values: list[MetadataValue] = []
        while not self._peek().is_(")"):
            values.append(self._value())
            if self._accept(",") is None:
                break
        self._expect(")")
        return tuple(values)

    def _bound(self) -> str | int | float:
        if self._peek().kind not in {"string", "number"}:
            raise self._unexpected("a number or a string")
        value = self._value()
        assert isinstance(value, str | int | float)
        return value

    def _value(self) -> MetadataValue:
        token = self._peek()
        if token.kind not in {"string", "number"} and not token.is_("true", "false", "null"):
            hint = " in quotes" if token.kind == "word" else ""
            raise self._unexpected(f"a value{hint}")
        self._next += 1
        if token.kind == "string":
            quote = token.text[0]
            return token.text[1:-1].replace(quote * 2, quote)
        if token.kind == "number":
            if re.fullmatch(r"[+-]?\d{1,40}", token.text, re.ASCII):
                return int(token.text)
            return float(token.text)
        return dict(CONSTANTS)[token.text]


class _Bound(NamedTuple):
    value: str | int | float
    included: bool


def _limit(name: str, value: MetadataValue) -> str | int | float:
    if value is None or isinstance(value, bool):
        raise UsageError(f"{name!r} can be ordered only against a number or a string.")
    return value


def _compare(name: str, operator: str, value: MetadataValue) -> Filter:
    match operator:
        case "=":
            return Eq(name, value)
        case "!=":
            return Not(Eq(name, value))
        case "<" | "<=":
            return Range(name, high=_limit(name, value), include_high=operator == "<=")
        case _:
            return Range(name, low=_limit(name, value), include_low=operator == ">=")

"""Checks the arguments of a call against the schema of its tool; what is wrong becomes one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragindex.errors import UsageError
from ragindex.mcp_server.schemas import Schema

__all__ = ["checked"]

_NAMES = {"string": "a text", "integer": "a whole number", "boolean": "true or false"}


def checked(tool: str, schema: Schema, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with defaults filled in; null counts as left out, digits in a text as a number.

    Raises UsageError for an unknown, missing or impossible one.
    """
    properties = schema["properties"]
    unknown = sorted(set(given) - set(properties))
    if unknown:
        known = f"it takes {', '.join(properties)}" if properties else "it takes none"
        raise UsageError(f"{tool} has no argument {unknown[0]!r}; {known}.")
    values: dict[str, Any] = {}
    for name, rule in properties.items():
        value = given.get(name)
        if value is not None:
            values[name] = _checked(f"{tool}: {name}", rule, value)
        elif name in schema["required"]:
            raise UsageError(f"{tool} needs the argument {name!r}.")
        elif "default" in rule:
            values[name] = rule["default"]
    return values


def _checked(where: str, rule: Schema, value: Any) -> Any:
    kind = rule["type"]
    if kind == "integer":
        number = _number(value)
        if isinstance(number, int) and not isinstance(number, bool):
            return _in_range(where, rule, number)
    elif kind == "boolean":
        if isinstance(value, bool):
            return value
    elif isinstance(value, str):
        return _text(where, rule, value)
    raise UsageError(f"{where} must be {_NAMES[kind]}.")


def _number(value: Any) -> Any:
    """Models write numbers as texts, and whole ones with a point."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 12:
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _in_range(where: str, rule: Schema, value: int) -> int:
    if value < rule["minimum"]:
        raise UsageError(f"{where} is {value}; it must be at least {rule['minimum']}.")
    if value > rule.get("maximum", value):
        raise UsageError(f"{where} is {value}; it must be at most {rule['maximum']}.")
    return value


def _text(where: str, rule: Schema, value: str) -> str:
    if "enum" in rule and value not in rule["enum"]:
        raise UsageError(f"{where} is {value[:40]!r}; it must be one of {', '.join(rule['enum'])}.")
    # Half of a surrogate pair, which JSON can spell, is no text that a store or a tokenizer takes.
    value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if "\0" in value:
        raise UsageError(f"{where} holds a NUL character.")
    if len(value.strip()) < rule.get("minLength", 0):
        raise UsageError(f"{where} is empty.")
    if len(value) > rule.get("maxLength", len(value)):
        raise UsageError(f"{where} has {len(value):,} characters; it may have {rule['maxLength']:,}.")
    return value

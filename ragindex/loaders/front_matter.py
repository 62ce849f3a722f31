"""Front matter of Markdown files: its title, and its scalar keys as metadata (a small safe subset of YAML, or TOML)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ragindex.types import MetadataValue

__all__ = ["FrontMatter", "read_front_matter"]

_KEY = re.compile(r"([\w][\w .-]{0,79}?)[ \t]*:(?:[ \t]+|$)")
_LONGEST = 500


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """`stop` is the first line after the front matter, 0 when there is none."""

    stop: int = 0
    title: str = ""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


def read_front_matter(lines: Sequence[str]) -> FrontMatter:
    """Recognise `---` (YAML) and `+++` (TOML) blocks at the very start. What is not understood is left out.

    Lists of scalars become one string, joined with commas; nested tables are left out.
    """
    fence = lines[0].rstrip() if lines else ""
    if fence not in ("---", "+++"):
        return FrontMatter()
    for number in range(1, min(len(lines), _LONGEST)):
        if lines[number].rstrip() in (fence, "..." if fence == "---" else fence):
            body = lines[1:number]
            values = _toml(body) if fence == "+++" else _yaml(body)
            if not values and any(line.strip() for line in body):
                # Two thematic breaks around a paragraph are no front matter.
                return FrontMatter()
            title = values.pop("title", "")
            return FrontMatter(number + 1, str(title or ""), values)
    return FrontMatter()


def _toml(body: Sequence[str]) -> dict[str, MetadataValue]:
    try:
        table = tomllib.loads("\n".join(body))
    except tomllib.TOMLDecodeError:
        return {}
    found = {key: _flat(value) for key, value in table.items()}
    return {key: value for key, value in found.items() if value is not None}


def _flat(value: Any) -> MetadataValue:
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list):
        return ", ".join(str(item) for item in value if isinstance(item, str | int | float))
    return value.isoformat() if hasattr(value, "isoformat") else None


def _yaml(body: Sequence[str]) -> dict[str, MetadataValue]:
    values: dict[str, MetadataValue] = {}
    items: list[str] = []
    key = ""
    for line in body:
        if line.lstrip().startswith("- ") and key:
            items.append(str(_scalar(line.lstrip()[2:])))
            values[key] = ", ".join(items)
            continue
        match = _KEY.match(line)
        if match is None:
            continue
        key, items = match.group(1), []
        rest = line[match.end() :].strip()
        if rest[:1] == "[" and rest[-1:] == "]":
            values[key] = ", ".join(str(_scalar(item)) for item in rest[1:-1].split(",") if item.strip())
        elif rest[:1] not in ("{", "|", ">", "&", "*", "!"):
            values[key] = _scalar(rest)
    return values


def _scalar(raw: str) -> MetadataValue:
    raw = raw.strip()
    if len(raw) >= 2 and raw[0] == raw[-1] and raw[0] in "\"'":
        return raw[1:-1].replace("''", "'") if raw[0] == "'" else raw[1:-1].replace('\\"', '"')
    raw = re.split(r"[ \t]#", raw, maxsplit=1)[0].rstrip()
    if raw.lower() in ("true", "false"):
        return raw.lower() == "true"
    if re.fullmatch(r"[+-]?(?:0|[1-9]\d{0,14})", raw):
        return int(raw)
    if re.fullmatch(r"[+-]?\d{1,15}\.\d{1,15}", raw):
        return float(raw)
    return "" if raw.lower() in ("null", "~") else raw

"""JSON Lines: each record becomes one block of `key: value` lines that is cited by its line in the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ragindex.loaders.decode import decode
from ragindex.loaders.draft import Draft, Source, TextBuilder
from ragindex.types import MetadataValue

__all__ = ["parse"]

_DEEPEST = 8


def parse(source: Source) -> Draft:
    """A line that is not JSON is kept as it stands; `unreadable_lines` in the metadata counts such lines."""
    decoded = decode(source.data)
    builder = TextBuilder(source.limits)
    records = broken = 0
    for number, line in enumerate(decoded.text.split("\n"), start=1):
        if not line.strip():
            continue
        records += 1
        try:
            rendered = "\n".join(_render("", json.loads(line), 0))
        except (ValueError, RecursionError):
            broken += 1
            rendered = line.strip()
        rendered = rendered.replace("\r\n", "\n").replace("\r", "\n").strip("\n")
        builder.add(rendered, "table", lines=[number] * (rendered.count("\n") + 1))
    metadata: dict[str, MetadataValue] = {"encoding": decoded.encoding, "rows": records}
    if broken:
        metadata["unreadable_lines"] = broken
    return builder.finish(metadata=metadata)


def _render(key: str, value: Any, depth: int) -> Iterator[str]:
    """Lines for a value; nested keys are joined by dots, lists of plain values by commas."""
    if isinstance(value, dict) and depth < _DEEPEST:
        for name, inner in value.items():
            yield from _render(f"{key}.{name}" if key else str(name), inner, depth + 1)
    elif isinstance(value, list) and depth < _DEEPEST and any(isinstance(item, dict | list) for item in value):
        for item in value:
            yield from _render(key, item, depth + 1)
    else:
        text = _plain(value)
        if text:
            yield f"{key}: {text}" if key else text


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return ", ".join(_plain(item) for item in value)
    return json.dumps(value, ensure_ascii=False)

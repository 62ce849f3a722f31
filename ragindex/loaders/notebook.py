"""Jupyter notebooks: Markdown and code cells with short text outputs, cited by their lines in the file."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from ragindex.errors import LoadError
from ragindex.loaders.decode import decode
from ragindex.loaders.draft import Draft, Outline, Source, TextBuilder, blocks_between
from ragindex.loaders.markdown import Scan

__all__ = ["parse"]

_LONGEST_OUTPUT = 2000
_WINDOW = 1_000_000
_ESCAPES = re.compile(r"\x1b\[[0-9;?]{0,30}[A-Za-z]")


def parse(source: Source) -> Draft:
    """The title is the first level-1 heading; `kernel_language` is what the notebook says of itself."""
    decoded = decode(source.data)
    try:
        notebook = json.loads(decoded.text) if decoded.text.strip() else {}
    except ValueError as error:
        raise LoadError("not a notebook: its JSON is broken") from error
    if not isinstance(notebook, dict):
        raise LoadError("not a notebook: it is not a JSON object")
    cells = notebook.get("cells")
    if not isinstance(cells, list):
        # Format 3 and older keep the cells in worksheets.
        sheets = [sheet for sheet in _items(notebook.get("worksheets")) if isinstance(sheet, dict)]
        cells = [cell for sheet in sheets for cell in _items(sheet.get("cells"))]
    reader = _Reader(TextBuilder(source.limits), decoded.text)
    for cell in cells:
        if isinstance(cell, dict):
            reader.cell(cell)
    metadata = {"encoding": decoded.encoding, "kernel_language": _language(notebook), "cells": len(cells)}
    return reader.builder.finish(title=reader.title, metadata=metadata)


class _Reader:
    def __init__(self, builder: TextBuilder, raw: str) -> None:
        self.builder = builder
        self.title = ""
        self._raw = raw
        self._cursor = 0
        self._line = 1
        self._outline = Outline()

    def cell(self, cell: dict[str, Any]) -> None:
        text = _joined(cell.get("source", cell.get("input"))).strip("\n")
        kind = cell.get("cell_type")
        if kind == "markdown":
            self._markdown(text)
        elif kind == "heading":
            level = cell.get("level")
            self._heading(level if isinstance(level, int) else 1, text)
        elif kind == "code":
            self._add(text, "code")
            for output in _items(cell.get("outputs")):
                if isinstance(output, dict):
                    self._add(_output(output), "code")
        else:
            self._add(text, "prose")

    def _markdown(self, text: str) -> None:
        lines = text.split("\n")
        scanned = Scan(lines, outline=self._outline)
        self.title = self.title or scanned.title
        for block in blocks_between(lines, scanned.cuts):
            piece = text[block.start : block.end]
            self.builder.add(piece, block.kind, block.heading, lines=self._locate(piece))

    def _heading(self, level: int, text: str) -> None:
        above = self._outline.enter(level, text.strip())
        self.builder.add(text, "heading", above, lines=self._locate(text))

    def _add(self, text: str, kind: Any) -> None:
        text = text.strip("\n").rstrip()
        if text.strip():
            self.builder.add(text, kind, self._outline.path, lines=self._locate(text))

    def _locate(self, text: str) -> list[int]:
        """The line in the JSON of each line of a cell: they stand there in order, as JSON strings."""
        return [self._locate_line(line) for line in text.split("\n")]

    def _locate_line(self, line: str) -> int:
        if line.strip():
            for form in {json.dumps(line, ensure_ascii=False)[1:-1]: None, json.dumps(line)[1:-1]: None}:
                found = self._raw.find(form, self._cursor, self._cursor + _WINDOW)
                if found >= 0:
                    self._line += self._raw.count("\n", self._cursor, found + len(form))
                    self._cursor = found + len(form)
                    break
        return self._line


def _output(output: dict[str, Any]) -> str:
    """Text output, cut when long: tables of thousands of rows say less than the code that printed them."""
    data = output.get("data")
    text = _joined(output.get("text")) or (_joined(data.get("text/plain")) if isinstance(data, dict) else "")
    text = _ESCAPES.sub("", text)
    return text if len(text) <= _LONGEST_OUTPUT else text[:_LONGEST_OUTPUT].rsplit("\n", 1)[0] + "\n…"


def _joined(value: Any) -> str:
    text = "".join(str(item) for item in value) if isinstance(value, list) else value
    return text.replace("\r\n", "\n").replace("\r", "\n") if isinstance(text, str) else ""


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _language(notebook: dict[str, Any]) -> str | None:
    metadata = notebook.get("metadata")
    for key, name in (("language_info", "name"), ("kernelspec", "language")):
        section = metadata.get(key) if isinstance(metadata, dict) else None
        if isinstance(section, dict) and isinstance(section.get(name), str):
            return str(section[name])
    return None

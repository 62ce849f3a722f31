"""What may be written to a terminal and how wide it is: styles, links, display cells, neutral text, JSON."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import click

from ragindex.cli.exit_codes import PIPE_CLOSED

__all__ = [
    "Terminal",
    "cells",
    "emit",
    "emit_json",
    "neutral",
    "note",
    "note_interrupt",
    "one_line",
    "shorten",
    "shorten_left",
    "terminal_for",
    "wrap",
]

_WIDEST = 100  # longer lines are hard to read
_BIDI = dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF])
# Control characters become visible pictures: a document must not be able to talk to the terminal it is shown on.
_NEUTRAL: Mapping[int, str | None] = (
    {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
    | {0x7F: "\u2421", 0x2028: "\n", 0x2029: "\n"}
    | dict.fromkeys((*range(0x80, 0xA0), *range(0xD800, 0xE000)), "\ufffd")
    | _BIDI
)
_BARE_JSON = re.compile(
    "[\x7f-\x9f\u2028\u2029\ud800-\udfff]"
)  # legal in JSON text, but not on every stream or terminal


@dataclass(frozen=True, slots=True)
class Terminal:
    """An output stream as far as text cares: may it be styled, and how many cells does a line have."""

    styled: bool
    width: int

    def bold(self, text: str) -> str:
        """Emphasis, where there are styles."""
        return f"\x1b[1m{text}\x1b[22m" if self.styled else text

    def dim(self, text: str) -> str:
        """Less than plain, where there are styles."""
        return f"\x1b[2m{text}\x1b[22m" if self.styled else text

    def link(self, text: str, target: Path) -> str:
        """An OSC 8 hyperlink to a file, where there are styles."""
        return f"\x1b]8;;{target.as_uri()}\x1b\\{text}\x1b]8;;\x1b\\" if self.styled else text


def terminal_for(stream: TextIO, environment: Mapping[str, str]) -> Terminal:
    """How to write to `stream`: plain unless it is a terminal, and plain there too under NO_COLOR or TERM=dumb."""
    terminal = stream.isatty()
    plain = bool(environment.get("NO_COLOR")) or environment.get("TERM") == "dumb"
    width = shutil.get_terminal_size().columns if terminal else 80
    return Terminal(styled=terminal and not plain, width=max(40, min(width, _WIDEST)))


def neutral(text: str) -> str:
    """`text` with nothing in it that a terminal would obey; line breaks and tabs stay."""
    return text.replace("\r\n", "\n").translate(_NEUTRAL)


def one_line(text: str) -> str:
    """`neutral` text with all white space folded into single spaces."""
    return " ".join(neutral(text).split())


def cells(text: str) -> int:
    """How many columns a terminal needs for `text`: 2 for wide characters, 0 for combining ones."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(character) for character in text)


def wrap(line: str, width: int) -> list[str]:
    """Cut one line into rows of at most `width` cells, at spaces where there are any; a blank line gives no row."""
    rows: list[str] = []
    rest = line.rstrip()
    indent = rest[: len(rest) - len(rest.lstrip())][: width // 2]
    while cells(rest) > width:
        cut = _fitting(rest, width)
        space = rest.rfind(" ", len(indent) + 1, cut + 1)
        cut = space if space > 0 else cut
        rows.append(rest[:cut].rstrip())
        rest = indent + rest[cut:].lstrip()
    return [*rows, rest] if rest.strip() else rows


def shorten(text: str, width: int) -> str:
    """`text` on at most `width` cells, an ellipsis in place of its end."""
    if cells(text) <= width:
        return text
    return text[: _fitting(text, width - 1)].rstrip() + "…"


def shorten_left(text: str, width: int) -> str:
    """`text` on at most `width` cells, an ellipsis in place of its beginning."""
    if cells(text) <= width:
        return text
    return "…" + text[::-1][: _fitting(text[::-1], width - 1)][::-1].lstrip()


def emit(lines: Iterable[str] | str) -> None:
    """Write results to stdout. When the reader has gone away, end quietly."""
    text = lines if isinstance(lines, str) else "\n".join(lines)
    try:
        click.echo(text)
    except BrokenPipeError as error:
        with suppress(OSError, ValueError):  # what is still buffered would fail once more when Python exits
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(PIPE_CLOSED) from error


def emit_json(value: Any) -> None:
    """Write one JSON value to stdout; characters that a stream or terminal may not take are escaped."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:  # metadata of a document may hold NaN, which JSON cannot say
        text = json.dumps(_without_nan(value), ensure_ascii=False, default=str)
    emit(_BARE_JSON.sub(lambda match: f"\\u{ord(match.group()):04x}", text))


def note(message: str) -> None:
    """One line on stderr."""
    with suppress(BrokenPipeError):
        click.echo(one_line(message), err=True)


def note_interrupt(message: str) -> None:
    """`note` below the ^C that a terminal shows."""
    if sys.stderr.isatty():
        click.echo(err=True)
    note(message)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cells_of(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in {"Cf", "Me", "Mn"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _fitting(text: str, width: int) -> int:
    """How many characters from the start fit in `width` cells; at least one, so that cutting makes headway."""
    used = 0
    for position, character in enumerate(text):
        used += _cells_of(character)
        if used > width:
            return max(1, position)
    return len(text)

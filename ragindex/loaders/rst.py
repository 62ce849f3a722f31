"""reStructuredText: section titles by their underlines, literal blocks, tables, lists. The text is the file's own."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ragindex.loaders.decode import decode
from ragindex.loaders.draft import Cut, Draft, Outline, Source, blocks_between, check_length
from ragindex.types import BlockKind

__all__ = ["parse"]

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1+[ \t]*$")
_ITEM = re.compile(r"[ \t]*(?:[-*+•]|\(?(?:\d{1,9}|#|[A-Za-z])[.)])[ \t]+\S")
_TABLE = re.compile(r"[ \t]*(?:\+[-=+]+\+|=+(?:[ \t]+=+)+)[ \t]*$")
_CODE = re.compile(r"[ \t]*\.\. (?:code|code-block|sourcecode|literalinclude|parsed-literal|prompt|doctest|math)::")
_ROLE = re.compile(r":[\w:.+-]{1,60}:`([^`<]{1,300})(?:<[^`>]{0,300}>)?`")


def parse(source: Source) -> Draft:
    """The title is the first section title."""
    decoded = decode(source.data)
    check_length(len(decoded.text), source.limits)
    lines = decoded.text.split("\n")
    reader = _Reader(lines)
    return Draft(
        decoded.text, reader.title, blocks_between(lines, reader.cuts), metadata={"encoding": decoded.encoding}
    )


class _Reader:
    """Walks the lines once. Levels are given to underline styles in the order in which they appear."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.cuts: list[Cut] = []
        self.title = ""
        self._lines = lines
        self._outline = Outline()
        self._styles: list[str] = []
        number = 0
        while number < len(lines):
            number = self._step(number)

    def _step(self, number: int) -> int:
        line = self._lines[number]
        if not line.strip():
            return number + 1
        if self._overlined(number):
            return self._section(number, number + 1, line.strip()[0] * 2, number + 3)
        if self._underlined(number):
            return self._section(number, number, self._lines[number + 1].strip()[0], number + 2)
        if _TABLE.match(line):
            return self._block(number, self._table_end(number), "table")
        if _CODE.match(line):
            return self._block(number, self._indented_end(number + 1, _indent(line)), "code")
        stop = self._paragraph_end(number)
        kind: BlockKind = "list" if _ITEM.match(line) else "prose"
        self._block(number, stop, kind)
        if self._lines[stop - 1].rstrip().endswith("::") and not self._lines[stop - 1].lstrip().startswith(".. "):
            literal = self._indented_end(stop, _indent(self._lines[stop - 1]))
            if any(self._lines[at].strip() for at in range(stop, literal)):
                return self._block(stop, literal, "code")
        return stop

    def _section(self, first: int, titled: int, style: str, stop: int) -> int:
        title = _ROLE.sub(r"\1", self._lines[titled]).replace("`", "").replace("**", "").strip()
        if style not in self._styles:
            self._styles.append(style)
        above = self._outline.enter(self._styles.index(style), title)
        self.cuts.append(Cut(first, "heading", above))
        self.title = self.title or title
        return stop

    def _block(self, first: int, stop: int, kind: BlockKind) -> int:
        self.cuts.append(Cut(first, kind, self._outline.path))
        return stop

    def _underlined(self, number: int) -> bool:
        if number + 1 >= len(self._lines) or self._lines[number][:1] in (" ", "\t"):
            return False
        title, under = self._lines[number].rstrip(), self._lines[number + 1].rstrip()
        if _ADORNMENT.match(title) and len(title) > 3:
            return False
        # Writers miscount by a character or two; wide characters count double.
        return _ADORNMENT.match(under) is not None and len(under) >= max(2, len(title) - 2)

    def _overlined(self, number: int) -> bool:
        if number + 2 >= len(self._lines):
            return False
        over, title, under = (text.rstrip() for text in self._lines[number : number + 3])
        return bool(_ADORNMENT.match(over)) and over == under and bool(title.strip()) and not _TABLE.match(over)

    def _paragraph_end(self, number: int) -> int:
        number += 1
        while number < len(self._lines) and self._lines[number].strip():
            if self._underlined(number) or _TABLE.match(self._lines[number]):
                break
            number += 1
        return number

    def _table_end(self, number: int) -> int:
        """A grid table ends at an empty line; a simple one may hold them, and ends at its last rule."""
        simple = self._lines[number].lstrip().startswith("=")
        last = number + 1
        while number < len(self._lines) and (simple or self._lines[number].strip()):
            if not simple:
                last = number + 1
            elif _TABLE.match(self._lines[number]):
                last = number + 1
                if last >= len(self._lines) or not self._lines[last].strip():
                    return last
            elif self._lines[number][:1] not in (" ", "\t", "") and self._underlined(number):
                return last
            number += 1
        return last

    def _indented_end(self, number: int, indent: int) -> int:
        while number < len(self._lines) and (not self._lines[number].strip() or _indent(self._lines[number]) > indent):
            number += 1
        return number


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))

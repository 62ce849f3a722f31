"""Markdown: heading paths, front matter, fenced and indented code, tables, lists. The text is the file's own."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ragindex.loaders.decode import decode
from ragindex.loaders.draft import Cut, Draft, Outline, Source, blocks_between, check_length
from ragindex.loaders.front_matter import read_front_matter
from ragindex.types import BlockKind

__all__ = ["Scan", "parse"]

_FENCE = re.compile(r"[ \t>]*(?:[-*+][ \t]+|\d{1,9}[.)][ \t]+)?(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+|$)")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)")
_TABLE_RULE = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
_BREAK = re.compile(r" {0,3}(?:(?:\*[ \t]*){3,}|(?:_[ \t]*){3,}|(?:-[ \t]*){3,})$")
_LINK = re.compile(r"!?\[([^\[\]]{0,500})\](?:\([^()]{0,1000}\)|\[[^\[\]]{0,500}\])")
_MARKS = re.compile(r"\*\*|__|`|(?<!\w)[*_](?=\S)|(?<=\S)[*_](?!\w)|\{#[\w-]{1,200}\}\s*$")
_LONGEST_SCANNED = 2000


def parse(source: Source) -> Draft:
    """The title is the front matter's, else the first heading of level 1; scalar front matter keys become metadata."""
    decoded = decode(source.data)
    check_length(len(decoded.text), source.limits)
    lines = decoded.text.split("\n")
    front = read_front_matter(lines)
    scanned = Scan(lines, first=front.stop)
    cuts = ([Cut(0, "table")] if front.stop else []) + scanned.cuts
    metadata = {**front.metadata, "encoding": decoded.encoding}
    return Draft(decoded.text, front.title or scanned.title, blocks_between(lines, cuts), metadata=metadata)


class Scan:
    """Walks the lines once, below the headings that `outline` has open.

    `cuts` are where blocks begin, `title` is the first level-1 heading.
    """

    def __init__(self, lines: Sequence[str], *, first: int = 0, outline: Outline | None = None) -> None:
        self.cuts: list[Cut] = []
        self.title = ""
        self._lines = lines
        self._outline = outline or Outline()
        self._open: BlockKind | None = None
        number = first
        while number < len(lines):
            number = self._step(number)

    def _step(self, number: int) -> int:
        # A pattern is never run over a whole giant line; what it looks for stands at the start.
        line = self._lines[number][:_LONGEST_SCANNED]
        if not line.strip():
            return self._blank(number)
        fence = _FENCE.match(line)
        if fence and not (fence.group(1)[0] == "`" and "`" in line[fence.end() :]):
            return self._until(number, _fence_end(self._lines, number, fence.group(1)), "code")
        if self._open is None and line.startswith(("    ", "\t")):
            return self._until(number, _indented_end(self._lines, number), "code")
        heading = _ATX.match(line)
        if heading:
            self._heading(number, len(heading.group(1)), _atx_title(line[heading.end() :]))
            return number + 1
        if self._open is None and not _ITEM.match(line):
            underline = self._setext(number)
            if underline:
                level = 1 if self._lines[underline].lstrip().startswith("=") else 2
                self._heading(number, level, " ".join(text.strip() for text in self._lines[number:underline]))
                return underline + 1
        if self._open != "list" and self._is_table(number):
            return self._until(number, _table_end(self._lines, number), "table")
        if self._open is None or (self._open == "prose" and _ITEM.match(line) and not _BREAK.match(line)):
            kind: BlockKind = "list" if _ITEM.match(line) and not _BREAK.match(line) else "prose"
            self._cut(number, kind)
            self._open = kind
        return number + 1

    def _blank(self, number: int) -> int:
        """A list goes on after a blank line when an item or an indented line follows."""
        following = number + 1
        while following < len(self._lines) and not self._lines[following].strip():
            following += 1
        if self._open == "list" and following < len(self._lines):
            after = self._lines[following]
            if after[:1] in (" ", "\t") or (_ITEM.match(after) and not _BREAK.match(after[:_LONGEST_SCANNED])):
                return following
        self._open = None
        return following

    def _setext(self, number: int) -> int:
        """The line that underlines the paragraph which begins at `number`, or 0."""
        for following in range(number + 1, min(number + 8, len(self._lines))):
            line = self._lines[following][:_LONGEST_SCANNED]
            if not line.strip() or _ATX.match(line) or _FENCE.match(line) or _ITEM.match(line):
                return 0
            if _UNDERLINE.match(line):
                return 0 if "|" in self._lines[following - 1] and "-" in line and following == number + 1 else following
        return 0

    def _is_table(self, number: int) -> bool:
        if number + 1 >= len(self._lines) or "|" not in self._lines[number]:
            return False
        rule = self._lines[number + 1][:_LONGEST_SCANNED]
        return "-" in rule and "|" in rule and _TABLE_RULE.match(rule) is not None

    def _until(self, number: int, stop: int, kind: BlockKind) -> int:
        self._cut(number, kind)
        self._open = None
        return stop

    def _heading(self, number: int, level: int, title: str) -> None:
        title = _plain(title)
        above = self._outline.enter(level, title)
        self.cuts.append(Cut(number, "heading", above))
        self._open = None
        if level == 1 and not self.title:
            self.title = title

    def _cut(self, number: int, kind: BlockKind) -> None:
        self.cuts.append(Cut(number, kind, self._outline.path))


def _fence_end(lines: Sequence[str], number: int, fence: str) -> int:
    for following in range(number + 1, len(lines)):
        line = lines[following].strip(" \t>")
        if line.startswith(fence) and not line.strip(fence[0]):
            return following + 1
    return len(lines)


def _indented_end(lines: Sequence[str], number: int) -> int:
    while number < len(lines) and (lines[number].startswith(("    ", "\t")) or not lines[number].strip()):
        number += 1
    return number


def _table_end(lines: Sequence[str], number: int) -> int:
    while number < len(lines) and lines[number].strip():
        if _ATX.match(lines[number]) or _FENCE.match(lines[number][:_LONGEST_SCANNED]):
            break
        number += 1
    return number


def _atx_title(rest: str) -> str:
    rest = rest.strip()
    bare = rest.rstrip("#")
    return bare.rstrip() if bare != rest and (not bare or bare[-1] in " \t") else rest


def _plain(title: str) -> str:
    """A heading as a reader sees it: links become their text, emphasis and code marks go."""
    return _MARKS.sub("", _LINK.sub(r"\1", title)).strip()

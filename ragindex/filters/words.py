"""Cuts the text of a filter into words, values and marks."""

from __future__ import annotations

import re
from typing import NamedTuple

from ragindex.errors import FilterSyntaxError
from ragindex.types import MetadataValue

__all__ = ["CONSTANTS", "KEYWORDS", "WORD", "Token", "syntax_error", "tokens"]

KEYWORDS = frozenset({"and", "between", "contains", "empty", "false", "in", "is", "like", "not", "null", "or", "true"})
CONSTANTS: tuple[tuple[str, MetadataValue], ...] = (("true", True), ("false", False), ("null", None))
WORD = re.compile(r"[^\W\d][\w.-]*")
_SPELLINGS = {"==": "=", "<>": "!="}
_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<string>'(?:[^']|'')*'|"(?:[^"]|"")*")
    | (?P<quoted>`(?:[^`]|``)+`)
    | (?P<number>[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<word>[^\W\d][\w.-]*)
    | (?P<mark><=|>=|<>|!=|==|[=<>(),])
    """,
    re.VERBOSE,
)


class Token(NamedTuple):
    """A piece of the text; `column` counts from 0."""

    kind: str  # string, number, quoted, word, keyword, mark, end
    text: str
    column: int

    def is_(self, *texts: str) -> bool:
        """Whether this is one of these keywords or marks."""
        return self.kind in {"keyword", "mark"} and self.text in texts


def tokens(text: str) -> list[Token]:
    """The tokens of a filter, closed by one of kind `end`. Raises FilterSyntaxError at what is no token."""
    result: list[Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            what = "a closing quote" if text[position] in "'\"`" else "a field, a value or an operator"
            raise syntax_error(position, what, repr(text[position]))
        kind, piece = match.lastgroup, match.group()
        if kind == "word" and piece.lower() in KEYWORDS:
            kind, piece = "keyword", piece.lower()
        if kind != "space":
            result.append(Token(kind, _SPELLINGS.get(piece, piece), position))
        position = match.end()
    result.append(Token("end", "", len(text)))
    return result


def syntax_error(position: int, expected: str, found: str) -> FilterSyntaxError:
    """The error for a position, counted from 0."""
    return FilterSyntaxError(f"Filter, column {position + 1}: expected {expected}, found {found}.")

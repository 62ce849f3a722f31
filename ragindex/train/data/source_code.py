"""Definitions in program text that say what they do: docstrings of Python, doc comments of other languages."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ragindex.loaders.code import definition_cuts
from ragindex.loaders.formats import format_of
from ragindex.train.data.prose import is_legal, is_prose, plain
from ragindex.types import Document

__all__ = ["Documented", "documented", "language_of", "spoken"]

_PYTHON_START = re.compile(r"(?:def|class|async def|import|from|@\w[\w.]*\(?)\s*\w")
_LONGEST_AST = 4_000_000
_FEWEST = 3  # words of a description
_COMMENT = re.compile(r"\s*(?://[/!]?|/\*\*?|\*/|\*|#(?![!\[])|--|;;+|%)\s?")
_TAG = re.compile(r"\s*(?:[@\\:](?:param|return|throws|raise|type|rtype|see|since|author|deprecated|brief|arg)\w*\b|<)")
_FIELD = re.compile(
    r"\s*(?::(?:param|parameter|arg|argument|key|keyword|type|returns?|rtype|raises?|except|[ic]?var|meta|yields?)\b|"
    r"\.\.\s|>>>|@\w+|[-=~]{4,}|(?:args|arguments|parameters|params|returns?|raises|yields?|examples?|notes?|see also|"
    r"attributes|usage|todo)\s*:?\s*$)",
    re.IGNORECASE,
)
_HUMPS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


@dataclass(frozen=True, slots=True)
class Documented:
    """A class or function with its description. path: its name below the names around it; code: without the
    description; whole: with it.
    """

    path: tuple[str, ...]
    description: str
    code: str
    whole: str


def language_of(document: Document) -> str:
    """The programming language of a document; empty for prose. A text without a file name is looked at."""
    known = format_of(Path(document.path))
    if known is not None:
        return known.language
    start = document.text[:200].lstrip()
    if _PYTHON_START.match(start) and _tree(document.text) is not None:
        return "python"
    return ""


def documented(document: Document, language: str) -> list[Documented]:
    """The documented definitions of a program text, in order."""
    tree = _tree(document.text) if language == "python" else None
    lines = document.text.split("\n")
    if tree is not None:
        return list(_python(tree.body, lines, ()))
    return list(_commented(lines, PurePosixPath(document.path).suffix.lower()))


def spoken(path: Sequence[str]) -> str:
    """A name as one would say it: ("HttpClient", "send_all") is "http client send all"."""
    parts = [hump.lower() for name in path for hump in _HUMPS.findall(name)]
    return " ".join(parts)


def _tree(text: str) -> ast.Module | None:
    if len(text) > _LONGEST_AST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _python(body: Sequence[ast.stmt], lines: Sequence[str], outer: tuple[str, ...]) -> Iterator[Documented]:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        path = (*outer, node.name)
        description = _description((ast.get_docstring(node) or "").split("\n"))
        if description:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1
            docstring = node.body[0]
            last = node.end_lineno or first + 1
            without = [*lines[first : docstring.lineno - 1], *lines[docstring.end_lineno : last]]
            yield Documented(path, description, _dedented(without), _dedented(lines[first:last]))
        if isinstance(node, ast.ClassDef):
            yield from _python(node.body, lines, path)


def _commented(lines: Sequence[str], suffix: str) -> Iterator[Documented]:
    cuts = definition_cuts(lines, suffix)
    stops = [*(cut.line for cut in cuts[1:]), len(lines)]
    for cut, stop in zip(cuts, stops, strict=True):
        if not cut.heading:
            continue
        block = list(lines[cut.line : stop])
        comments = []
        for line in block:
            if not _COMMENT.match(line):
                break
            comments.append(_COMMENT.sub("", line, count=1).removesuffix("*/"))
        description = _description(comments)
        if description:
            yield Documented(cut.heading, description, _dedented(block[len(comments) :]), _dedented(block))


def _description(lines: Sequence[str]) -> str:
    """The prose of a docstring or comment, paragraphs kept, as far as the first list of parameters or example; empty
    when it says nothing.
    """
    kept: list[str] = []
    for line in lines:
        if _TAG.match(line) or _FIELD.match(line):
            if any(each.strip() for each in kept):
                break
            continue
        kept.append(line.rstrip())
    text = "\n".join(kept).strip()
    return text if is_prose(plain(text), fewest=_FEWEST) and not is_legal(text) else ""


def _dedented(lines: Sequence[str]) -> str:
    return textwrap.dedent("\n".join(lines)).strip("\n").rstrip()

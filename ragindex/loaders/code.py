"""Program text: one block for each definition, headed by the names of its class and function.

Python is read with `ast`. Other languages are cut where a line at a definition's indentation begins one: enough for
retrieval, with no grammar to maintain for each of forty languages.
"""

from __future__ import annotations

import ast
import re
import threading
import warnings
from collections.abc import Sequence

from ragindex.loaders.decode import decode
from ragindex.loaders.draft import Cut, Draft, Source, blocks_between, check_length
from ragindex.loaders.text import paragraph_cuts
from ragindex.loaders.words import words

__all__ = ["definition_cuts", "parse"]

_PYTHON = (".py", ".pyi", ".pyw")
_DATA = words(
    ".json .geojson .jsonc .json5 .yaml .yml .toml .ini .cfg .conf .properties .editorconfig",
    ".xml .xsd .xsl .xslt .rss .atom .plist .css .scss .sass .less .tf .hcl .cmake .mk .mak .bat .cmd",
)
_UNTYPED = words(".rb .rake .lua .jl .r .hs .ml .ex .exs .pl .go")
_SHELLS = words(".sh .bash .zsh .ksh")
_ONE_AT_A_TIME = threading.Lock()
_LARGEST_AST = 4_000_000
_LONGEST_SCANNED = 400

_MODIFIERS = (
    r"(?:(?:export|default|public|private|protected|internal|static|abstract|final|async|unsafe|extern|inline|virtual"
    r"|override|sealed|open|data|partial|declare|const|constexpr|suspend|local|readonly|mutating|fileprivate"
    r'|pub(?:\([\w:. ]{1,40}\))?|extern "C")[ \t]+)*'
)
_CONTAINER = re.compile(
    rf"[ \t]*{_MODIFIERS}(?:class|interface|struct|enum|trait|impl|namespace|module|object|protocol|extension|record"
    r"|union|service|message|defmodule|contract|actor)(?:<[^>]{0,80}>)?[ \t]+(?P<name>[A-Za-z_$][\w$.:<>, ]{0,100}?)"
    r"[ \t]*(?:[({=\[]|$|extends\b|implements\b|where\b|do\b|final\b|:)"
)
_FUNCTION = re.compile(
    rf"[ \t]*{_MODIFIERS}(?:function\*?|func|fn|def|defp|fun|sub|proc|procedure|macro_rules!|defn|type|typealias"
    r"|task|rpc)[ \t]+(?:\([^()]{0,100}\)[ \t]*)?(?:<[^>]{0,80}>[ \t]*)?(?P<name>[A-Za-z_$][\w$.:!?]{0,100})"
)
_ASSIGNED = re.compile(
    rf"[ \t]*{_MODIFIERS}(?:const|let|var|val)[ \t]+(?P<name>[\w$]{{1,100}})[^=\n]{{0,100}}=[ \t]*"
    r"(?:async[ \t]*)?(?:function\b|\([^()]{0,200}\)[^=\n]{0,60}=>|[\w$]{1,60}[ \t]*=>|class\b)"
)
# A type, a name and an argument list: C, C++, Java, C#; and methods of JavaScript, which have no type.
_CALLABLE = re.compile(
    r"[ \t]*(?P<type>[A-Za-z_][\w:<>,.*&\[\]?@ \t]{0,160}[ \t*&])?"
    r"(?P<name>(?:[A-Za-z_$][\w$]{0,60}::){0,4}~?[A-Za-z_$#][\w$]{0,60})[ \t]*\([^;]{0,300}$"
)
_SHELL = re.compile(
    r"(?:function[ \t]+(?=[\w.-]{1,80}[ \t]*(?:\(\)|\{|$))|(?=[\w.-]{1,80}[ \t]*\(\)))(?P<name>[\w.-]{1,80})"
)
_SQL = re.compile(
    r"(?:create|alter)[ \t]+(?:(?:or[ \t]+replace|temp|temporary|unique|materialized|virtual)[ \t]+)?"
    r"(?:table|view|function|procedure|trigger|index|type|schema)[ \t]+(?:if[ \t]+not[ \t]+exists[ \t]+)?"
    r"(?P<name>[\w.\"`\[\]]{1,120})",
    re.IGNORECASE,
)
_NOT_A_NAME = words(
    "if for while switch return else catch do try case throw new sizeof with await yield assert elif unless until",
    "match when delete typeof import require using defer go select in and or not super this print echo",
)
_COMMENT = re.compile(r"[ \t]*(?://|/\*|\*|#(?!include|define|if|endif|pragma|else|!)|--|;;|@|\[\w|template[ \t]*<|%)")


def parse(source: Source) -> Draft:
    """The text is the file's own; program text has no title."""
    decoded = decode(source.data)
    check_length(len(decoded.text), source.limits)
    lines = decoded.text.split("\n")
    cuts = _cuts(decoded.text, lines, source.suffix)
    return Draft(decoded.text, blocks=blocks_between(lines, cuts), metadata={"encoding": decoded.encoding})


def _cuts(text: str, lines: Sequence[str], suffix: str) -> list[Cut]:
    if suffix in _DATA or not suffix:
        return paragraph_cuts(lines, "code")
    if suffix in _PYTHON and len(text) <= _LARGEST_AST:
        try:
            return _python_cuts(text, lines)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            # Python 2, a template, a fragment: read it like any other language.
            return definition_cuts(lines, suffix)
    return definition_cuts(lines, suffix)


def _python_cuts(text: str, lines: Sequence[str]) -> list[Cut]:
    # The filter of warnings belongs to the process: two threads that change it at once can leave it changed.
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        # Invalid escapes in other people's code are not this program's business.
        warnings.simplefilter("ignore")
        tree = ast.parse(text)
    cuts = [Cut(0, "code")]
    _add_body(tree.body, lines, (), cuts)
    return cuts


def _add_body(body: Sequence[ast.stmt], lines: Sequence[str], heading: tuple[str, ...], cuts: list[Cut]) -> None:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
        inner = (*heading, node.name)
        cuts.append(Cut(_above(lines, first), "code", inner))
        if isinstance(node, ast.ClassDef):
            _add_body(node.body, lines, inner, cuts)
        # A definition on the line where this one ends (`;`) begins later in the list and wins.
        cuts.append(Cut(node.end_lineno or first + 1, "code", heading))


def definition_cuts(lines: Sequence[str], suffix: str) -> list[Cut]:
    """Cuts at definitions, nested ones only directly inside of a container (class, module, impl, …)."""
    cuts = [Cut(0, "code")]
    outer: list[tuple[int, str, bool]] = []
    member: int | None = None
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip(" \t"))
        if outer and depth > outer[-1][0] and not outer[-1][2]:
            continue
        head = line[:_LONGEST_SCANNED]
        name, container = _definition(head, suffix)
        if not name:
            if outer and outer[-1][2] and depth > outer[-1][0] and member is None:
                member = depth
            continue
        while outer and outer[-1][0] >= depth:
            outer.pop()
            member = None
        if outer and member is not None and depth > member:
            continue
        if not outer and depth > 0 and suffix != ".sql":
            continue
        path = (*(above for _, above, _ in outer), name)
        cuts.append(Cut(_above(lines, number), "code", path))
        outer.append((depth, name, container))
        member = None
    return cuts


def _definition(line: str, suffix: str) -> tuple[str, bool]:
    """The name that a line defines and whether it contains further definitions; an empty name when it defines none."""
    container = _CONTAINER.match(line)
    if container:
        return " ".join(container["name"].split()), True
    for pattern in _patterns(suffix):
        found = pattern.match(line)
        if found and not (pattern is _CALLABLE and _is_call(found)):
            return found["name"].strip('"`[]'), False
    return "", False


def _patterns(suffix: str) -> Sequence[re.Pattern[str]]:
    if suffix in _SHELLS:
        return (_SHELL,)
    if suffix == ".sql":
        return (_SQL,)
    return (_FUNCTION, _ASSIGNED) if suffix in _UNTYPED else (_FUNCTION, _ASSIGNED, _CALLABLE)


def _is_call(found: re.Match[str]) -> bool:
    """Whether `name(` calls instead of defining: nothing that could be a type before it, and no body after it."""
    words_before = (found["type"] or "").split()
    if found["name"] in _NOT_A_NAME or (words_before and words_before[0] in _NOT_A_NAME):
        return True
    return not words_before and "::" not in found["name"] and not found.string.rstrip().endswith("{")


def _above(lines: Sequence[str], first: int) -> int:
    """Comments, attributes and decorators directly above a definition belong to it."""
    while first > 0 and _COMMENT.match(lines[first - 1][:_LONGEST_SCANNED]):
        first -= 1
    return first

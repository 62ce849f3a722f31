"""Which file names are supported, and what each means: media type, parser module, programming language, isolation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ragindex.loaders.words import words

__all__ = ["Format", "format_of", "mime_type", "supported"]

_LARGE_PAGE = 1 << 20


@dataclass(frozen=True, slots=True)
class Format:
    """How a kind of file is read.

    module: the parser, a module of `ragindex.loaders` with `parse(source)`. language: of program text, else empty.
    isolate_above: files of more bytes are parsed in a killable subprocess; None parses every size in this process.
    """

    module: str
    mime: str
    language: str = ""
    isolate_above: int | None = None


def format_of(path: Path) -> Format | None:
    """The format of a file, judged by its name alone; None when it is not supported."""
    return _format_of_name(path.name)


def _format_of_name(name: str) -> Format | None:
    known = _NAMES.get(name.lower())
    if known is not None:
        return known
    dot = name.rfind(".")
    if 0 < dot < len(name) - 1:
        # README.de and COPYING.LESSER are text; capitals tell them from build products such as version.o.
        stem = name.partition(".")[0]
        return _SUFFIXES.get(name[dot:].lower()) or (_TEXT if stem.isupper() and stem.lower() in _STEMS else None)
    return None


def supported(path: Path | str) -> bool:
    """Whether there is a parser for files of this name."""
    name = path if isinstance(path, str) else path.name
    # Asked of every file of a walk: the common case first.
    return (name[name.rfind(".") :] in _SUFFIXES and name[:1] != ".") or _format_of_name(name) is not None


def mime_type(path: Path) -> str:
    """The media type of a file of this name; `application/octet-stream` when it is not supported."""
    known = format_of(path)
    return known.mime if known is not None else "application/octet-stream"


_TEXT = Format("text", "text/plain")
_STEMS = words(
    "authors changelog changes contributing contributors copying credits faq history install license licence",
    "maintainers news notice patents readme thanks todo version",
)
_OFFICE = "application/vnd.openxmlformats-officedocument"
_DOCUMENTS = {
    ".txt .text .log .me .asc .adoc .asciidoc .org .tex .srt .vtt": _TEXT,
    ".md .markdown .mdown .mkd .mdx .qmd .rmd": Format("markdown", "text/markdown"),
    ".rst .rest": Format("rst", "text/x-rst"),
    ".html .htm .xhtml": Format("html", "text/html", isolate_above=_LARGE_PAGE),
    ".csv": Format("tables", "text/csv"),
    ".tsv .tab": Format("tables", "text/tab-separated-values"),
    ".jsonl .ndjson": Format("records", "application/jsonl"),
    ".json .geojson .jsonc .json5": Format("code", "application/json", "json"),
    ".ipynb": Format("notebook", "application/x-ipynb+json"),
    ".pdf": Format("pdf", "application/pdf", isolate_above=-1),
    ".docx .docm": Format("docx", f"{_OFFICE}.wordprocessingml.document", isolate_above=-1),
    ".pptx .pptm": Format("pptx", f"{_OFFICE}.presentationml.presentation", isolate_above=-1),
    ".xlsx .xlsm": Format("xlsx", f"{_OFFICE}.spreadsheetml.sheet", isolate_above=-1),
    ".epub": Format("epub", "application/epub+zip", isolate_above=-1),
    ".eml": Format("eml", "message/rfc822"),
}
_LANGUAGES = {
    "asm": ".asm .s",
    "bash": ".sh .bash .zsh .ksh .fish",
    "batch": ".bat .cmd",
    "c": ".c .h",
    "clojure": ".clj .cljs .cljc",
    "cmake": ".cmake",
    "cpp": ".cc .cpp .cxx .c++ .hh .hpp .hxx .ipp .cu .cuh .ino",
    "csharp": ".cs",
    "css": ".css .scss .sass .less",
    "cython": ".pyx .pxd",
    "d": ".d",
    "dart": ".dart",
    "elixir": ".ex .exs",
    "elm": ".elm",
    "erlang": ".erl .hrl",
    "fortran": ".f .f90 .f95 .for",
    "fsharp": ".fs .fsx",
    "go": ".go",
    "graphql": ".graphql .gql",
    "groovy": ".groovy .gradle",
    "haskell": ".hs",
    "ini": ".ini .cfg .conf .properties .editorconfig",
    "java": ".java",
    "javascript": ".js .jsx .mjs .cjs",
    "julia": ".jl",
    "kotlin": ".kt .kts",
    "lisp": ".lisp .el .scm .rkt",
    "lua": ".lua",
    "make": ".mk .mak",
    "nim": ".nim",
    "nix": ".nix",
    "objective-c": ".m .mm",
    "ocaml": ".ml .mli",
    "perl": ".pl .pm",
    "php": ".php",
    "powershell": ".ps1 .psm1",
    "protobuf": ".proto",
    "python": ".py .pyi .pyw",
    "r": ".r",
    "ruby": ".rb .rake .gemspec",
    "rust": ".rs",
    "scala": ".scala .sc",
    "solidity": ".sol",
    "sql": ".sql",
    "svelte": ".svelte",
    "swift": ".swift",
    "terraform": ".tf .hcl",
    "toml": ".toml",
    "typescript": ".ts .tsx .mts .cts",
    "verilog": ".v .sv",
    "vue": ".vue",
    "xml": ".xml .xsd .xsl .xslt .rss .atom .plist",
    "yaml": ".yaml .yml",
    "zig": ".zig",
}


def _program(language: str) -> Format:
    mime = {"xml": "application/xml", "yaml": "application/yaml", "css": "text/css"}.get(language, f"text/x-{language}")
    return Format("code", mime, language)


def _by_suffix() -> Mapping[str, Format]:
    table = {suffix: known for suffixes, known in _DOCUMENTS.items() for suffix in suffixes.split()}
    for language, suffixes in _LANGUAGES.items():
        table.update(dict.fromkeys(suffixes.split(), _program(language)))
    return MappingProxyType(table)


def _by_name() -> Mapping[str, Format]:
    table = dict.fromkeys(_STEMS, _TEXT)
    for language, names in {
        "cmake": "cmakelists.txt",
        "dockerfile": "dockerfile containerfile",
        "groovy": "jenkinsfile",
        "make": "makefile gnumakefile justfile",
        "ruby": "gemfile rakefile vagrantfile podfile",
        "starlark": "build.bazel workspace.bazel",
    }.items():
        table.update(dict.fromkeys(names.split(), _program(language)))
    return MappingProxyType(table)


_SUFFIXES = _by_suffix()
_NAMES = _by_name()

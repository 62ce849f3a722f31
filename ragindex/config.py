"""Frozen settings, parsed once: defaults < `ragindex.toml` < environment < flags.

`ragindex.toml` lies next to the store (in the folder that holds `.ragindex/`); its keys are the field names below,
the limits in a `[limits]` table and how vectors are kept in an `[index]` table. Environment variables are
`RAGINDEX_` + the upper-case field name (`RAGINDEX_LIMITS_SECONDS` for a limit, `RAGINDEX_INDEX_DENSE`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ragindex.errors import UsageError

__all__ = ["DENSE_INDEXES", "SEARCHED_ON", "Chunking", "Limits", "Settings", "Storage", "load_settings"]

SEARCHED_ON = ("cpu", "gpu")
DENSE_INDEXES = ("auto", "flat", "ivf-fp16", "ivf-sq8", "hnsw", "rabitq", "pca-float8", "binary")

_MEBIBYTE = 1 << 20
_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost before it is given up with a reason.

    seconds: wall time of its parser; memory_mb: address space of the parser's process above its start; file_mb: size
    on disk; pages: PDF pages, slides or sheets; text_mb: characters of text, in millions; expansion: unpacked over
    packed size of archive formats (docx, xlsx, pptx, epub) before it counts as a bomb.
    """

    seconds: float = 60.0
    memory_mb: int = 1024
    file_mb: int = 256
    pages: int = 10_000
    text_mb: int = 128
    expansion: int = 200

    @property
    def file_bytes(self) -> int:
        """`file_mb` in bytes."""
        return self.file_mb * _MEBIBYTE


@dataclass(frozen=True, slots=True)
class Chunking:
    """How text is cut, in the encoder's tokens; a chunk's prompt, title, headings and special tokens count towards
    it. late: chunks are embedded in the context of their document (`ragindex.encoder.spans`), so a heading is known to
    them because it was read, and only the document's title counts.
    """

    tokens: int = 256
    overlap: int = 32
    late: bool = False

    def __post_init__(self) -> None:
        if self.tokens < 16:
            raise UsageError(f"chunk_tokens is {self.tokens}; it must be at least 16.")
        if not 0 <= self.overlap < self.tokens // 2:
            raise UsageError(f"overlap is {self.overlap}; it must be at least 0 and less than half of chunk_tokens.")


@dataclass(frozen=True, slots=True)
class Storage:
    """How vectors are kept for search, None leaves a store as it is; and where they are searched.

    dense: one of `DENSE_INDEXES`; memory_mb: what the vectors of one collection may take in memory where "auto"
    chooses, in megabytes; 0 is no limit. search_on: "cpu", or "gpu", which needs a build of FAISS for it.
    """

    dense: str | None = None
    memory_mb: int | None = None
    search_on: str = "cpu"

    def __post_init__(self) -> None:
        if self.search_on not in SEARCHED_ON:
            raise UsageError(f"Vectors are searched on {' or '.join(SEARCHED_ON)}, not on {self.search_on!r}.")
        if self.dense is not None and self.dense not in DENSE_INDEXES:
            raise UsageError(f"There is no dense index {self.dense!r}; choose one of {', '.join(DENSE_INDEXES)}.")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a user may set that is not part of a single request.

    encoder: name, directory or hub id. device: what it runs on, the best there is by default; several with commas
    between ("cuda:0,cuda:1") get a process each. chunk_tokens, overlap and late_chunking: see `Chunking`; None leaves a
    store as it was begun.
    include and exclude: glob patterns with the meaning of a `.gitignore` line.
    """

    encoder: str = "bundled"
    device: str | None = None
    chunk_tokens: int | None = None
    overlap: int | None = None
    late_chunking: bool | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    index: Storage = field(default_factory=Storage)

    def __post_init__(self) -> None:
        self.chunking()  # an impossible pair is refused at once, not when the store is open

    def chunking(self, begun: Chunking | None = None) -> Chunking:
        """How a store that was `begun` so (None: a new one) is to cut text from now on."""
        begun = begun or Chunking()
        tokens = begun.tokens if self.chunk_tokens is None else self.chunk_tokens
        overlap = min(begun.overlap, tokens // 8) if self.overlap is None else self.overlap
        return Chunking(tokens, overlap, begun.late if self.late_chunking is None else self.late_chunking)


_TABLES: Mapping[str, type[Limits | Storage]] = {"limits": Limits, "index": Storage}


def load_settings(folder: Path, environment: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Settings:
    """Merge the defaults, `folder/ragindex.toml`, `environment` and `overrides` (None values are ignored).

    Raises UsageError for an unknown key, a wrong type, or a file that is not TOML.
    """
    settings = Settings()
    file = folder / "ragindex.toml"
    if file.is_file():
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise UsageError(f"{file} cannot be read: {error}.") from error
        settings = _merge(settings, table, str(file))
    settings = _merge(settings, _from_environment(environment), "the environment")
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    return _merge(settings, given, "the options")


def _merge(settings: Settings, table: Mapping[str, Any], origin: str) -> Settings:
    values = dict(table)
    inner: dict[str, Any] = {}
    for name, kind in _TABLES.items():
        if name in values:
            inner[name] = replace(getattr(settings, name), **_checked(kind, values.pop(name), f"[{name}] of {origin}"))
    return replace(settings, **inner, **_checked(Settings, values, origin))


def _checked(kind: type[Limits | Storage | Settings], table: Any, origin: str) -> dict[str, Any]:
    if not isinstance(table, Mapping):
        raise UsageError(f"{origin} must be a table.")
    known = {entry.name: entry for entry in fields(kind) if entry.name not in _TABLES}
    result: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{origin} has an unknown key {key!r}; known keys are {', '.join(sorted(known))}.")
        wanted = str(known[key].type)
        if wanted.startswith("tuple"):
            if not (isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)):
                raise UsageError(f"{origin}: {key} must be a list of strings.")
            result[key] = tuple(value)
        elif wanted.startswith("str"):
            if not isinstance(value, str):
                raise UsageError(f"{origin}: {key} must be a string.")
            result[key] = value
        elif wanted.startswith("bool"):
            if not isinstance(value, bool):
                raise UsageError(f"{origin}: {key} must be true or false.")
            result[key] = value
        else:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UsageError(f"{origin}: {key} must be a number.")
            result[key] = float(value) if wanted == "float" else int(value)
            if result[key] < 0:
                raise UsageError(f"{origin}: {key} is {value}; it must not be negative.")
    return result


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    table = _variables(Settings, "RAGINDEX_", environment)
    inner = {name: _variables(kind, f"RAGINDEX_{name.upper()}_", environment) for name, kind in _TABLES.items()}
    return table | {name: values for name, values in inner.items() if values}


def _variables(kind: type[Limits | Storage | Settings], prefix: str, environment: Mapping[str, str]) -> dict[str, Any]:
    known = {entry.name: prefix + entry.name.upper() for entry in fields(kind) if entry.name not in _TABLES}
    types = {entry.name: str(entry.type) for entry in fields(kind)}
    return {
        name: _parse(environment[variable], types[name], variable)
        for name, variable in known.items()
        if variable in environment
    }


def _parse(raw: str, wanted: str, name: str) -> Any:
    if wanted.startswith("tuple"):
        return [item.strip() for item in raw.split(",") if item.strip()]
    if wanted.startswith("str"):
        return raw
    if wanted.startswith("bool"):
        if raw.lower() not in _SWITCH:
            raise UsageError(f"{name} is {raw!r}; it must be true or false.")
        return _SWITCH[raw.lower()]
    try:
        return float(raw) if wanted == "float" else int(raw)
    except ValueError as error:
        raise UsageError(f"{name} is {raw!r}; it must be a number.") from error

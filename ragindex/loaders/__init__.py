"""From a folder to documents: which files to read, and one small parser for each family of formats."""

from __future__ import annotations

from ragindex.loaders.formats import mime_type, supported
from ragindex.loaders.ignore import ignored_reason
from ragindex.loaders.reading import iso_seconds, load
from ragindex.loaders.sandbox import LoaderPool
from ragindex.loaders.walk import WalkEntry, walk

__all__ = [
    "LOADER_VERSION",
    "LoaderPool",
    "WalkEntry",
    "ignored_reason",
    "iso_seconds",
    "load",
    "mime_type",
    "supported",
    "walk",
]

LOADER_VERSION: int = 1
"""Grows whenever a parser gives other text for the same bytes; documents of an older version are read again."""

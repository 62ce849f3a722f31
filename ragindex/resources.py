"""Finds the files that travel with the package: migrations and the sample corpora.

In a checkout they lie at the top of the repository, in an installed wheel inside the package.
"""

from __future__ import annotations

from pathlib import Path

from ragindex.errors import RagIndexError

__all__ = ["resource"]


def resource(name: str) -> Path:
    """The directory called `name` ("migrations" or "sample_corpora"). Raises RagIndexError when the installation
    lacks it.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / name, package.parent / name):
        if candidate.is_dir():
            return candidate
    raise RagIndexError(f"This installation lacks its {name!r} folder; install ragindex again.")

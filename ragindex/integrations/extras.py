"""Names of a package that needs an extra, loaded when they are first used; importing the package needs nothing."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from ragindex.errors import MissingDependencyError

__all__ = ["loaded"]


def loaded(package: str, homes: Mapping[str, str], name: str, *, framework: str, extra: str) -> Any:
    """The name out of its home, a module of the package. Raises AttributeError for one that has none, and
    MissingDependencyError when the framework is not installed.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{package}.{homes[name]}")
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith(("ragindex", "haystack_integrations")):
            raise
        raise MissingDependencyError(
            f'{framework} is not installed, or not all of it; run `pip install "ragindex[{extra}]"`.'
        ) from error
    return getattr(module, name)

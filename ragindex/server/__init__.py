"""The HTTP server over one store: search, documents, OpenAI-compatible embeddings, and the search page.

Needs the extra `server`. The names below are loaded when they are first used, so that importing this package needs
nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ragindex.errors import MissingDependencyError

if TYPE_CHECKING:
    from ragindex.server.app import create_app
    from ragindex.server.lifecycle import serve
    from ragindex.server.limits import Limits
    from ragindex.server.security import Access, host_name
    from ragindex.server.shelves import Library

__all__ = ["Access", "Library", "Limits", "create_app", "host_name", "serve"]

_HOMES = {
    "Access": "security",
    "Library": "shelves",
    "Limits": "limits",
    "create_app": "app",
    "host_name": "security",
    "serve": "lifecycle",
}
_EXTRA = ("anyio", "fastapi", "pydantic", "starlette", "uvicorn")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ragindex.server' has no attribute {name!r}")
    try:
        module = importlib.import_module(f"ragindex.server.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise MissingDependencyError(
            "The server needs FastAPI and uvicorn; run `pip install 'ragindex[server]'`."
        ) from error
    return getattr(module, name)

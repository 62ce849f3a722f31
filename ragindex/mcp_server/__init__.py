"""One collection of a store for agents, over the Model Context Protocol.

Needs the extra `mcp`. The names below are loaded when they are first used, so that importing this package needs
nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ragindex.errors import MissingDependencyError

if TYPE_CHECKING:
    from ragindex.mcp_server.answers import Library
    from ragindex.mcp_server.http import Access, HttpServer
    from ragindex.mcp_server.protocol import create_server
    from ragindex.mcp_server.stdio import serve_stdio

__all__ = ["Access", "HttpServer", "Library", "create_server", "serve_stdio"]

_HOMES = {
    "Access": "http",
    "HttpServer": "http",
    "Library": "answers",
    "create_server": "protocol",
    "serve_stdio": "stdio",
}
_EXTRA = ("anyio", "mcp", "mcp_types", "starlette", "uvicorn")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ragindex.mcp_server' has no attribute {name!r}")
    try:
        module = importlib.import_module(f"ragindex.mcp_server.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise MissingDependencyError("The MCP server needs mcp 2; run `pip install 'ragindex[mcp]'`.") from error
    return getattr(module, name)

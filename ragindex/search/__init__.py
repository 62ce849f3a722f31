"""The query engine and what it is made of."""

from ragindex.search.engine import Engine, Request

__all__ = ["Engine", "Request"]

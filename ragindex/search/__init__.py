"""The query engine and what it is made of."""

from ragindex.search.context import render_context
from ragindex.search.engine import Engine, Request
from ragindex.search.why_not import Expectation, explain_absence

__all__ = ["Engine", "Expectation", "Request", "explain_absence", "render_context"]

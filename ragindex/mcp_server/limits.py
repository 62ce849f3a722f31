"""How much one call may ask for and how much it gets back: an answer ends up in the context of a model."""

from __future__ import annotations

__all__ = [
    "MAX_ANSWER",
    "MAX_BODY",
    "MAX_HITS",
    "MAX_NEIGHBOURS",
    "MAX_PAGE",
    "MAX_PLACE",
    "MAX_QUERY",
    "MAX_TEXT",
    "RUNNING",
]

MAX_QUERY = 10_000  # characters of a query, an instruction or a filter
MAX_PLACE = 4_096  # characters of an id or a path
MAX_HITS = 50
MAX_NEIGHBOURS = 20  # chunks on either side
MAX_TEXT = 8_000  # characters of one result
MAX_ANSWER = 60_000  # characters of all results of a search
MAX_PAGE = 40_000  # characters that one fetch returns
MAX_BODY = 256 * 1024  # bytes of an HTTP request
RUNNING = 4  # calls that are worked on at a time; others wait

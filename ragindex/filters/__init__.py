"""Filter values and their parser; knows no backend.

A filter is a tree of frozen values. `ragindex.store` turns it into SQL; the adapters of other frameworks build it
directly. Fields are the columns of a document (`path`, `title`, `mime`, `language`, `size`, `modified`, `page`,
`heading`, `text`) or any key of its metadata; `metadata.page` is that key where a column has its name, and
`author.name` also finds a value within an object.

The language, keywords in any case, `not` before `and` before `or`:

    path like 'ops/%' and (language = 'en' or size >= 1000) and not modified < '2024-01-01'
    mime in ('text/plain', 'text/markdown')
    x between 1 and 5 or 10 <= x < 20 or author is not null or draft != true
    tags contains 'draft' or summary contains 'Key'

Operators are `= == != <> < <= > >=`, `[not] like`, `[not] contains`, `[not] in`, `[not] between … and …`,
`is [not] null` and `is [not] empty`; a value may stand in front of its comparison. Strings stand in single or double
quotes (doubled inside), field names that are no plain word in backquotes. `true` and `false` alone match everything
and nothing.

Logic has two values: `Not` is the exact complement, so `x != 1` also matches a document without `x`.
"""

from __future__ import annotations

from ragindex.filters.parser import parse
from ragindex.filters.text import to_text
from ragindex.filters.values import And, Contains, Empty, Eq, Exists, Filter, In, Like, Not, Or, Range

__all__ = ["And", "Contains", "Empty", "Eq", "Exists", "Filter", "In", "Like", "Not", "Or", "Range", "parse", "to_text"]

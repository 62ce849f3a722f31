"""What can be told of the lexical index on disk without opening it: loads no tantivy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Population", "read_population"]

_QUICK = 5_000  # chunks that are indexed again in a moment
_MANY_DELETED = 0.1


@dataclass(frozen=True, slots=True)
class Population:
    """Documents of the committed segments; `deleted` ones are among them and still count in tantivy's statistics."""

    documents: int
    deleted: int

    @property
    def settled(self) -> bool:
        """Whether making the index again would hardly change a score, or take too long for that."""
        present = self.documents - self.deleted
        return self.deleted <= (0 if present <= _QUICK else _MANY_DELETED * present)


def read_population(path: Path) -> Population | None:
    """The population of the index in `path`, or None when there is none that can be read."""
    try:
        segments = json.loads((path / "meta.json").read_bytes())["segments"]
        deleted = sum(int((segment["deletes"] or {}).get("num_deleted_docs", 0)) for segment in segments)
        return Population(sum(int(segment["max_doc"]) for segment in segments), deleted)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None

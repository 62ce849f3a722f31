"""The core properties that Word, PowerPoint and Excel files share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ragindex.types import MetadataValue

__all__ = ["core_metadata", "core_title"]

# What the templates of Office and of the libraries put there when nobody chose a title.
_UNCHOSEN = frozenset({"word document", "powerpoint presentation", "presentation", "untitled", "title"})


def core_title(properties: Any) -> str:
    """The title property, or nothing when it is only the template's."""
    title = " ".join(str(properties.title or "").split())
    return "" if title.lower() in _UNCHOSEN else title


def core_metadata(properties: Any) -> dict[str, MetadataValue]:
    """`author` and `saved`: when the document itself says it was last saved (ISO 8601, UTC)."""
    author = getattr(properties, "author", None) or getattr(properties, "creator", None)
    saved = properties.modified
    metadata: dict[str, MetadataValue] = {}
    if author and str(author) not in ("python-docx", "openpyxl"):
        metadata["author"] = str(author)
    if isinstance(saved, datetime):
        moment = saved.replace(tzinfo=UTC) if saved.tzinfo is None else saved.astimezone(UTC)
        metadata["saved"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return metadata

"""Where a reader finds a cited document: the `url` of results."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from ragindex.types import Hit

__all__ = ["Links"]


class Links:
    """Makes links to documents: into `site` where that is given, else to files below `base` where readers are on this
    machine (None: they are not), else by the name of the document alone.
    """

    def __init__(self, *, site: str | None = None, base: Path | None = None) -> None:
        self._site = site if site is None or site.endswith("/") else f"{site}/"
        self._base = base

    def url(self, hit: Hit) -> str:
        """The link, with the lines or the page after `#`."""
        place = f"page={hit.page}" if hit.page is not None else f"L{hit.line_start}-L{hit.line_end}"
        return f"{self._document(hit.path)}#{place}"

    def _document(self, path: str) -> str:
        if self._site is not None:
            return self._site + quote(path.lstrip("/"))
        if self._base is not None:
            file = self._base / path
            # Documents that are no files have names that may look like paths.
            if file.is_file():
                return file.as_uri()
        return f"ragindex:{quote(path)}"

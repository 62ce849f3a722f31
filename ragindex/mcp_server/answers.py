"""What the tools do: one `Index`, asked with checked arguments, answered with JSON values of bounded size in which
every text from a document is quoted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

import ragindex
from ragindex.errors import UsageError
from ragindex.index import Index
from ragindex.mcp_server.limits import MAX_ANSWER, MAX_PAGE, MAX_TEXT
from ragindex.mcp_server.links import Links
from ragindex.search.quoting import CLOSE, NOTICE, one_line, opened, quoted
from ragindex.search.suspicion import flag_kinds
from ragindex.types import Hit

__all__ = ["Library"]

Answer = dict[str, Any]


class Library:
    """The tools' work over one open index. Thread-safe, as `Index` is for reads; writes nothing."""

    def __init__(self, index: Index, *, links: Links | None = None) -> None:
        self._index = index
        self._links = links or Links(base=index.base)

    def search(self, arguments: Mapping[str, Any]) -> Answer:
        """Passages that answer a query, best first."""
        hits = self._index.search(
            arguments["query"],
            k=arguments["k"],
            mode=arguments["mode"],
            filter=arguments.get("filter"),
            instruction=arguments.get("instruction"),
        )
        results: list[Answer] = []
        left = MAX_ANSWER
        for hit in hits:
            result = self._passage(hit, 0, min(MAX_TEXT, left)) | {"score": hit.score}
            results.append(result)
            left = max(0, left - len(result["text"]))
        return {"results": results, "notice": NOTICE}

    def fetch(self, arguments: Mapping[str, Any]) -> Answer:
        """A passage with its surroundings, or a document, from `offset` on."""
        hit = self._index.passage(arguments["id"], neighbours=arguments["neighbours"], section=arguments["section"])
        offset = arguments["offset"]
        if offset and offset >= len(hit.text):
            raise UsageError(f"fetch: offset is {offset}; the passage has {len(hit.text)} characters.")
        end = min(offset + MAX_PAGE, len(hit.text))
        rest = {
            "id": arguments["id"],  # clients pair answers with what they asked for
            "metadata": {key: _json_value(value) for key, value in hit.metadata.items()},
            "characters": len(hit.text),
            "next_offset": end if end < len(hit.text) else None,
            "notice": NOTICE,
        }
        return self._passage(hit, offset, end) | rest

    def status(self, _: Mapping[str, Any]) -> Answer:
        """What the index holds, without the paths of this machine."""
        known = self._index.status()
        encoder = known["encoder"] or {}
        kept = ("collection", "documents", "chunks", "failures", "tokens", "chunk_tokens", "generation")
        return {key: known[key] for key in kept} | {
            "encoder": PurePosixPath(encoder["name"]).name if encoder else None,
            "dimensions": encoder.get("dimensions"),
            "version": ragindex.__version__,
        }

    def why_not(self, arguments: Mapping[str, Any]) -> Answer:
        """Where an expected passage was lost."""
        answer = self._index.why_not(
            arguments["query"],
            self._expected(arguments["expect"]),
            k=arguments["k"],
            mode=arguments["mode"],
            filter=arguments.get("filter"),
            instruction=arguments.get("instruction"),
        )
        # Reasons name documents, and whoever names a document writes for the model.
        return {key: one_line(value) if isinstance(value, str) else value for key, value in asdict(answer).items()}

    def _expected(self, given: str) -> str:
        """What `Index.why_not` is to look for. Of files outside of the indexed folders it could tell whether they
        exist, so those are refused.
        """
        path, colon, line = given.rpartition(":")
        path = path if colon and line.isdigit() else given
        index = self._index
        file = index.base / path
        if not file.is_file() and self._is_indexed(path):
            return given
        roots = [index.base, *((index.base / root).resolve() for root in index.status()["roots"])]
        if not any(file.resolve().is_relative_to(root) for root in roots):
            raise UsageError(f"why_not: {path!r} is not below the folders that are indexed.")
        return str(index.base / given)

    def _is_indexed(self, path: str) -> bool:
        try:
            self._index.passage(path)
        except UsageError:
            return False
        return True

    def _passage(self, hit: Hit, start: int, end: int) -> Answer:
        """A hit as JSON; of its text, the characters from `start` to `end`."""
        heading = [one_line(one) for one in hit.heading]
        title = one_line(hit.title or PurePosixPath(hit.path).name)
        shown = hit.text[start:end]
        flags = flag_kinds(shown, hit.path, hit.title, *hit.heading)
        under = " › ".join(hit.heading) or hit.title
        return {
            "id": f"{hit.path}#char={hit.char_start},{hit.char_end}",
            "title": title,
            "url": self._links.url(hit),
            "citation": one_line(hit.citation),
            "path": hit.path,
            "heading": heading,
            "page": hit.page,
            "line_start": hit.line_start,
            "line_end": hit.line_end,
            "char_start": hit.char_start,
            "char_end": hit.char_end,
            "text": f"{opened(under=under, flags=flags)}\n{quoted(shown)}\n{CLOSE}",
            "flags": list(flags),
            "truncated": end < len(hit.text),
        }


def _json_value(value: Any) -> Any:
    """A value of a document's metadata as it may be sent: texts quoted, numbers that JSON cannot say left out."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _json_value(item) for key, item in value.items()}
    return [_json_value(item) for item in value] if isinstance(value, list | tuple) else value

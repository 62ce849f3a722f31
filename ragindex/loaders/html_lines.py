"""Finds the source line of a block of HTML: parsers keep no positions, but words keep their order."""

from __future__ import annotations

import html
import re

__all__ = ["LineFinder"]

_INVISIBLE = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|template|title)\b.*?(?:</\1\s{0,8}>|\Z)|<[a-zA-Z/!?][^>]*>?",
    re.DOTALL | re.IGNORECASE,
)
_TOKEN = re.compile(r"(?:\w|&#?\w{1,32};)+")
_WORD = re.compile(r"\w+")
_PROBE = 4
_WINDOW = 20_000


class LineFinder:
    """Walks once through the words of the markup as blocks are asked for in document order."""

    def __init__(self, markup: str) -> None:
        self._words: list[str] = []
        self._lines: list[int] = []
        line, position = 1, 0
        visible = _INVISIBLE.sub(lambda found: " " + "\n" * found.group().count("\n"), markup)
        for token in _TOKEN.finditer(visible):
            line += visible.count("\n", position, token.start())
            position = token.start()
            for word in _WORD.findall(html.unescape(token.group())):
                self._words.append(word)
                self._lines.append(line)
        self._cursor = 0
        self._window = _WINDOW

    def line_of(self, text: str) -> int:
        """The line where `text` begins, counted from 1; the last known line when its words are not found."""
        if not self._lines:
            return 1
        found = _WORD.findall(text[:400])[:_PROBE]
        # Text that is not in the markup as text (an image's description) may stand among the first words: try fewer.
        for length, window in ((_PROBE, self._window), (2, self._window // 20), (1, self._window // 200)):
            index = self._find(found[:length], window)
            if index >= 0:
                self._cursor = index + 1
                self._window = _WINDOW
                break
        else:
            # Shrinks with every miss, so that a page whose words are never found costs linear time.
            self._window = max(self._window // 2, 50)
        return self._lines[max(self._cursor - 1, 0)]

    def _find(self, probe: list[str], window: int) -> int:
        if probe:
            for index in range(self._cursor, min(len(self._words), self._cursor + window)):
                if self._words[index] == probe[0] and self._words[index : index + len(probe)] == probe:
                    return index
        return -1

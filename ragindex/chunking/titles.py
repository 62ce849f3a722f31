"""The line that stands above a passage: the title of its document and the headings that it lies under."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["title_line"]

_SEPARATOR = " > "


def title_line(title: str, heading: Sequence[str], *, fits: Callable[[str], bool] | None = None) -> str:
    """The parts in one line, as in "Handbook > Travel > Rail", without one that repeats the one before it: a document's
    title is usually its first heading.

    fits: says of a line whether it is short enough; of one that is not the outermost parts go, but never the last.
    """
    parts: list[str] = []
    for part in (" ".join(each.split()) for each in (title, *heading)):
        if part and (not parts or part.casefold() != parts[-1].casefold()):
            parts.append(part)
    while len(parts) > 1 and fits is not None and not fits(_SEPARATOR.join(parts)):
        parts.pop(0)
    return _SEPARATOR.join(parts)

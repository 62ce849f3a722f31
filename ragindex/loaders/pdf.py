"""PDF: text page by page, paragraphs and headings rebuilt from where lines lie and how large they are."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ragindex.errors import LoadError
from ragindex.loaders.draft import Draft, Outline, Source, TextBuilder
from ragindex.types import BlockKind, MetadataValue

__all__ = ["parse"]

_WRONG_PASSWORD = 4
_JUNK_TITLE = re.compile(r"untitled|\(anonymous\)|.*\.(?:docx?|dvi|indd|pdf|pptx?|qxd|tex|xlsx?)", re.IGNORECASE)
_PREFIX = re.compile(r"Microsoft (?:Word|PowerPoint|Excel) - ")
_NUMBER = re.compile(r"\d+")
# Against what is usual on a page: where a gap ends a paragraph, where a size makes a heading.
_GAP = 1.35
_LARGE = 1.2
_LONGEST_HEADING = 200


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a page; `size` is the height of its font in points.

    `first` and `last` are the heights at which its first and its last character stand: they differ where a
    hyphenated word has joined two lines. All are 0 where the library cannot tell.
    """

    text: str
    size: float
    first: float
    last: float


def parse(source: Source) -> Draft:
    """The title is the document's, else the largest line of the first page; metadata: `pages`, `author`,
    `pages_without_text`.
    """
    if not source.data:
        return Draft("")
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(source.data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == _WRONG_PASSWORD or "password" in str(error).lower():
            raise LoadError("password-protected") from error
        raise LoadError("not a PDF file, or a truncated one") from error
    try:
        return _document(document, source)
    finally:
        document.close()


def _document(document: Any, source: Source) -> Draft:
    count = len(document)
    if count > source.limits.pages:
        raise LoadError(f"{count} pages; limit {source.limits.pages} (limits.pages)")
    builder = TextBuilder(source.limits)
    outline = Outline()
    pages = [_lines(document, number) for number in range(count)]
    empty = sum(1 for lines in pages if not lines)
    for lines in _without_running_lines(pages):
        builder.page()
        _add_page(lines, builder, outline)
    if empty == count:
        raise LoadError(f"no text layer on any of {count} pages" if count != 1 else "no text layer on its only page")
    declared = document.get_metadata_dict()
    metadata: dict[str, MetadataValue] = {"pages": count, "author": declared.get("Author", "")}
    if empty:
        metadata["pages_without_text"] = empty
    return builder.finish(title=_title(str(declared.get("Title", "")), pages[0]), metadata=metadata)


def _lines(document: Any, number: int) -> list[_Line]:
    """The lines of a page in reading order; none for a page that cannot be read."""
    from pypdfium2 import PdfiumError

    try:
        page = document[number]
        try:
            textpage = page.get_textpage()
            # U+FFFE stands where a word was hyphenated at the end of a line; without it the word is whole again.
            text = textpage.get_text_range()
            placed = len(text) == textpage.count_chars()
            position, lines = 0, []
            for raw in text.split("\n"):
                shown = " ".join(raw.replace("\ufffe", "").split())
                if shown:
                    first = position + len(raw) - len(raw.lstrip())
                    lines.append(
                        _placed(textpage, first, position + len(raw.rstrip()) - 1, shown)
                        if placed
                        else _Line(shown, 0, 0, 0)
                    )
                position += len(raw) + 1
            textpage.close()
        finally:
            page.close()
    except PdfiumError:
        return []
    return lines


def _placed(textpage: Any, first: int, last: int, text: str) -> _Line:
    # The loose box has the height of the font, whatever the glyph.
    box = textpage.get_charbox(first, loose=True)
    return _Line(text, round(box[3] - box[1], 1), box[1], textpage.get_charbox(last, loose=True)[1])


def _without_running_lines(pages: Sequence[Sequence[_Line]]) -> Iterator[Sequence[_Line]]:
    """Pages without the small line at the top or the bottom that most of them repeat but for its numbers."""
    edges = Counter(key for lines in pages for key in {_edge(lines, 0), _edge(lines, -1)} if key)
    needed = max(3, sum(1 for lines in pages if lines) // 2 + 1)
    for lines in pages:
        first, stop = 0, len(lines)
        if stop > 2 and edges[_edge(lines, 0)] >= needed:
            first = 1
        if stop > 2 and edges[_edge(lines, -1)] >= needed:
            stop -= 1
        yield lines[first:stop]


def _edge(lines: Sequence[_Line], index: int) -> str:
    """What a running line has in common with those of other pages; nothing for a large line, which is a heading."""
    if not lines or lines[index].size > statistics.median_low(line.size for line in lines):
        return ""
    return f"{index} {_NUMBER.sub('#', lines[index].text)}"


def _add_page(lines: Sequence[_Line], builder: TextBuilder, outline: Outline) -> None:
    usual_size = statistics.median_low(line.size for line in lines) if lines else 0.0
    usual_gap = _usual_gap(lines)
    paragraph: list[_Line] = []

    def flush() -> None:
        if not paragraph:
            return
        text = "\n".join(line.text for line in paragraph)
        path = outline.path
        kind: BlockKind = "prose"
        if paragraph[0].size > usual_size * _LARGE and len(text) <= _LONGEST_HEADING:
            # A larger font is a higher level: entering closes every open heading of this size or smaller.
            path = outline.enter(-round(paragraph[0].size), " ".join(text.split()))
            kind = "heading"
        builder.add(text, kind, path)
        paragraph.clear()

    for line in lines:
        if paragraph and _breaks(paragraph[-1], line, usual_gap):
            flush()
        paragraph.append(line)
    flush()


def _breaks(above: _Line, line: _Line, usual_gap: float) -> bool:
    """Whether a paragraph ends between two lines: a wide gap, a jump upwards (next column), another size."""
    gap = above.last - line.first
    if not above.size or not line.size:
        return False
    limit = max(usual_gap * _GAP, max(above.size, line.size) * 1.1)
    return gap > limit or gap < -above.size or not 0.87 < line.size / above.size < 1.15


def _usual_gap(lines: Sequence[_Line]) -> float:
    """The distance of lines inside of a paragraph: the lower quartile, because wider gaps lie between paragraphs."""
    gaps = sorted(above.last - line.first for above, line in pairwise(lines) if above.last > line.first)
    return gaps[len(gaps) // 4] if gaps else 0.0


def _title(declared: str, lines: Sequence[_Line]) -> str:
    declared = _PREFIX.sub("", " ".join(declared.split()))
    if declared and not _JUNK_TITLE.fullmatch(declared):
        return declared
    head = lines[:40]
    largest = max((line.size for line in head), default=0.0)
    if len(lines) < 2 or largest <= statistics.median_low(line.size for line in lines) * _LARGE:
        return ""
    first = next(index for index, line in enumerate(head) if line.size == largest)
    title = []
    for line in head[first:]:
        if line.size != largest:
            break
        title.append(line.text)
    joined = " ".join(title)
    return joined if len(joined) <= _LONGEST_HEADING else ""

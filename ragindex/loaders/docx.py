"""Word documents: headings by style, paragraphs, lists, tables and notes in document order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

from ragindex.loaders.archive import office_archive
from ragindex.loaders.draft import Draft, Outline, Source, TextBuilder
from ragindex.loaders.office import core_metadata, core_title
from ragindex.types import BlockKind

__all__ = ["parse"]

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_LEVEL = re.compile(r"heading\s?([1-9])", re.IGNORECASE)
_NOTES = ("/footnotes", "/endnotes")


def parse(source: Source) -> Draft:
    """The title is the core property, else the first paragraph in the Title style, else the first level-1 heading."""
    office_archive(source.data, source.limits)
    import docx
    from docx.oxml import parse_xml

    document = docx.Document(BytesIO(source.data))
    # The element tree is read directly: the object model leaves out content controls, insertions and text boxes.
    reader = _Reader(TextBuilder(source.limits), {style.style_id: style.name or "" for style in document.styles})
    reader.body(document.element.body)
    for relation in document.part.rels.values():
        if not relation.is_external and relation.reltype.endswith(_NOTES):
            reader.notes(parse_xml(relation.target_part.blob))
    properties = document.core_properties
    return reader.builder.finish(title=core_title(properties) or reader.title, metadata=core_metadata(properties))


class _Reader:
    def __init__(self, builder: TextBuilder, styles: Mapping[str, str]) -> None:
        self.builder = builder
        self.title = ""
        self._styles = styles
        self._outline = Outline()
        self._list: list[str] = []

    def body(self, container: Any) -> None:
        for element in container:
            if element.tag == f"{_W}p":
                self._paragraph(element)
            elif element.tag == f"{_W}tbl":
                self._end_list()
                self._add(_table(element), "table")
            elif element.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}customXml", f"{_W}smartTag"):
                self.body(element)
        self._end_list()

    def notes(self, root: Any) -> None:
        """Footnotes and endnotes, after the text; the separators that Word keeps among them have a type."""
        self._outline.close(0)
        for note in root:
            if note.get(f"{_W}type") is None:
                self._add(_text(note), "prose")

    def _paragraph(self, element: Any) -> None:
        text = _text(element).strip()
        if not text:
            return
        style = self._style(element)
        level = _LEVEL.search(style)
        outline = element.find(f"{_W}pPr/{_W}outlineLvl")
        if level is None and outline is not None and str(outline.get(f"{_W}val")) in "012345678":
            self._heading(int(outline.get(f"{_W}val")) + 1, text)
        elif level is not None:
            self._heading(int(level.group(1)), text)
        elif style.lower() == "title":
            self.title = self.title or text
            self._end_list()
            self._add(text, "heading")
        elif style.lower().startswith("list") or element.find(f"{_W}pPr/{_W}numPr") is not None:
            self._list.append(f"- {text}")
        else:
            self._end_list()
            self._add(text, "prose")

    def _style(self, element: Any) -> str:
        style = element.find(f"{_W}pPr/{_W}pStyle")
        identity = style.get(f"{_W}val") if style is not None else ""
        name = self._styles.get(identity, identity) or ""
        # Localised templates translate names ("Überschrift 1") but mostly keep the identity ("Heading1").
        return name if _LEVEL.search(name) or not _LEVEL.search(identity or "") else str(identity)

    def _heading(self, level: int, text: str) -> None:
        self._end_list()
        text = " ".join(text.split())
        self._add_heading(text, self._outline.enter(level, text))
        if level == 1:
            self.title = self.title or text

    def _end_list(self) -> None:
        if self._list:
            self._add("\n".join(self._list), "list")
            self._list = []

    def _add_heading(self, text: str, above: tuple[str, ...]) -> None:
        self.builder.add(text, "heading", above)

    def _add(self, text: str, kind: BlockKind) -> None:
        self.builder.add(text, kind, self._outline.path)


def _table(table: Any) -> str:
    """A row for each line; cells may hold paragraphs and tables of their own, which become one line."""
    rows = []
    for row in table.iter(f"{_W}tr"):
        if next(row.iterancestors(f"{_W}tbl")) is not table:
            continue
        cells = [
            " ".join(_text(cell).split()) for cell in row.iter(f"{_W}tc") if next(cell.iterancestors(f"{_W}tr")) is row
        ]
        if any(cells):
            rows.append(" | ".join(cells))
    return "\n".join(rows)


def _text(element: Any) -> str:
    return "".join(_pieces(element)).strip("\n")


def _pieces(element: Any) -> Iterator[str]:
    """Visible text: deleted text is another tag, and alternatives for old readers repeat what was already said."""
    skipped: Any = None
    for node in element.iter():
        if skipped is not None and skipped in node.iterancestors():
            continue
        if node.tag == _FALLBACK:
            skipped = node
        elif node.tag == f"{_W}t":
            yield node.text or ""
        elif node.tag == f"{_W}tab" and node.getparent().tag == f"{_W}r":
            yield "\t"
        elif node.tag in (f"{_W}br", f"{_W}cr") or (node.tag == f"{_W}p" and node is not element):
            yield "\n"
        elif node.tag == f"{_W}noBreakHyphen":
            yield "-"

"""PowerPoint presentations: one page for each slide, with its title, text, tables and notes."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

from ragindex.errors import LoadError
from ragindex.loaders.archive import office_archive
from ragindex.loaders.draft import Draft, Source, TextBuilder
from ragindex.loaders.office import core_metadata, core_title

__all__ = ["parse"]


def parse(source: Source) -> Draft:
    """The title is the core property, else the title of the first slide. Hidden slides are read like the others."""
    office_archive(source.data, source.limits)
    import pptx

    presentation = pptx.Presentation(BytesIO(source.data))
    count = len(presentation.slides)
    if count > source.limits.pages:
        raise LoadError(f"{count} slides; limit {source.limits.pages} (limits.pages)")
    builder = TextBuilder(source.limits)
    first_title = ""
    for slide in presentation.slides:
        builder.page()
        title = _slide(slide, builder)
        first_title = first_title or title
    properties = presentation.core_properties
    metadata = {**core_metadata(properties), "pages": count}
    return builder.finish(title=core_title(properties) or first_title, metadata=metadata)


def _slide(slide: Any, builder: TextBuilder) -> str:
    """Add one slide; returns its title."""
    titled = slide.shapes.title
    title = _clean(titled.text_frame.text).replace("\n", " ") if titled is not None else ""
    heading = (title,) if title else ()
    builder.add(title, "heading")
    for shape in _shapes(slide.shapes):
        if titled is not None and shape.shape_id == titled.shape_id:
            continue
        if getattr(shape, "has_table", False):
            rows = (" | ".join(" ".join(cell.text.split()) for cell in row.cells) for row in shape.table.rows)
            builder.add("\n".join(row for row in rows if row.strip(" |")), "table", heading)
        elif shape.has_text_frame:
            builder.add(_clean(shape.text_frame.text), "prose", heading)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        builder.add(_clean(slide.notes_slide.notes_text_frame.text), "prose", (*heading, "Notes"))
    return title


def _shapes(shapes: Any) -> Iterator[Any]:
    """All shapes in their order, groups opened (with an own stack: groups nest)."""
    pending = list(shapes)[::-1]
    while pending:
        shape = pending.pop()
        inner = getattr(shape, "shapes", None)
        if inner is not None:
            pending.extend(list(inner)[::-1])
        else:
            yield shape


def _clean(text: str) -> str:
    # A vertical tab is PowerPoint's line break inside of a paragraph.
    return "\n".join(line.rstrip() for line in text.replace("\v", "\n").split("\n")).strip()

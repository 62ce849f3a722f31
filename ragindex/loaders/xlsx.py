"""Excel workbooks: one section for each sheet, one block for each row, values as Excel last computed them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from io import BytesIO
from typing import Any

from ragindex.errors import LoadError
from ragindex.loaders.archive import office_archive
from ragindex.loaders.draft import Draft, Source, TextBuilder
from ragindex.loaders.office import core_metadata, core_title

__all__ = ["parse"]


def parse(source: Source) -> Draft:
    """Rows below a header row read `column: value`, so that each can be understood alone; sheets count as pages."""
    office_archive(source.data, source.limits)
    import openpyxl

    builder = TextBuilder(source.limits)
    with warnings.catch_warnings():
        # openpyxl warns of every feature that it does not support; none of them matters for reading values.
        warnings.simplefilter("ignore")
        workbook = openpyxl.load_workbook(BytesIO(source.data), read_only=True, data_only=True, keep_links=False)
        sheets = workbook.worksheets
        if len(sheets) > source.limits.pages:
            raise LoadError(f"{len(sheets)} sheets; limit {source.limits.pages} (limits.pages)")
        for sheet in sheets:
            builder.page()
            _sheet(sheet, builder)
    properties = workbook.properties
    metadata = {**core_metadata(properties), "pages": len(sheets)}
    return builder.finish(title=core_title(properties), metadata=metadata)


def _sheet(sheet: Any, builder: TextBuilder) -> None:
    # A wrong dimension record makes openpyxl invent a million empty cells or hide real ones.
    sheet.reset_dimensions()
    name = " ".join(str(sheet.title).split())
    builder.add(name, "heading")
    header: Sequence[str] | None = None
    for cells in _rows(sheet):
        filled = [cell for cell in cells if cell]
        if header is None:
            header = cells if len(filled) > 1 and not any(_is_number(cell) for cell in filled) else ()
            builder.add(" | ".join(filled), "table", (name,))
            continue
        pairs = [(header[column] if column < len(header) else "", cell) for column, cell in enumerate(cells) if cell]
        row = " | ".join(f"{label}: {cell}" if label else cell for label, cell in pairs)
        builder.add(row, "table", (name,), separator="\n")


def _rows(sheet: Any) -> Iterator[list[str]]:
    for row in sheet.iter_rows(values_only=True):
        cells = [_text(value) for value in row]
        if any(cells):
            yield cells


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        midnight = not (value.hour or value.minute or value.second or value.microsecond)
        return value.date().isoformat() if midnight else value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return " ".join(str(value).split())


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("-", "", 1).isdigit()

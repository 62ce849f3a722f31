"""CSV and TSV: the text is the file's own, one block for each record, quoted line ends respected."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence

from ragindex.loaders.decode import decode
from ragindex.loaders.draft import Cut, Draft, Source, blocks_between, check_length
from ragindex.types import MetadataValue

__all__ = ["parse"]

_DELIMITERS = ",;\t|"
# A record of more lines is a stray quotation mark, which must not swallow the rest of the file.
_LONGEST_RECORD = 200
_SAMPLE_LINES = 50


def parse(source: Source) -> Draft:
    """Metadata: `columns` (names joined by commas, when the first record looks like a header) and `rows`."""
    decoded = decode(source.data)
    check_length(len(decoded.text), source.limits)
    lines = decoded.text.split("\n")
    cuts = [Cut(line, "table") for line in _records(lines)]
    metadata: dict[str, MetadataValue] = {"encoding": decoded.encoding, "rows": len(cuts)}
    header = _header(lines, cuts, "\t" if source.suffix in (".tsv", ".tab") else "")
    if header:
        metadata.update({"columns": ", ".join(header), "rows": len(cuts) - 1})
    return Draft(decoded.text, blocks=blocks_between(lines, cuts), metadata=metadata)


def _records(lines: Sequence[str]) -> Iterator[int]:
    """The first line of each record that is not blank."""
    number = 0
    while number < len(lines):
        stop = number + 1
        if lines[number].count('"') % 2:
            stop = _quoted_end(lines, number)
        if lines[number].strip() or stop > number + 1:
            yield number
        number = stop


def _quoted_end(lines: Sequence[str], number: int) -> int:
    for following in range(number + 1, min(len(lines), number + _LONGEST_RECORD)):
        if lines[following].count('"') % 2:
            return following + 1
    return number + 1


def _header(lines: Sequence[str], cuts: Sequence[Cut], delimiter: str) -> list[str]:
    """The column names, or nothing: a header has two or more distinct names and no numbers."""
    if len(cuts) < 2:
        return []
    sample = [lines[cut.line] for cut in cuts[:_SAMPLE_LINES]]
    delimiter = delimiter or _delimiter(sample)
    try:
        names = [name.strip() for name in next(csv.reader([sample[0]], delimiter=delimiter))]
    except (csv.Error, StopIteration):
        return []
    plausible = len(names) > 1 and len(set(names)) == len(names) and all(names)
    return names if plausible and not any(_is_number(name) for name in names) else []


def _delimiter(sample: Sequence[str]) -> str:
    """The candidate that splits most records into as many fields as the first one."""

    def agreement(candidate: str) -> tuple[int, int]:
        counts = [line.count(candidate) for line in sample]
        return (sum(1 for count in counts if count == counts[0] > 0), counts[0])

    return max(_DELIMITERS, key=agreement)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True

"""TREC run files: what a system answered, in the format that trec_eval reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from ragindex.errors import UsageError
from ragindex.evaluation.metrics import ranked

__all__ = ["Run", "read_run", "write_run"]

Run = Mapping[str, Mapping[str, float]]


def write_run(run: Run, file: Path, *, tag: str = "ragindex") -> None:
    """Write scores by query and document, best first: `query Q0 document rank score tag`, separated by tabs.

    `read_run` gives the same scores back, to the last bit. Ids may hold spaces, which `read_run` understands and
    trec_eval does not. Raises UsageError for an id that holds a tab or a line break, and for a score that is not
    finite.
    """
    with file.open("w", encoding="utf-8", newline="\n") as stream:
        for query, scores in run.items():
            for rank, document in enumerate(ranked(scores), start=1):
                score = float(scores[document])
                if not math.isfinite(score):
                    raise UsageError(f"The score of document {document!r} for query {query!r} is not finite.")
                cells = (_cell(query), "Q0", _cell(document), str(rank), repr(score), _cell(tag))
                stream.write("\t".join(cells) + "\n")


def read_run(file: Path) -> dict[str, dict[str, float]]:
    """Scores by query and document, of a file separated by tabs or by spaces.

    Raises UsageError, with the line, for anything malformed or repeated.
    """
    result: dict[str, dict[str, float]] = {}
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        cells = line.rstrip("\r").split("\t") if line.count("\t") == 5 else line.split()
        if len(cells) != 6:
            raise UsageError(f"{file}:{number} has {len(cells)} columns; a TREC run has six.")
        query, document = cells[0], cells[2]
        try:
            score = float(cells[4])
        except ValueError as error:
            raise UsageError(f"{file}:{number} has the score {cells[4]!r}; it must be a number.") from error
        if document in result.setdefault(query, {}):
            raise UsageError(f"{file}:{number} names document {document!r} twice for query {query!r}.")
        result[query][document] = score
    return result


def _cell(text: str) -> str:
    if not text or text != text.strip() or any(mark in text for mark in "\t\r\n"):
        raise UsageError(f"The id {text!r} cannot be written to a TREC run file.")
    return text

"""Examples: a query and the text that answers it, and the files that hold them.

A line of a `.jsonl` or `.jsonl.gz` file is one of

    {"query" | "anchor" | "question", "positive" | "pos" | "answer" | "positives"}     pairs and triples
    {"title", "text"}                                                                  a record: its title finds it

Positives may be a string or a list, which makes an example of each. Pairs may also have "negative" | "neg" |
"negatives" (a string or a list, best first), "title" (of the positive), "instruction", "source" and "scores".
"""

from __future__ import annotations

import gzip
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ragindex.errors import TrainingError
from ragindex.evaluation import load_dataset
from ragindex.loaders.decode import clean
from ragindex.train.data.lines import DataLine, is_data_file, read_lines, stem

__all__ = ["Example", "read_examples", "write_examples"]

_QUERY = ("query", "anchor", "question")
_POSITIVE = ("positive", "pos", "answer", "positives")
_NEGATIVE = ("negative", "neg", "negatives")
_EXPECTED = "an example has query (or anchor, question) and positive (or pos, answer, positives), or title and text"


@dataclass(frozen=True, slots=True)
class Example:
    """A query with its positive.

    negatives: explicit hard ones, best first. title: of the positive, given to the document prompt. instruction: of
    the query, None is the encoder's default. source: data set or kind of pair; a batch holds one source only. scores:
    a teacher's, of the positive and then of each negative; empty when there are none.
    """

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    title: str = ""
    instruction: str | None = None
    source: str = ""
    scores: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.scores and len(self.scores) != 1 + len(self.negatives):
            raise TrainingError(
                f"An example has {len(self.scores)} scores; it needs one for its positive and one for each of its "
                f"{len(self.negatives)} negatives."
            )


def read_examples(path: Path, *, split: str = "train") -> Iterator[Example]:
    """The examples of a JSONL file, of a BEIR folder (an example for each relevant document of `split`), or of a
    folder of such files and folders, in the order of their names.

    A row without a source gets the name of its file or data set. Records without a title make no example. Raises
    TrainingError for a path that does not exist, holds no examples or has a malformed line (named by file and line),
    and UsageError for a malformed BEIR folder.
    """
    if not path.exists():
        raise TrainingError(f"{path} does not exist; give a .jsonl file, a BEIR folder or a folder of such files.")
    return _found_or_refused(path, _read(path, split))


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write examples as JSON Lines, packed when the name ends in `.gz`, and return how many. The file appears when it
    is complete; the same examples make the same bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    count = 0
    try:
        with partial.open("wb") as raw, _packed(raw, path) as file:
            for example in examples:
                count += 1
                file.write(json.dumps(_row(example), ensure_ascii=False) + "\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _row(example: Example) -> dict[str, object]:
    """The fields that are not at their defaults."""
    values = {entry.name: getattr(example, entry.name) for entry in fields(example)}
    return {entry.name: values[entry.name] for entry in fields(example) if values[entry.name] != entry.default}


def _packed(raw: io.BufferedWriter, path: Path) -> io.TextIOWrapper:
    # No name and no time inside: the bytes depend on the examples alone.
    binary: Any = gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) if path.suffix == ".gz" else raw
    return io.TextIOWrapper(binary, encoding="utf-8", newline="\n")


def _found_or_refused(path: Path, examples: Iterator[Example]) -> Iterator[Example]:
    empty = True
    for example in examples:
        empty = False
        yield example
    if empty:
        raise TrainingError(f"{path} holds no examples; {_EXPECTED}.")


def _read(path: Path, split: str) -> Iterator[Example]:
    if path.is_file():
        yield from _file(path)
    elif _is_beir(path):
        yield from _beir(path, split)
    else:
        for entry in sorted(path.iterdir()):
            if is_data_file(entry):
                yield from _file(entry)
            elif entry.is_dir() and _is_beir(entry):
                yield from _beir(entry, split)


def _is_beir(directory: Path) -> bool:
    return (directory / "qrels").is_dir() and any(is_data_file(file) for file in directory.glob("queries.jsonl*"))


def _beir(directory: Path, split: str) -> Iterator[Example]:
    dataset = load_dataset(directory, split=split)
    if dataset.corpus is None:
        raise TrainingError(f"{directory} keeps its corpus in files; examples are read from a corpus.jsonl.")
    for key, query in dataset.queries.items():
        for document, gain in dataset.qrels[key].items():
            passage = dataset.corpus.get(document)
            if gain <= 0 or passage is None or not query.strip():
                continue
            text, title = (passage.text, passage.title) if passage.text.strip() else (passage.title, "")
            if text.strip():
                yield Example(clean(query), clean(text), title=clean(title), source=dataset.name)


def _file(path: Path) -> Iterator[Example]:
    for line in read_lines(path):
        if line.data.strip():
            yield from _examples(line, stem(path))


def _examples(line: DataLine, source: str) -> Iterator[Example]:
    row = _object(line)
    query = _first(row, _QUERY)
    if query is None and "title" in row and "text" in row:
        title, text = _text(row, "title", line.where), _text(row, "text", line.where)
        if title.strip() and text.strip():
            yield Example(title, text, source=_optional(row, "source", line.where) or source)
        return
    positive, negative = _first(row, _POSITIVE), _first(row, _NEGATIVE)
    if query is None or positive is None:
        raise TrainingError(f"{line.where} has the keys {', '.join(map(repr, row)) or 'of nothing'}; {_EXPECTED}.")
    positives = _texts(row, positive, line.where)
    scores = _scores(row, line.where)
    if scores and len(positives) > 1:
        raise TrainingError(f'{line.where} has "scores" and several positives; give each positive a line of its own.')
    negatives = _texts(row, negative, line.where) if negative is not None else ()
    if scores and len(scores) != 1 + len(negatives):
        raise TrainingError(
            f'{line.where} has {len(scores)} "scores"; one for the positive and one for each of its {len(negatives)} '
            "negatives are needed."
        )
    for each in positives:
        yield Example(
            query=_filled(row, query, line.where),
            positive=each,
            negatives=negatives,
            title=_optional(row, "title", line.where) or "",
            instruction=_optional(row, "instruction", line.where),
            source=_optional(row, "source", line.where) or source,
            scores=scores,
        )


def _object(line: DataLine) -> Mapping[str, Any]:
    try:
        row = json.loads(line.data)
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{line.where} is not JSON ({error}); {_EXPECTED}.") from error
    if not isinstance(row, dict):
        raise TrainingError(f"{line.where} is not a JSON object; {_EXPECTED}.")
    return row


def _first(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((name for name in names if row.get(name) is not None), None)


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise TrainingError(f'{where} has a "{key}" that is not a string; {_EXPECTED}.')
    return clean(value)


def _filled(row: Mapping[str, Any], key: str, where: str) -> str:
    text = _text(row, key, where)
    if not text.strip():
        raise TrainingError(f'{where} has an empty "{key}"; remove the line or fill it.')
    return text


def _optional(row: Mapping[str, Any], key: str, where: str) -> str | None:
    return None if row.get(key) is None else _text(row, key, where)


def _texts(row: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = row[key]
    if isinstance(value, str):
        return (_filled(row, key, where),)
    if not isinstance(value, list):
        raise TrainingError(f'{where} has a "{key}" that is neither a string nor a list of strings; {_EXPECTED}.')
    return tuple(_filled({key: each}, key, where) for each in value)


def _scores(row: Mapping[str, Any], where: str) -> tuple[float, ...]:
    value = row.get("scores")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(map(_is_finite, value)):
        raise TrainingError(f'{where} has "scores" that are not a list of finite numbers.')
    return tuple(map(float, value))


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

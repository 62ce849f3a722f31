"""Judged data sets on disk: the BEIR layout, and folders of real files with judgments.

DIRECTORY/corpus.jsonl[.gz]     {"_id", "title", "text"} per line, or instead of it
DIRECTORY/corpus/               files; a document's id is its path below this folder, with forward slashes
DIRECTORY/queries.jsonl[.gz]    {"_id", "text"} per line
DIRECTORY/qrels/<split>.tsv     query-id, corpus-id, score, with or without a header; TREC's four columns also work
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ragindex.errors import UsageError
from ragindex.evaluation.metrics import Qrels

__all__ = ["Dataset", "Passage", "load_dataset", "save_dataset"]


class Passage(NamedTuple):
    """A document of a corpus; the title is empty when there is none."""

    title: str
    text: str


@dataclass(frozen=True)
class Dataset:
    """Queries with judgments over a corpus, which is either in memory (`corpus`) or a folder of files (`files`).

    queries: text by id, only those with a relevant document; qrels: judgments of these queries. unknown_queries and
    unknown_documents: ids that the judgments name and the data set lacks. An unknown document stays in `qrels`, as it
    does in trec_eval: it can never be found and lowers recall.
    """

    name: str
    corpus: Mapping[str, Passage] | None
    files: Path | None
    queries: Mapping[str, str]
    qrels: Qrels
    unknown_queries: tuple[str, ...] = ()
    unknown_documents: tuple[str, ...] = ()


class _Line(NamedTuple):
    where: str
    text: str


def load_dataset(directory: Path, *, split: str = "test") -> Dataset:
    """Read a data set.

    Raises UsageError, with file and line, for anything malformed, and when no query with a known relevant document is
    left.
    """
    if not directory.is_dir():
        raise UsageError(f"{directory} is not a folder.")
    listing, folder = _existing(directory, "corpus.jsonl"), directory / "corpus"
    corpus: dict[str, Passage] | None = None
    if listing is not None:
        corpus = {
            key: Passage(_text(row, "title", where), _text(row, "text", where)) for key, row, where in _rows(listing)
        }
        known = frozenset(corpus)
    elif folder.is_dir():
        known = frozenset(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    else:
        raise UsageError(f"{directory} has neither corpus.jsonl nor a corpus folder.")
    listing = _existing(directory, "queries.jsonl")
    if listing is None:
        raise UsageError(f"{directory} has no queries.jsonl.")
    queries = {key: _text(row, "text", where) for key, row, where in _rows(listing)}
    judgments = _judgments(directory, split)
    unknown = {document for judged in judgments.values() for document in judged} - known
    positive = {query: rows for query, rows in judgments.items() if any(gain > 0 for gain in rows.values())}
    qrels = {query: rows for query, rows in positive.items() if query in queries}
    if not any(gain > 0 and document in known for rows in qrels.values() for document, gain in rows.items()):
        raise UsageError(f"No query in {directory} has a relevant document in its corpus; do the ids in qrels match?")
    return Dataset(
        name=directory.resolve().name,
        corpus=corpus,
        files=folder if corpus is None else None,
        queries={query: queries[query] for query in qrels},
        qrels=qrels,
        unknown_queries=tuple(sorted(set(judgments) - set(queries))),
        unknown_documents=tuple(sorted(unknown)),
    )


def save_dataset(dataset: Dataset, directory: Path, *, split: str = "test") -> None:
    """Write a data set whose corpus is in memory in the BEIR layout; existing files are replaced.

    Raises UsageError for a data set of files, and for ids that a tab-separated file cannot hold.
    """
    if dataset.corpus is None:
        raise UsageError(f"Data set {dataset.name} is a folder of files; copy the folder instead.")
    rows = ["query-id\tcorpus-id\tscore"]
    for query, judgments in dataset.qrels.items():
        rows += [f"{_cell(query)}\t{_cell(document)}\t{gain}" for document, gain in judgments.items()]
    passages = ({"_id": key, "title": each.title, "text": each.text} for key, each in dataset.corpus.items())
    questions = ({"_id": key, "text": text} for key, text in dataset.queries.items())
    (directory / "qrels").mkdir(parents=True, exist_ok=True)
    for name, lines in (("corpus.jsonl", passages), ("queries.jsonl", questions)):
        with (directory / name).open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (directory / "qrels" / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8", newline="\n")


def _cell(text: str) -> str:
    if not text or text != text.strip() or any(mark in text for mark in "\t\r\n"):
        raise UsageError(f"The id {text!r} cannot be written to a tab-separated file.")
    return text


def _existing(directory: Path, name: str) -> Path | None:
    for file in (directory / name, directory / f"{name}.gz"):
        if file.is_file():
            return file
    return None


def _lines(file: Path) -> Iterator[_Line]:
    """The lines of a UTF-8 file that are not blank; only line feeds end a line, as JSON may hold other separators."""
    number = 0
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if line.strip():
                    yield _Line(f"{file}:{number}", line)
    except UnicodeDecodeError as error:
        raise UsageError(f"{file}:{number} is not UTF-8.") from error
    except (OSError, EOFError) as error:
        raise UsageError(f"{file} cannot be read after line {number}: {error}.") from error


class _Row(NamedTuple):
    key: str
    values: Mapping[str, Any]
    where: str


def _rows(file: Path) -> Iterator[_Row]:
    seen: set[str] = set()
    for where, line in _lines(file):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{where} is not JSON: {error}.") from error
        if not isinstance(values, dict):
            raise UsageError(f"{where} is not a JSON object.")
        key = values.get("_id")
        if isinstance(key, bool) or not isinstance(key, str | int) or key == "":
            raise UsageError(f'{where} has no "_id".')
        if str(key) in seen:
            raise UsageError(f"{where} repeats the id {str(key)!r}.")
        seen.add(str(key))
        yield _Row(str(key), values, where)


def _text(values: Mapping[str, Any], key: str, where: str) -> str:
    value = values.get(key)
    if value is None and key == "title":
        return ""
    if not isinstance(value, str):
        raise UsageError(f'{where} has no "{key}" that is a string.')
    return value


def _judgments(directory: Path, split: str) -> dict[str, dict[str, int]]:
    file = directory / "qrels" / f"{split}.tsv"
    if not file.is_file():
        others = sorted(path.stem for path in file.parent.glob("*.tsv"))
        hint = f"; there is {', '.join(others)}" if others else ""
        raise UsageError(f"{file} does not exist{hint}.")
    result: dict[str, dict[str, int]] = {}
    for number, (where, line) in enumerate(_lines(file)):
        cells = [cell.strip() for cell in line.split("\t")] if "\t" in line else line.split()
        if len(cells) not in {3, 4}:
            raise UsageError(f"{where} has {len(cells)} columns; it must have query-id, corpus-id and score.")
        query, document, gain = cells[0], cells[-2], _gain(cells[-1])
        if gain is None and number == 0:
            continue
        if gain is None:
            raise UsageError(f"{where} has the score {cells[-1]!r}; it must be a whole number.")
        if result.setdefault(query, {}).setdefault(document, gain) != gain:
            raise UsageError(f"{where} contradicts an earlier judgment of document {document!r} for query {query!r}.")
    return result


def _gain(cell: str) -> int | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None

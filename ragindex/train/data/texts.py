"""Plain text to learn language from, wherever it comes from: data files, documents, folders of them, stores.

A data file (`.jsonl` or `.jsonl.gz`) gives one text a line: the title or query, if there is one, above the text or
positive. Anything else gives one text a document, read as indexing would read it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ragindex.errors import TrainingError
from ragindex.loaders.decode import clean
from ragindex.train.data.documents import folder_documents, store_documents
from ragindex.train.data.lines import DataLine, is_data_file, read_lines
from ragindex.types import Failure

__all__ = ["Texts", "read_texts"]

_CATALOG = "catalog.sqlite"
_BEGINNING = ("title", "query", "anchor", "question")
_BODY = ("text", "positive", "pos", "answer", "positives")
_EXPECTED = "a text is an object with text (and perhaps title), or query and positive"


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts without exact repeats, in the order they were found. fingerprint: hex digest over all of them."""

    items: Sequence[str]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[str]:
        return iter(self.items)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Leaves out what is blank and what was there before."""
        kept: dict[bytes, str] = {}
        for text in texts:
            if text.strip():
                kept.setdefault(blake2b(text.encode("utf-8", "replace"), digest_size=16).digest(), text)
        digest = blake2b(b"".join(kept), digest_size=16)
        return cls(list(kept.values()), digest.hexdigest())


def read_texts(
    paths: Sequence[Path], *, collection: str = "default", failed: Callable[[Failure], None] | None = None
) -> Texts:
    """The texts of data files, of documents, of folders of documents, and of stores (folders with a catalogue).

    All of them are held in memory. failed: is told about each file that cannot be read. Raises TrainingError for a
    malformed line, named by file and line, and for a path that holds no text.
    """

    def found() -> Iterator[str]:
        for path in paths:
            empty = True
            for text in _of(path, collection, failed):
                if text.strip():
                    empty = False
                    yield text
            if empty:
                raise TrainingError(f"{path} holds no text to train on; {_EXPECTED}, and other files are documents.")

    return Texts.of(found())


def _of(path: Path, collection: str, failed: Callable[[Failure], None] | None) -> Iterator[str]:
    if is_data_file(path):
        return map(_text, (line for line in read_lines(path) if line.data.strip()))
    if (path / _CATALOG).is_file():
        return (document.text for document in store_documents(path, collection=collection))
    return (document.text for document in folder_documents(path, failed=failed))


def _text(line: DataLine) -> str:
    try:
        row: Any = json.loads(line.data)
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{line.where} is not JSON ({error}); {_EXPECTED}.") from error
    body = _part(row, _BODY, line.where) if isinstance(row, dict) else None
    if body is None:
        raise TrainingError(f"{line.where} has no text; {_EXPECTED}.")
    beginning = _part(row, _BEGINNING, line.where)
    return clean(f"{beginning}\n{body}" if beginning else body)


def _part(row: Mapping[str, Any], keys: Sequence[str], where: str) -> str | None:
    value = next((row[key] for key in keys if row.get(key) is not None), None)
    if value is None:
        return None
    parts: list[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(part, str) for part in parts):
        raise TrainingError(f"{where} has a value that is no string; {_EXPECTED}.")
    return "\n".join(parts)

"""Where documents to train on come from: a folder, a store; and how some of them are kept apart for testing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from ragindex.config import Limits
from ragindex.errors import LoadError, TrainingError, UsageError
from ragindex.loaders import LoaderPool, WalkEntry, walk
from ragindex.loaders.draft import Draft, Source
from ragindex.loaders.formats import format_of
from ragindex.store.catalog import Catalog
from ragindex.train.data.keys import folded
from ragindex.types import Document, Failure

__all__ = ["DocumentSplit", "folder_documents", "parsed_again", "split_documents", "store_documents"]

_VERBATIM = frozenset({"code", "markdown", "rst", "text"})  # parsers that change nothing in the text


class DocumentSplit(NamedTuple):
    """Documents to train on and documents to test on; no text is in both."""

    train: list[Document]
    held_out: list[Document]


def folder_documents(
    root: Path,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limits: Limits | None = None,
    failed: Callable[[Failure], None] | None = None,
) -> Iterator[Document]:
    """The documents below a folder (or one file), as indexing would read them; paths are relative to `root`.

    `include` and `exclude` as in `loaders.walk`. A file that cannot be read is passed to `failed` and left out. Raises
    UsageError when `root` does not exist, TrainingError when there is nothing in it that can be read.
    """
    entries = walk(root, include=include, exclude=exclude)
    base = root.resolve() if root.is_dir() else root.resolve().parent
    found = False
    with LoaderPool(limits or Limits()) as pool:
        for entry in entries:
            document = _loaded(pool, entry, entry.path.relative_to(base).as_posix())
            if isinstance(document, Document):
                found = True
                yield document
            elif failed is not None:
                failed(document)
    if not found:
        raise TrainingError(f"{root} holds no file that can be read; training needs documents.")


def store_documents(directory: Path, *, collection: str = "default") -> Iterator[Document]:
    """The documents of a store (`.ragindex`), in the order of their paths, without reading their files.

    Raises StoreError when there is no store, UsageError for an unknown collection, TrainingError when it is empty.
    """
    with Catalog.open(directory, create=False) as catalog:
        found = False
        for document in catalog.iter_documents(catalog.collection(collection)):
            found = True
            yield parsed_again(document)
    if not found:
        raise TrainingError(f"{directory} holds no documents in {collection!r}; run `ragindex index PATH` first.")


def parsed_again(document: Document) -> Document:
    """A document of a store with all its blocks, where the format allows.

    A store keeps chunks, not blocks, and forgets headings of small sections that were joined in one. Where the text is
    the file's own (Markdown, program text), its parser finds them again.
    """
    file = Path(document.path)
    known = format_of(file)
    if known is None or known.module not in _VERBATIM:
        return document
    source = Source(document.text.encode(), file.name, file.suffix.lower(), Limits())
    try:
        draft: Draft = importlib.import_module(f"ragindex.loaders.{known.module}").parse(source)
    except LoadError:
        return document
    return replace(document, blocks=draft.blocks) if draft.text == document.text else document


def split_documents(documents: Iterable[Document], *, share: float, seed: int = 0) -> DocumentSplit:
    """Keep about `share` of the documents apart, chosen by a hash of their text and the seed.

    The choice for a document does not depend on the others, and documents with the same text (`keys.folded`) stay
    together. Raises UsageError for a share outside of 0 to 1.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"The share of held-out documents is {share}; it must be from 0 to 1.")
    split = DocumentSplit([], [])
    for document in documents:
        text = f"{seed} {folded(document.text)}".encode("utf-8", "surrogatepass")
        draw = int.from_bytes(blake2b(text, digest_size=8).digest()) / 2**64
        (split.held_out if draw < share else split.train).append(document)
    return split


def _loaded(pool: LoaderPool, entry: WalkEntry, name: str) -> Document | Failure:
    if entry.skipped is not None:
        return Failure(name, entry.skipped)
    try:
        return pool.load(entry.path, name)
    except LoadError as error:
        return Failure(name, error.reason)

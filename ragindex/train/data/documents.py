"""Where documents to train on come from: a folder, a store; and how some of them are kept apart for testing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from ragindex.config import Limits
from ragindex.errors import LoadError, TrainingError, UsageError
from ragindex.loaders import LoaderPool, WalkEntry, walk
from ragindex.loaders.draft import Draft, Source
from ragindex.loaders.formats import format_of
from ragindex.store.catalog import Catalog, ChunkRow
from ragindex.train.data.keys import folded
from ragindex.types import Block, Document, Failure

__all__ = ["DocumentSplit", "folder_documents", "split_documents", "store_documents"]

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

    A store keeps texts and chunks, not blocks: where the text is the file's own (Markdown, program text), its parser
    finds them again, else each chunk becomes a block under its headings. Raises StoreError when there is no store,
    UsageError for an unknown collection, TrainingError when the collection is empty.
    """
    with Catalog.open(directory, create=False) as catalog:
        identifier = catalog.collection(collection)
        found = False
        for row in catalog.documents(identifier):
            try:
                text = catalog.document_text(identifier, row.path)
            except UsageError:
                continue  # removed meanwhile
            found = True
            yield Document(
                path=row.path,
                text=text,
                title=row.title,
                blocks=_parsed_again(row.path, text) or _blocks(text, catalog.chunks_of(identifier, row.path)),
                sha256=row.sha256,
                metadata=row.metadata,
            )
    if not found:
        raise TrainingError(f"{directory} holds no documents in {collection!r}; run `ragindex index PATH` first.")


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


def _parsed_again(path: str, text: str) -> tuple[Block, ...]:
    file = Path(path)
    known = format_of(file)
    if known is None or known.module not in _VERBATIM:
        return ()
    source = Source(text.encode(), file.name, file.suffix.lower(), Limits())
    try:
        draft: Draft = importlib.import_module(f"ragindex.loaders.{known.module}").parse(source)
    except LoadError:
        return ()
    return draft.blocks if draft.text == text else ()


def _blocks(text: str, chunks: Sequence[ChunkRow]) -> tuple[Block, ...]:
    """A block for what each chunk adds to the one before it: chunks overlap, blocks must not."""
    blocks: list[Block] = []
    done = 0
    for chunk in chunks:
        start, end = max(chunk.start, done), min(chunk.end, len(text))
        if start < end:
            blocks.append(Block(start, end, "prose", chunk.heading))
            done = end
    return tuple(blocks)

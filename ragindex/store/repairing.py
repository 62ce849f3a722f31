"""Repairs a catalogue: first its pages, then its rows, from what can still be read of it and from its snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from ragindex.errors import CorruptionError, MissingDependencyError
from ragindex.store.catalog import Catalog
from ragindex.store.mending import CopiesOf
from ragindex.store.rows import Mark
from ragindex.store.snapshot import dense_folder

__all__ = ["repair", "trusted_copies", "unlike_copies"]

_LIMIT = 100


def repair(directory: Path) -> None:
    """Under the lease: mend what can be mended without embedding. Raises StoreError when the disk refuses, and
    CorruptionError when nothing of the catalogue can be read.
    """
    marks: Mapping[int, Mark] | None = None
    if _is_broken(directory):
        from ragindex.store.salvage import salvage

        marks = salvage(directory)
    with Catalog.open(directory, create=False) as catalog:
        catalog.mend(trusted_copies(catalog, marks))


def trusted_copies(catalog: Catalog, marks: Mapping[int, Mark] | None = None) -> list[CopiesOf]:
    """The dense snapshots, of all collections and of the encoders that serve or did before, that are of this catalogue.

    marks: where the history of each collection stood, where it was lost since.
    """
    from ragindex.store import dense_files
    from ragindex.store.copies import sound_copies

    found = []
    for name in catalog.collections():
        collection = catalog.collection(name)
        for encoder in (catalog.encoder(), catalog.previous_encoder()):
            if encoder is None:
                continue
            folder = dense_folder(catalog.directory, collection, encoder)
            manifest = dense_files.read_manifest(folder)
            if manifest is None:
                continue
            if marks is None:
                known = catalog.changes_since(collection, manifest.mark) is not None
            else:
                known = marks.get(collection) == manifest.mark
            if known:
                found.append(CopiesOf(encoder.id, sound_copies(folder, encoder.fingerprint, encoder.dimensions)))
    return found


def unlike_copies(catalog: Catalog) -> Iterator[str]:
    """What in the catalogue contradicts the snapshots, one sentence for each document, at most 100."""
    try:
        paths = dict.fromkeys(path for copies in trusted_copies(catalog) for path in catalog.unlike(copies))
        for path in islice(paths, _LIMIT):
            yield (
                f"The vector of a chunk of {path!r} is not the one that was stored, as the dense snapshot shows; run "
                "`ragindex repair`."
            )
    except (CorruptionError, MissingDependencyError):
        return  # told of elsewhere; without FAISS there is no dense search either


def _is_broken(directory: Path) -> bool:
    try:
        with Catalog.open(directory, create=False) as catalog:
            return not catalog.is_readable()
    except CorruptionError:
        return True

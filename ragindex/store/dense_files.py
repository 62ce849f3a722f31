"""The dense snapshot on disk, published atomically: an index, its vectors where its codes are short, a manifest.

The manifest is renamed into place after the files it names are safely on disk, so at any moment there is either the
old set or the new one. A set that does not hold together counts as absent: it can be made again from the catalogue.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ragindex.errors import StoreError
from ragindex.store.rows import IdArray, Mark, VectorBatch

if TYPE_CHECKING:
    from ragindex.store.faiss_base import Buffer
    from ragindex.store.faiss_index import FaissIndex
    from ragindex.store.vector_file import VectorFile

__all__ = ["Manifest", "Snapshot", "open_vectors", "publish", "read_manifest", "read_snapshot"]

_FORMAT = 3
_MANIFEST = "dense.json"
_PATTERN = "dense.*.*"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the snapshot is. `encoder` is the fingerprint, `checksum` the BLAKE2b hash of the bytes of `file`.

    vectors: the file of half floats that candidates are rescored with, "" where there is none; its rows have checksums
    of their own. scheme: a name of `schemes.SCHEMES`; near, far, recall: see `tuning.Tuning`.
    """

    format: int
    file: str
    vectors: str
    checksum: str
    generation: int
    token: int
    count: int
    scheme: str
    factory: str
    near: int
    far: int
    recall: float
    encoder: str

    @property
    def mark(self) -> Mark:
        """The place in history at which the snapshot was taken."""
        return Mark(self.generation, self.token)

    def files(self, folder: Path) -> list[Path]:
        """What lies in the folder beside the manifest."""
        return [folder / name for name in (self.file, self.vectors) if name]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A manifest and the bytes that its checksum vouches for, where they lie."""

    manifest: Manifest
    data: Buffer


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest, or None when there is none that this program understands."""
    try:
        values = json.loads((folder / _MANIFEST).read_bytes())
        manifest = Manifest(**values)
    except (OSError, ValueError, TypeError):
        return None
    texts = (manifest.file, manifest.vectors, manifest.scheme, manifest.factory, manifest.encoder)
    numbers = (manifest.generation, manifest.token, manifest.count, manifest.near, manifest.far)
    typed = all(isinstance(value, str) for value in texts) and all(isinstance(value, int) for value in numbers)
    if not typed or manifest.format != _FORMAT or not isinstance(manifest.recall, float | int):
        return None
    names = [manifest.file, *([manifest.vectors] if manifest.vectors else [])]
    return manifest if all(Path(name).name == name for name in names) else None


def read_snapshot(folder: Path) -> Snapshot | None:
    """The snapshot with its checksum proven, or None when it is absent or damaged."""
    for _ in range(3):  # a writer may replace the set between the two reads
        manifest = read_manifest(folder)
        if manifest is None:
            return None
        try:
            data = _mapped(folder / manifest.file)
        except OSError:
            continue
        if _checksum(data) == manifest.checksum:
            return Snapshot(manifest, data)
    return None


def open_vectors(folder: Path, manifest: Manifest, ids: IdArray, dimensions: int) -> VectorFile | None:
    """The vectors of a snapshot; None where it has none, or they are gone or of another number."""
    from ragindex.store.vector_file import VectorFile

    if not manifest.vectors:
        return None
    try:
        return VectorFile(folder / manifest.vectors, ids, dimensions)
    except (OSError, ValueError):
        return None


def publish(
    folder: Path, index: FaissIndex, *, mark: Mark, encoder: str, vectors: Iterable[VectorBatch] = ()
) -> Manifest:
    """Write the snapshot and take older ones away. Raises StoreError when the disk refuses.

    vectors: those of the index by ascending id, to rescore with; none are kept where they are not exactly its own.
    """
    from ragindex.store.vector_file import write_vectors

    name = f"dense.{mark.generation}-{secrets.token_hex(4)}"
    file = folder / f"{name}.{'codes' if index.scheme.kind == 'codes' else 'faiss'}"
    rows = folder / f"{name}.vectors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        index.save(file)
        kept = index.scheme.rescored and len(index) > 0 and write_vectors(rows, index.ids, vectors)
        for written in [file, *([rows] if kept else [])]:
            _sync(written)
        manifest = Manifest(
            format=_FORMAT,
            file=file.name,
            vectors=rows.name if kept else "",
            checksum=_checksum(_mapped(file)),
            generation=mark.generation,
            token=mark.token,
            count=len(index),
            scheme=index.scheme.name,
            factory=index.factory,
            near=index.tuning.near,
            far=index.tuning.far,
            recall=round(index.tuning.recall, 4),
            encoder=encoder,
        )
        draft = folder / f"{_MANIFEST}.part"
        draft.write_text(json.dumps(asdict(manifest)))
        _sync(draft)
        draft.replace(folder / _MANIFEST)
        _sync(folder)
    except (OSError, RuntimeError) as error:
        raise StoreError(f"The dense snapshot in {folder} cannot be written: {error}.") from error
    for old in folder.glob(_PATTERN):
        if old not in manifest.files(folder):
            with contextlib.suppress(OSError):
                old.unlink()
    return manifest


def _mapped(file: Path) -> Buffer:
    """A file's bytes where they lie: the system reads them when they are looked at, and may forget them again."""
    import numpy as np

    with file.open("rb") as opened:
        if file.stat().st_size == 0:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _checksum(data: Buffer) -> str:
    return hashlib.blake2b(data.data, digest_size=16).hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

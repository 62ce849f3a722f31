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
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ragindex.errors import StoreError
from ragindex.store.rows import IdArray, Mark, VectorBatch

if TYPE_CHECKING:
    from ragindex.store.faiss_base import Buffer
    from ragindex.store.faiss_index import FaissIndex
    from ragindex.store.feeding import Feeding
    from ragindex.store.vector_file import VectorFile

__all__ = ["Manifest", "Snapshot", "is_level", "is_unread", "open_vectors", "publish", "read_manifest", "read_snapshot"]

_FORMAT = 4
_BLOCK = 1 << 20  # bytes that share a checksum
_REWRITTEN_UP_TO = 20_000  # vectors; a smaller snapshot is written in a moment
_LEFT = 0.01
_MANIFEST = "dense.json"
_PATTERN = "dense.*.*"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the snapshot is. `encoder` is the fingerprint, `checksum` that of the bytes of `file`.

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

    @property
    def left(self) -> int:
        """So many changes are left to be replayed by whoever opens the snapshot, rather than that it is written again:
        a batch of some hundred rows must not cost as much as a million.
        """
        return 0 if self.count <= _REWRITTEN_UP_TO else int(_LEFT * self.count)

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


def is_unread(folder: Path) -> bool:
    """Whether a manifest is there that this program does not understand: damaged, or of another version."""
    return (folder / _MANIFEST).exists() and read_manifest(folder) is None


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
        if _checksum(_blocks_of(data)) == manifest.checksum:
            return Snapshot(manifest, data)
    return None


def is_level(manifest: Manifest, catalog: Feeding, collection: int) -> bool:
    """Whether opening the snapshot takes no more than to replay the little that is left to be replayed."""
    now = catalog.mark(collection)
    if manifest.mark == now:
        return True
    few = 0 < now.generation - manifest.generation <= manifest.left
    # Numbers alone would take a catalogue that was restored and written to again for the one of this snapshot.
    return few and catalog.changes_since(collection, manifest.mark) is not None


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
            checksum=_checksum(_blocks_in(file)),
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


def _checksum(blocks: Iterable[memoryview | bytes]) -> str:
    """A hash of the CRC-32 of every block of `_BLOCK` bytes. It is taken at each opening, of up to gigabytes, and has
    to tell damage, not forgery: this is four times as fast as a cryptographic hash of the bytes.
    """
    sums = b"".join(zlib.crc32(block).to_bytes(4, "big") for block in blocks)
    return hashlib.blake2b(sums, digest_size=16).hexdigest()


def _blocks_of(data: Buffer) -> Iterator[memoryview]:
    return (data.data[start : start + _BLOCK] for start in range(0, data.size, _BLOCK))


def _blocks_in(file: Path) -> Iterator[bytes]:
    """The same read and let go of: a map would stand in the way of the index that the writer still holds."""
    with file.open("rb") as opened:
        yield from iter(lambda: opened.read(_BLOCK), b"")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

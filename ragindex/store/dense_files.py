"""The dense snapshot on disk: a FAISS file and a manifest that says what it is, published atomically.

The manifest is renamed into place after the file it names is safely on disk, so at any moment there is either the old
pair or the new one. A pair that does not hold together counts as absent: it can be made again from the catalogue.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ragindex.errors import StoreError
from ragindex.store.rows import Mark

if TYPE_CHECKING:
    from ragindex.store.faiss_index import FaissIndex

__all__ = ["Manifest", "publish", "read_manifest", "read_snapshot"]

_FORMAT = 2
_MANIFEST = "dense.json"
_PATTERN = "dense.*.faiss*"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the snapshot is. `encoder` is the fingerprint, `checksum` the BLAKE2b hash of the file's bytes."""

    format: int
    file: str
    checksum: str
    generation: int
    token: int
    count: int
    factory: str
    encoder: str

    @property
    def mark(self) -> Mark:
        """The place in history at which the snapshot was taken."""
        return Mark(self.generation, self.token)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A manifest and the bytes that its checksum vouches for."""

    manifest: Manifest
    data: bytes


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest, or None when there is none that this program understands."""
    try:
        values = json.loads((folder / _MANIFEST).read_bytes())
        manifest = Manifest(**values)
    except (OSError, ValueError, TypeError):
        return None
    typed = (isinstance(manifest.generation, int), isinstance(manifest.token, int), isinstance(manifest.file, str))
    return manifest if all(typed) and manifest.format == _FORMAT and Path(manifest.file).name == manifest.file else None


def read_snapshot(folder: Path) -> Snapshot | None:
    """The snapshot with its checksum proven, or None when it is absent or damaged."""
    for _ in range(3):  # a writer may replace the pair between the two reads
        manifest = read_manifest(folder)
        if manifest is None:
            return None
        try:
            data = (folder / manifest.file).read_bytes()
        except OSError:
            continue
        if _checksum(data) == manifest.checksum:
            return Snapshot(manifest, data)
    return None


def publish(folder: Path, index: FaissIndex, mark: Mark, encoder: str) -> Manifest:
    """Write the snapshot and take older ones away. Raises StoreError when the disk refuses."""
    name = f"dense.{mark.generation}-{secrets.token_hex(4)}.faiss"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        index.save(folder / name)
        data = (folder / name).read_bytes()
        _sync(folder / name)
        manifest = Manifest(
            _FORMAT, name, _checksum(data), mark.generation, mark.token, len(index), index.factory, encoder
        )
        draft = folder / f"{_MANIFEST}.part"
        draft.write_text(json.dumps(asdict(manifest)))
        _sync(draft)
        draft.replace(folder / _MANIFEST)
        _sync(folder)
    except (OSError, RuntimeError) as error:
        raise StoreError(f"The dense snapshot in {folder} cannot be written: {error}.") from error
    for old in folder.glob(_PATTERN):
        if old.name != name:
            with contextlib.suppress(OSError):
                old.unlink()
    return manifest


def _checksum(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

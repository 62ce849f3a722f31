"""The second copy of every vector: the dense snapshots, which have checksums that the catalogue's rows lack.

A bit that flips within a vector leaves SQLite, and mostly the vector's length, content. So `verify` compares, and
`repair` takes the snapshot's word. What the snapshot holds differs from the catalogue's half floats in no bit, whatever
its scheme: either it scores with them or it keeps them beside to rescore with.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ragindex.store.dense_build import read
from ragindex.store.dense_files import Snapshot, open_vectors, read_snapshot
from ragindex.store.faiss_base import load_faiss, read_mapped
from ragindex.store.rows import Float16Array, IdArray
from ragindex.store.schemes import SCHEMES
from ragindex.store.tuning import Tuning

__all__ = ["Copies", "Differing", "differing", "sound_copies"]

_BATCH = 8192
_STORED = (
    "SELECT chunks.id, chunks.vector_key, vectors.data FROM chunks "
    "LEFT JOIN vectors ON vectors.key = chunks.vector_key AND vectors.encoder_id = ? "
    "WHERE chunks.id IN (SELECT value FROM json_each(?))"
)


class Copies(NamedTuple):
    """Vectors (n, d) by chunk id (n,), as bytes of half floats that a checksum vouches for."""

    ids: IdArray
    rows: Float16Array


class Differing(NamedTuple):
    """A chunk whose vector in the catalogue is not the one that was stored, which is `data`."""

    chunk_id: int
    key: bytes
    data: bytes


def sound_copies(folder: Path, encoder: str, dimensions: int) -> Iterator[Copies]:
    """What the snapshot in `folder` holds of this encoder's vectors; nothing where there is none that is sound.

    Raises MissingDependencyError without FAISS.
    """
    snapshot = read_snapshot(folder)
    if snapshot is None or snapshot.manifest.encoder != encoder or snapshot.data.size == 0:
        return
    try:
        for copies in _copies(folder, snapshot, dimensions):
            yield from _batches(copies)
    except (ValueError, AttributeError):
        return  # an index that another program wrote, or none


def differing(connection: sqlite3.Connection, encoder_id: int, copies: Copies) -> Iterator[Differing]:
    """The chunks that still exist and whose vector is missing in the catalogue, or another one."""
    wanted = json.dumps(copies.ids.tolist())
    for chunk_id, key, data in connection.execute(_STORED, (encoder_id, wanted)):
        copy = copies.rows[int(np.searchsorted(copies.ids, chunk_id))].tobytes()
        if copy != data:
            yield Differing(chunk_id, key, copy)


def _copies(folder: Path, snapshot: Snapshot, dimensions: int) -> Iterator[Copies]:
    manifest, scheme = snapshot.manifest, SCHEMES.get(snapshot.manifest.scheme)
    if scheme is None:
        return
    if scheme.rescored:
        ids = read(scheme, Tuning(manifest.near, manifest.far, manifest.recall), snapshot.data).ids
        vectors = open_vectors(folder, manifest, ids, dimensions)
        if vectors is not None:
            for start in range(0, len(ids), _BATCH):
                found = vectors.fetch(ids[start : start + _BATCH])
                yield Copies(found.ids, found.vectors.astype("<f2"))
        return
    faiss = load_faiss()
    index = read_mapped(faiss, snapshot.data)
    if index.d != dimensions:
        return
    if scheme.kind == "lists":
        yield from _of_lists(faiss, index)
        return
    inner = faiss.downcast_index(index.index)
    ids = np.asarray(faiss.vector_to_array(index.id_map), np.int64)
    if scheme.kind == "flat":
        rows = np.asarray(faiss.rev_swig_ptr(inner.get_xb(), index.ntotal * index.d), np.float32)
        yield Copies(ids, rows.reshape(index.ntotal, index.d).astype("<f2"))
    else:
        yield Copies(ids, _halves(faiss.vector_to_array(faiss.downcast_index(inner.storage).codes), index.d))


def _of_lists(faiss: Any, index: Any) -> Iterator[Copies]:
    lists = index.invlists
    for number in range(index.nlist):
        size = lists.list_size(number)
        if size:
            codes = faiss.rev_swig_ptr(lists.get_codes(number), size * lists.code_size)
            ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
            yield Copies(np.array(ids, np.int64), _halves(np.array(codes, np.uint8), index.d))


def _halves(codes: npt.NDArray[np.uint8], dimensions: int) -> Float16Array:
    return np.frombuffer(codes.tobytes(), "<f2").reshape(-1, dimensions)


def _batches(copies: Copies) -> Iterator[Copies]:
    """Pieces in the order of ids, of those that are no tombstones."""
    order = np.argsort(copies.ids, kind="stable")
    order = order[np.count_nonzero(copies.ids < 0) :]
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        yield Copies(copies.ids[part], copies.rows[part])

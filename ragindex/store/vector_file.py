"""The vectors of a snapshot as a memory-mapped file of half floats, each row with a checksum of its own.

Reading a row touches its pages alone, so vectors on disk cost memory only while the system has some to spare. Opening
reads nothing: a row's checksum is compared when the row is read, and one that does not hold counts as absent.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ragindex.store.rows import IdArray, VectorBatch
from ragindex.store.vector_index import inside

__all__ = ["VectorFile", "write_vectors"]

_BLOCK = 8192


class VectorFile:
    """Vectors by id. Thread-safe.

    The file holds n rows of d little-endian half floats by ascending id, then n CRC-32 of row and id.
    """

    def __init__(self, path: Path, ids: IdArray, dimensions: int) -> None:
        """The ids (n,) are those of the rows, ascending. Raises OSError, and ValueError when the file has another size
        than theirs.
        """
        count = len(ids)
        rows = 2 * count * dimensions
        with path.open("rb") as file:
            if count == 0 or path.stat().st_size != rows + 4 * count:
                raise ValueError(f"{path} does not hold {count} vectors of {dimensions} values")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):
            mapped.madvise(mmap.MADV_RANDOM)  # a candidate says nothing about its neighbours: read no more than its row
        self._ids = ids
        self._rows = np.frombuffer(mapped, np.uint8, rows).reshape(count, 2 * dimensions)
        self._checks = np.frombuffer(mapped, "<u4", count, rows)

    def fetch(self, ids: IdArray) -> VectorBatch:
        """The vectors of those ids that the file holds undamaged, in the order asked for."""
        present = ids[inside(self._ids, ids)]
        places = np.searchsorted(self._ids, present)
        rows = self._rows[places]
        sound = _checksums(present, rows) == self._checks[places]
        if not sound.all():
            present, rows = present[sound], rows[sound]
        return VectorBatch(present, rows.view("<f2").astype(np.float32))

    def damaged(self) -> int:
        """How many rows do not match their checksums; reads the whole file."""
        found = 0
        for start in range(0, len(self._ids), _BLOCK):
            part = slice(start, start + _BLOCK)
            found += int(np.count_nonzero(_checksums(self._ids[part], self._rows[part]) != self._checks[part]))
        return found


def write_vectors(path: Path, ids: IdArray, batches: Iterable[VectorBatch]) -> bool:
    """Write the vectors of ids (n,), ascending, out of batches in that order; whether all of them came.

    Values are those of the catalogue, so that nothing is lost in half floats. Raises OSError.
    """
    checks, held = [], 0
    with path.open("wb") as file:
        for batch in batches:
            kept = inside(ids, batch.ids)
            own = batch.ids[kept]
            if not np.array_equal(own, ids[held : held + len(own)]):
                return False
            rows = np.ascontiguousarray(batch.vectors[kept].astype("<f2")).view(np.uint8).reshape(len(own), -1)
            file.write(rows.data)
            checks.append(_checksums(own, rows))
            held += len(own)
        for part in checks:
            file.write(part.astype("<u4").data)
    return held == len(ids)


def _checksums(ids: IdArray, rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """The id is part of it: an intact row in another's place is damage too."""
    return np.fromiter(
        (zlib.crc32(row.data, one & 0xFFFFFFFF) for one, row in zip(ids.tolist(), rows, strict=True)),
        np.uint32,
        len(ids),
    )

"""The FAISS module: loaded here alone, with the few things that every index made with it needs."""

from __future__ import annotations

import importlib.metadata
import math
from typing import Any

import numpy as np

from ragindex.errors import MissingDependencyError
from ragindex.store.rows import IdArray

__all__ = ["Buffer", "load_faiss", "own_copy", "read_mapped", "selector", "trainable_lists"]

_BITMAP_BYTES = 64 << 20
_LEAST_PER_LIST = 39  # training vectors; with fewer FAISS warns
_BUILDS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")

Buffer = np.ndarray[tuple[int], np.dtype[np.uint8]]


def load_faiss() -> Any:
    """The FAISS module. Raises MissingDependencyError when no build of it is installed, or several are."""
    installed = [name for name in _BUILDS if _is_installed(name)]
    if len(installed) > 1:
        raise MissingDependencyError(
            f"{' and '.join(installed)} are installed at once and overwrite each other; "
            "run `pip uninstall -y " + " ".join(installed) + "` and install one again."
        )
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError("Dense search needs FAISS; run `pip install 'ragindex[cpu]'`.") from error
    return faiss


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def selector(faiss: Any, ids: IdArray) -> Any:
    """What restricts a search to ascending ids."""
    size = int(ids[-1]) // 8 + 1
    if size > _BITMAP_BYTES:
        return faiss.IDSelectorBatch(ids)
    bits = np.zeros(size * 8, np.uint8)
    bits[ids] = 1
    return faiss.IDSelectorBitmap(np.packbits(bits, bitorder="little"))


def trainable_lists(count: int, sample: int | None = None) -> int:
    """How many inverted lists suit that many vectors, when so many of them (None: all) are there to train on."""
    return max(1, min(16 * round(4 * math.sqrt(count) / 16), (sample or count) // _LEAST_PER_LIST))


def read_mapped(faiss: Any, data: Buffer) -> Any:
    """The index that a buffer holds, without a copy: whoever has it must keep the buffer and change nothing.

    Raises ValueError when the bytes are no FAISS index.
    """
    try:
        return faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(data), data.size))
    except RuntimeError as error:
        raise ValueError("not a FAISS index") from error


def own_copy(faiss: Any, index: Any) -> Any:
    """A copy that may be changed. FAISS's own way to clone shares memory that is mapped, and writes into it."""
    return faiss.deserialize_index(faiss.serialize_index(index))

"""The FAISS module and the immutable indexes made with it: flat when small, inverted lists when large."""

from __future__ import annotations

import importlib.metadata
import math
from typing import Any

import numpy as np

from ragindex.errors import MissingDependencyError
from ragindex.store.rows import Float32Array, IdArray

__all__ = ["build", "flat_rows", "is_flat_size", "load_faiss", "selector", "stored_ids"]

_FLAT_UP_TO = 20_000  # vectors; an exact scan of these takes about a millisecond
_SAMPLE_PER_LIST = 64  # training vectors per inverted list; FAISS itself asks for at least 39
_PROBE_QUERIES = 64
_RECALL = 0.99  # of the ten nearest, measured at build time on imitated queries
_OFF = 2.0  # length of the noise that makes a query of a unit vector
_BITMAP_BYTES = 64 << 20
_BUILDS = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs")


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


def is_flat_size(count: int) -> bool:
    """Whether that many vectors are best kept as they are."""
    return count <= _FLAT_UP_TO


def selector(faiss: Any, ids: IdArray) -> Any:
    """What restricts a search to ascending ids."""
    size = int(ids[-1]) // 8 + 1
    if size > _BITMAP_BYTES:
        return faiss.IDSelectorBatch(ids)
    bits = np.zeros(size * 8, np.uint8)
    bits[ids] = 1
    return faiss.IDSelectorBitmap(np.packbits(bits, bitorder="little"))


def build(faiss: Any, ids: IdArray, vectors: Float32Array) -> Any:
    """An index of vectors (n, d) under ids (n,); its kind is chosen by n."""
    count, dimensions = vectors.shape
    order = np.argsort(ids)
    ids, vectors = ids[order], vectors[order]
    if is_flat_size(count):
        base = faiss.IndexIDMap2(faiss.IndexFlatIP(dimensions))
        base.add_with_ids(vectors, ids)
        return base
    lists = 16 * round(4 * math.sqrt(count) / 16)
    base = faiss.index_factory(dimensions, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
    base.cp.seed, base.cp.niter = 1234, 10
    base.by_residual = False  # codes of the vectors themselves are exact: they are half floats already
    sample = np.random.default_rng(0).permutation(count)[: lists * _SAMPLE_PER_LIST]
    base.train(vectors[np.sort(sample)])
    base.add_with_ids(vectors, ids)
    base.nprobe = _probes(base, vectors)
    return base


def _probes(base: Any, vectors: Float32Array) -> int:
    """The fewest lists to visit that find the ten nearest of imitated queries.

    Queries lie less near to texts than texts do to each other, so sampled vectors are pushed off their place until
    the cosine to where they were is 0.45, about that of the queries and their answers in the development sets.
    """
    draw = np.random.default_rng(1)
    sample = vectors[draw.integers(0, len(vectors), _PROBE_QUERIES)]
    noise = draw.standard_normal(sample.shape, np.float32)
    asked = sample + _OFF * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    base.nprobe = base.nlist
    truth = base.search(asked, 10)[1]
    probes = 8
    while probes < base.nlist:
        base.nprobe = probes
        found = base.search(asked, 10)[1]
        hit = sum(len(np.intersect1d(one, other)) for one, other in zip(found, truth, strict=True))
        if hit >= _RECALL * truth.size:
            break
        probes = math.ceil(1.4 * probes)
    return int(min(base.nlist, probes))


def flat_rows(faiss: Any, base: Any) -> Float32Array:
    """The vectors of a flat base (n, d) in the order of its ids, without a copy.

    For a single query NumPy's product over them is several times as fast as the index's own scan.
    """
    flat = faiss.downcast_index(base.index)
    rows = faiss.rev_swig_ptr(flat.get_xb(), base.ntotal * base.d)
    return np.asarray(rows, np.float32).reshape(base.ntotal, base.d)


def stored_ids(faiss: Any, base: Any) -> IdArray:
    """The ids of an index, ascending. Raises ValueError for a flat one that is not in the order of its ids."""
    if base is None:
        return np.empty(0, np.int64)
    if not hasattr(base, "nprobe"):
        ids = np.asarray(faiss.vector_to_array(base.id_map), np.int64)
        if np.any(np.diff(ids) <= 0):
            raise ValueError("a flat index whose ids do not ascend")
        return ids
    lists = base.invlists
    parts = [
        faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).copy()
        for number in range(base.nlist)
        if lists.list_size(number)
    ]
    return np.sort(np.concatenate(parts)).astype(np.int64)

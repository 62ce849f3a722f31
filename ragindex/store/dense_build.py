"""From vectors to a base of a scheme, and from a file back to it."""

from __future__ import annotations

import numpy as np

from ragindex.store.dense_base import Base, Draft, Source
from ragindex.store.dense_codes import CODES_SAMPLE, CodesBase, CodesDraft
from ragindex.store.dense_flat import FlatBase, FlatDraft
from ragindex.store.dense_graph import GraphBase, GraphDraft
from ragindex.store.dense_lists import ListsBase, ListsDraft, sample_size
from ragindex.store.faiss_base import Buffer
from ragindex.store.rows import Float32Array
from ragindex.store.schemes import Scheme
from ragindex.store.tuning import Truth, Tuning, imitated

__all__ = ["build", "read"]

_GRAPH_SAMPLE = 1000  # vectors to imitate queries with


def build(scheme: Scheme, dimensions: int, source: Source) -> Base | None:
    """A base of everything that the source gives; None when that is nothing.

    The vectors are read twice, once for a sample to train on and once to be stored, so that memory holds codes and
    sample alone. The flat scheme is what it stores.
    """
    draft: Draft
    sample = np.empty((0, dimensions), np.float32)
    if scheme.kind == "flat":
        draft = FlatDraft()
    else:
        wanted = {"lists": sample_size(source.count), "graph": _GRAPH_SAMPLE, "codes": CODES_SAMPLE}[scheme.kind]
        sample = _sampled(source, max(1, wanted), dimensions)
        if len(sample) == 0:
            return None
        draft = _draft(scheme, sample, source.count)
    approximate = len(sample) > 0
    truth = Truth(imitated(sample) if approximate else sample)
    del sample  # of a million vectors, half as much memory as the index will take
    count = 0
    for batch in source.batches():
        count += len(batch.ids)
        draft.add(batch)
        if approximate:
            truth.see(batch)
    return draft.finished(truth) if count else None


def read(scheme: Scheme, tuning: Tuning, data: Buffer) -> Base:
    """The base that lies in a buffer. Raises ValueError when it is none of this scheme."""
    if scheme.kind == "flat":
        return FlatBase.read(data)
    if scheme.kind == "lists":
        return ListsBase.read(scheme, tuning, data)
    return GraphBase.read(tuning, data) if scheme.kind == "graph" else CodesBase.read(scheme, tuning, data)


def _draft(scheme: Scheme, sample: Float32Array, count: int) -> Draft:
    if scheme.kind == "lists":
        return ListsDraft(scheme, sample, count)
    return GraphDraft(sample.shape[1]) if scheme.kind == "graph" else CodesDraft(scheme, sample)


def _sampled(source: Source, wanted: int, dimensions: int) -> Float32Array:
    """About `wanted` vectors from everywhere, in the order in which they came."""
    chance = wanted / max(1, source.count)
    draw = np.random.default_rng(0)
    parts = [np.empty((0, dimensions), np.float32)]
    for batch in source.batches():
        chosen = draw.random(len(batch.ids)) < chance if chance < 1 else slice(None)
        parts.append(batch.vectors[chosen])
    return np.concatenate(parts)

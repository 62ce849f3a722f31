"""What the indexes that FAISS or a codec make of vectors have in common: immutable bases of a `FaissIndex`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ragindex.store.gpu import Gpu
from ragindex.store.rows import Float32Array, IdArray, VectorBatch
from ragindex.store.schemes import Scheme
from ragindex.store.tuning import Truth, Tuning
from ragindex.store.vector_index import Scored

__all__ = ["NOTHING", "SLACK", "Base", "Draft", "Source"]

SLACK = 16  # results beyond those asked for, so that a tie at the end is decided by id
NOTHING = Scored(np.empty(0, np.int64), np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class Source:
    """Vectors that can be read more than once: about how many, and how to read them in batches by ascending id.

    What is read twice may have changed in between; the last reading counts.
    """

    count: int
    batches: Callable[[], Iterable[VectorBatch]]


class Base(Protocol):
    """Vectors in one of the schemes; never changed once it is made, so searches share it."""

    scheme: Scheme
    tuning: Tuning
    ids: IdArray  # ascending
    dimensions: int

    @property
    def factory(self) -> str:
        """The FAISS factory string, or one in its manner."""

    def nearest(self, query: Float32Array, count: int, usable: IdArray | None) -> Scored:
        """At least `count` of the usable ids (ascending, strangers among them; None: all) that seem nearest to `query`
        (d,), best first; fewer only when there are fewer.

        The scores of a rescored scheme only put candidates in order; those of the others are exact.
        """

    def on(self, gpu: Gpu) -> Base:
        """As this one, but searches without a filter run on the graphics card, if they can in this scheme. Raises
        StoreError as `Gpu.copied` does.
        """

    def extended(self, gone: IdArray, put: VectorBatch) -> Base | None:
        """A base without the ids `gone` and with the vectors `put`; None when it is time for a new one."""

    def save(self, path: Path) -> None:
        """Write it to a file that the reader of its kind understands."""


class Draft(Protocol):
    """A base in the making."""

    def add(self, batch: VectorBatch) -> None:
        """Put vectors, their ids above those before."""

    def finished(self, truth: Truth) -> Base:
        """The base, its search set so that it finds what is nearest."""

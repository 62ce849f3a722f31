"""Short codes by ascending id, scanned whole; their candidates are rescored."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ragindex.store.codecs import Codec, Codes, Float8Axes, SignBits
from ragindex.store.dense_base import NOTHING
from ragindex.store.faiss_base import Buffer
from ragindex.store.gpu import Gpu
from ragindex.store.mapped_arrays import read_arrays, write_arrays
from ragindex.store.rows import Float32Array, IdArray, VectorBatch
from ragindex.store.schemes import Scheme
from ragindex.store.tuning import DEEPEST, Truth, Tuning, tuning_of
from ragindex.store.vector_index import Scored, inside

__all__ = ["CODES_SAMPLE", "CodesBase", "CodesDraft"]

CODES_SAMPLE = 20_000  # vectors to find the axes by
_GROWTH = 4


class CodesBase:
    """Codes (n, c) of one codec; made anew when they are four times as many as the codec was fitted to."""

    def __init__(
        self, scheme: Scheme, tuning: Tuning, codec: Codec, *, ids: IdArray, codes: Codes, fitted: int
    ) -> None:
        self.scheme = scheme
        self.tuning = tuning
        self.ids = ids
        self.dimensions = codec.dimensions
        self._codec, self._codes, self._fitted = codec, codes, fitted

    @classmethod
    def read(cls, scheme: Scheme, tuning: Tuning, data: Buffer) -> CodesBase:
        """The base that `save` wrote. Raises ValueError when it is none."""
        arrays = read_arrays(data)
        try:
            ids, codes, fitted = arrays.pop("ids"), arrays.pop("codes"), arrays.pop("fitted")
            codec: Codec = Float8Axes(**arrays) if scheme.name == "pca-float8" else SignBits(**arrays)
        except (KeyError, TypeError) as error:
            raise ValueError("not an array of codes") from error
        return cls(scheme, tuning, codec, ids=ids, codes=codes, fitted=int(fitted[0]))

    @property
    def factory(self) -> str:
        """See `Base`; in the manner of FAISS."""
        kept = self._codes.shape[1]
        return f"PCA{kept},Float8" if self.scheme.name == "pca-float8" else f"RR{self.dimensions},Bits"

    def nearest(self, query: Float32Array, count: int, usable: IdArray | None) -> Scored:
        """See `Base`."""
        ids, codes = self.ids, self._codes
        if usable is not None:
            ids = usable[inside(self.ids, usable)]
            codes = codes[np.searchsorted(self.ids, ids)]
        if len(ids) == 0:
            return NOTHING
        ranked = self._codec.nearest(query, codes, count)
        return Scored(ids[ranked.places], ranked.scores)

    def on(self, gpu: Gpu) -> CodesBase:  # noqa: ARG002 - nothing of it runs there
        """See `Base`."""
        return self

    def extended(self, gone: IdArray, put: VectorBatch) -> CodesBase | None:
        """See `Base`."""
        kept = ~inside(gone, self.ids)
        ids = np.concatenate([self.ids[kept], put.ids])
        if len(ids) > _GROWTH * self._fitted:
            return None
        order = np.argsort(ids)
        codes = np.concatenate([self._codes[kept], self._codec.encode(put.vectors)])[order]
        return CodesBase(self.scheme, self.tuning, self._codec, ids=ids[order], codes=codes, fitted=self._fitted)

    def save(self, path: Path) -> None:
        """Write ids, codes and what the codec needs."""
        fitted = np.array([self._fitted], np.int64)
        write_arrays(path, {**self._codec.parts(), "fitted": fitted, "ids": self.ids, "codes": self._codes})

    def tuned(self, truth: Truth) -> CodesBase:
        """Fetch the fewest candidates that hold what is nearest."""
        depth = min(len(self.ids), DEEPEST)
        found = [self.nearest(query, depth, None).ids for query in truth.queries]
        tuning = tuning_of(found, truth, rescored=True)
        return CodesBase(self.scheme, tuning, self._codec, ids=self.ids, codes=self._codes, fitted=self._fitted)


class CodesDraft:
    """A codec fitted to sampled vectors (m, d), and the codes it makes."""

    def __init__(self, scheme: Scheme, sample: Float32Array) -> None:
        self._scheme = scheme
        self._codec: Codec
        self._codec = Float8Axes.trained(sample) if scheme.name == "pca-float8" else SignBits.seeded(sample.shape[1])
        self._ids: list[IdArray] = []
        self._codes: list[Codes] = []

    def add(self, batch: VectorBatch) -> None:
        """See `Draft`."""
        self._ids.append(batch.ids)
        self._codes.append(self._codec.encode(batch.vectors))

    def finished(self, truth: Truth) -> CodesBase:
        """See `Draft`."""
        ids, codes = np.concatenate(self._ids), np.concatenate(self._codes)
        made = CodesBase(self._scheme, Tuning(), self._codec, ids=ids, codes=codes, fitted=len(ids))
        return made.tuned(truth)

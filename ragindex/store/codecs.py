"""Vectors as short codes that are scanned whole: 8-bit floats of the stronger axes, and single bits.

Both turn vectors first, so that a code spends its bits where the vectors differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ragindex.store.faiss_base import load_faiss
from ragindex.store.rows import Float32Array

__all__ = ["Codec", "Codes", "Float8Axes", "Ranked", "SignBits", "from_float8", "to_float8"]

Codes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]

_LARGEST = 448.0  # of the 8-bit floats
_BLOCK = 1 << 17  # values that are decoded at a time: as float32 they stay in the processor's cache
_ROUGH = 6  # candidates by Hamming distance for each one that is kept


@dataclass(frozen=True, slots=True)
class Ranked:
    """Places (n,) of codes in an array, best first, and their scores (n,)."""

    places: Places
    scores: Float32Array


class Codec(Protocol):
    """From vectors (n, d) to codes (n, c) and back to an order by closeness."""

    dimensions: int

    def encode(self, vectors: Float32Array) -> Codes:
        """Codes (n, c) of vectors (n, d)."""

    def nearest(self, query: Float32Array, codes: Codes, count: int) -> Ranked:
        """The `count` codes that seem nearest to a query (d,), or all of them."""

    def parts(self) -> Mapping[str, Float32Array]:
        """What the codec was given, by name: with it the codec is made again."""


class Float8Axes:
    """The stronger half of the principal axes, each value a float of 8 bits (E4M3, arXiv 2209.05433).

    Halving the axes and storing 8-bit floats: Huerga-Pérez et al., arXiv 2505.00105. Scores are those of the projected
    vectors but for a constant.
    """

    def __init__(self, mean: Float32Array, axes: Float32Array, scale: Float32Array) -> None:
        self.dimensions = len(mean)
        self._mean, self._axes, self._scale = mean, axes, scale

    @classmethod
    def trained(cls, sample: Float32Array) -> Float8Axes:
        """Axes of sampled vectors (n, d)."""
        mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        off = sample - mean
        axes = np.linalg.eigh(off.T @ off)[1][:, ::-1]  # the strongest first
        kept = np.ascontiguousarray(axes[:, : math.ceil(len(mean) / 2)], np.float32)
        largest = float(np.abs(off @ kept).max(initial=0.0))
        return cls(mean, kept, np.array([_LARGEST / largest if largest > 0 else 1.0], np.float32))

    def encode(self, vectors: Float32Array) -> Codes:
        """See `Codec`."""
        return to_float8(np.asarray((vectors - self._mean) @ self._axes * self._scale, np.float32))

    def nearest(self, query: Float32Array, codes: Codes, count: int) -> Ranked:
        """See `Codec`; reads every code."""
        turned = query @ self._axes
        scores = np.empty(len(codes), np.float32)
        rows = max(1, _BLOCK // codes.shape[1])
        decoded = np.empty((min(rows, len(codes)), codes.shape[1]), np.float32)
        for start in range(0, len(codes), rows):
            part = codes[start : start + rows]
            # With "clip", which no code needs, NumPy writes straight into the block.
            np.take(_VALUES, part, out=decoded[: len(part)], mode="clip")
            np.matmul(decoded[: len(part)], turned, out=scores[start : start + rows])
        return _best(scores, count)

    def parts(self) -> Mapping[str, Float32Array]:
        """See `Codec`."""
        return {"mean": self._mean, "axes": self._axes, "scale": self._scale}


class SignBits:
    """On which side of each axis a vector lies, after a random rotation.

    Without it an encoder's few strong axes waste most of the bits: on real texts candidates had to be nine times as
    many. A search takes candidates by Hamming distance, then orders them by the product of the whole query with their
    bits, so that fewer vectors have to be read from disk (Yamada et al., arXiv 2106.00882).
    """

    def __init__(self, rotation: Float32Array) -> None:
        self.dimensions = len(rotation)
        self._rotation = rotation

    @classmethod
    def seeded(cls, dimensions: int) -> SignBits:
        """The rotation of this many dimensions; always the same."""
        drawn = np.random.default_rng(0).standard_normal((dimensions, dimensions))
        return cls(np.linalg.qr(drawn)[0].astype(np.float32))

    def encode(self, vectors: Float32Array) -> Codes:
        """See `Codec`."""
        return np.packbits(vectors @ self._rotation > 0, axis=1)

    def nearest(self, query: Float32Array, codes: Codes, count: int) -> Ranked:
        """See `Codec`."""
        turned = query @ self._rotation
        places: Places = np.arange(len(codes))
        if len(codes) > _ROUGH * count:
            bits = np.packbits(turned[None] > 0, axis=1)
            places = load_faiss().knn_hamming(bits, codes, _ROUGH * count, variant="mc")[1][0].astype(np.int64)
        signs = np.unpackbits(codes[places], axis=1, count=self.dimensions).astype(np.float32)
        ranked = _best(2 * (signs @ turned) - turned.sum(), count)
        return Ranked(places[ranked.places], ranked.scores)

    def parts(self) -> Mapping[str, Float32Array]:
        """See `Codec`."""
        return {"rotation": self._rotation}


def to_float8(values: Float32Array) -> Codes:
    """The nearest 8-bit floats: sign, 4 bits of exponent (bias 7), 3 of mantissa; beyond ±448 they are cut off.

    At half precision the exponent has 8 more of bias and the mantissa 7 more bits, so after a division by 256 what is
    left to do is to round the lowest 7 bits away.
    """
    halves = (np.clip(values, -_LARGEST, _LARGEST) / 256).astype(np.float16).view(np.uint16)
    size = halves & 0x7FFF
    rounded = np.minimum((size + 0x3F + ((size >> 7) & 1)) >> 7, 0x7E)  # 0x7F would be no number
    return np.asarray((halves >> 8 & 0x80) | rounded, np.uint8)


def from_float8(codes: Codes) -> Float32Array:
    """The values of 8-bit floats."""
    return np.take(_VALUES, codes)


def _values() -> Float32Array:
    codes = np.arange(256, dtype=np.uint16)
    halves = ((codes & 0x80) << 8 | (codes & 0x7F) << 7).view(np.float16)
    return halves.astype(np.float32) * 256


_VALUES = _values()


def _best(scores: Float32Array, count: int) -> Ranked:
    places = np.arange(len(scores))
    if count < len(scores):
        places = np.argpartition(-scores, count)[:count]
    order = np.lexsort((places, -scores[places]))
    return Ranked(places[order], scores[places[order]])

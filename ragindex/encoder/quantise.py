"""Smaller forms of unit vectors, and what a store needs to rank with them: decoding and scores against exact queries.

| output  | dtype   | values a vector | bytes | holds                                                              |
|---------|---------|-----------------|-------|--------------------------------------------------------------------|
| float32 | float32 | d               | 4 d   | the vector                                                         |
| float16 | float16 | d               | 2 d   | the vector                                                         |
| int8    | int8    | d               | d     | the vector, its largest value 127; or buckets of given ranges      |
| float8  | uint8   | d               | d     | the bits of e4m3 (torch.float8_e4m3fn) of 256 times the vector     |
| binary  | int8    | ⌈d / 8⌉         | d / 8 | `ubinary` − 128, as sentence-transformers has it                   |
| ubinary | uint8   | ⌈d / 8⌉         | d / 8 | which values are above 0, first value in the highest bit           |

Codes carry no scale: the vectors are of unit length, so a decoded one is brought back to it. `int8` with `ranges`
holds the codes of sentence-transformers' quantize_embeddings: 255 buckets between the least and the largest value that
each dimension was seen to take, values outside put into the last one.

Measured by benchmarks/outputs.py, the bundled encoder on 1,000 documents of CISI. recall@10 is of the ten best by exact
vectors, in brackets when the forty best by codes are ranked again exactly; nDCG@10 is a share of the exact one.

| output               | cosine lost | recall@10     | nDCG@10 |
|----------------------|-------------|---------------|---------|
| float16              | 0           | 1.000 (1.000) | 1.000   |
| int8, ranges given   | 0.0001      | 0.996 (1.000) | 1.001   |
| int8                 | 0.0001      | 0.986 (1.000) | 1.010   |
| float8               | 0.0003      | 0.968 (1.000) | 1.012   |
| bits, exact queries  | 0.42        | 0.575 (0.895) | 0.957   |
| bits, Hamming        | 0.42        | 0.464 (0.771) | 0.922   |
| half length, float8  | 0.0003      | 0.899 (1.000) | 0.986   |

That float8 loses next to nothing, and that half of the principal components with it still do better than int8 alone:
"Optimization of embeddings storage for RAG systems using quantization and dimensionality reduction techniques", arXiv
2505.00105. An encoder that was rotated to its principal components, or trained to be cut, is cut before this by
`Encoder.load(dimensions=…)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ragindex.errors import UsageError

__all__ = ["Output", "Quantiser", "hamming_distances", "int8_ranges"]

Output = Literal["float32", "float16", "int8", "float8", "binary", "ubinary"]

_TYPES: Mapping[str, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "int8": np.int8,
    "float8": np.uint8,
    "binary": np.int8,
    "ubinary": np.uint8,
}
# A power of two, so that it costs no rounding: values of unit vectors, at most 1, come to lie where e4m3 has normal
# numbers (2^-6 to 448) down to 6e-5.
_FLOAT8_SCALE = np.float32(256)
_TWO_TO_14 = np.float32(2**14)
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Quantiser:
    """One form of vectors with `dimensions` values. Raises UsageError for a form that there is not.

    ranges: float32 (2, dimensions), the least and the largest value of each dimension (`int8_ranges`); for int8 alone,
    which without them scales every vector by its own largest value.
    """

    output: Output
    dimensions: int
    ranges: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.output not in get_args(Output):
            raise UsageError(f"Unknown output {self.output!r}; choose one of {', '.join(get_args(Output))}.")
        if self.ranges is None:
            return
        if self.output != "int8":
            raise UsageError(f"Ranges are for int8; {self.output} has no use for them.")
        if self.ranges.shape != (2, self.dimensions) or not (self.ranges[0] <= self.ranges[1]).all():
            raise UsageError(
                f"The ranges must be the least and the largest value of {self.dimensions} dimensions, of shape "
                f"(2, {self.dimensions}); they have {self.ranges.shape}."
            )

    @property
    def is_binary(self) -> bool:
        """Whether a value takes one bit."""
        return self.output in ("binary", "ubinary")

    @property
    def width(self) -> int:
        """Values of a code."""
        return -(-self.dimensions // 8) if self.is_binary else self.dimensions

    def empty(self, count: int) -> np.ndarray:
        """Room for the codes of `count` vectors."""
        return np.empty((count, self.width), dtype=_TYPES[self.output])

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Codes (n, width) of unit vectors, float32 (n, dimensions)."""
        if vectors.ndim != 2 or vectors.shape[1] != self.dimensions:
            raise UsageError(f"Vectors of shape (n, {self.dimensions}) can be encoded; these have {vectors.shape}.")
        vectors = vectors.astype(np.float32, copy=False)
        if self.output == "float8":
            return _to_float8(vectors * _FLOAT8_SCALE)
        if self.output == "int8":
            return self._to_int8(vectors)
        if self.is_binary:
            bits = np.packbits(vectors > 0, axis=1)
            return bits if self.output == "ubinary" else (bits - np.uint8(128)).view(np.int8)
        return vectors.astype(_TYPES[self.output], copy=False)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Unit vectors, float32 (n, dimensions), of codes (n, width). Raises UsageError for those of another form."""
        if codes.ndim != 2 or codes.shape[1] != self.width or codes.dtype != _TYPES[self.output]:
            raise UsageError(
                f"Codes of {self.output} are {np.dtype(_TYPES[self.output])} of shape (n, {self.width}); these are "
                f"{codes.dtype} of shape {codes.shape}."
            )
        if self.output == "float32":
            return codes
        values = self._values(codes)
        return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))

    def scores(self, queries: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Cosines, float32 (m, n), of exact queries, float32 (m, dimensions), with codes (n, width).

        For binary codes these are the cosines with vectors of signs: much nearer to the exact ones than Hamming
        distances, as only one side has lost its values.
        """
        return np.asarray(queries @ self.decode(codes).T, dtype=np.float32)

    def _to_int8(self, vectors: np.ndarray) -> np.ndarray:
        if self.ranges is None:
            largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0.0)
            scaled = vectors * (np.float32(127) / np.maximum(largest, np.float32(1e-12)))
            return np.asarray(np.rint(scaled), dtype=np.int8)
        steps = (self.ranges[1] - self.ranges[0]) / np.float32(255)
        buckets = np.floor((vectors - self.ranges[0]) / np.where(steps == 0, np.float32(1), steps))
        return np.asarray(np.clip(buckets, 0, 255) - 128, dtype=np.int8)

    def _values(self, codes: np.ndarray) -> np.ndarray:
        """What the codes hold, to a factor per vector."""
        if self.output == "float8":
            return np.asarray(_FLOAT8_VALUES[codes])
        if self.is_binary:
            bytes_ = codes.view(np.uint8) + np.uint8(128) if self.output == "binary" else codes
            signs = np.unpackbits(bytes_, axis=1, count=self.dimensions)
            return signs.astype(np.float32) * 2 - 1
        values = codes.astype(np.float32)
        if self.ranges is None:
            return values
        middles = (values + np.float32(128.5)) / np.float32(255)
        return np.asarray(self.ranges[0] + middles * (self.ranges[1] - self.ranges[0]))


def int8_ranges(vectors: np.ndarray) -> np.ndarray:
    """The least and the largest value of each dimension, float32 (2, d), of vectors (n, d) that are like those to come.

    Raises UsageError for fewer than 2, as one vector spans no range.
    """
    if vectors.ndim != 2 or len(vectors) < 2:
        raise UsageError("Ranges are taken from at least 2 vectors, better from a thousand.")
    return np.stack([vectors.min(axis=0), vectors.max(axis=0)]).astype(np.float32)


def hamming_distances(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Number of bits that differ, int64 (m, n), between binary or ubinary codes (m, width) and (n, width)."""
    distances = np.empty((len(ones), len(others)), dtype=np.int64)
    for number, row in enumerate(ones.view(np.uint8)):
        distances[number] = _BITS[np.bitwise_xor(row, others.view(np.uint8))].sum(axis=1, dtype=np.int64)
    return distances


def _to_float8(values: np.ndarray) -> np.ndarray:
    """The bits of e4m3fn, uint8, nearest to float32 values, ties to even; beyond 448 the largest there is.

    One bit of sign, 4 of exponent (bias 7), 3 of mantissa; no infinity. Below 2^-6 numbers are 2^-9 apart.
    """
    magnitudes = np.minimum(np.abs(values), np.float32(448))
    bits = magnitudes.view(np.uint32)
    # 20 of float32's 23 bits of mantissa go; a mantissa that is rounded up past its end raises the exponent, as it
    # should. The exponent's bias goes from 127 to 7.
    normal = ((bits + np.uint32(0x7FFFF) + (bits >> np.uint32(20) & np.uint32(1))) >> np.uint32(20)) - np.uint32(
        120 << 3
    )
    # From 2^14 on float32 numbers are 2^-9 apart: the sum is rounded as it has to be.
    small = (magnitudes + _TWO_TO_14).view(np.uint32) - _TWO_TO_14.view(np.uint32)
    codes = np.where(magnitudes < np.float32(2**-6), small, normal).astype(np.uint8)
    return np.asarray(codes | (np.signbit(values).view(np.uint8) << np.uint8(7)))


def _float8_values() -> np.ndarray:
    """The number that each of the 256 codes stands for, float32."""
    codes = np.arange(256)
    exponents, mantissas = codes >> 3 & 15, codes & 7
    normal = np.ldexp(1 + mantissas / 8, exponents - 7)
    values = np.where(exponents == 0, np.ldexp(mantissas / 8, -6), normal)
    values[codes & 127 == 127] = np.nan
    return np.where(codes >= 128, -values, values).astype(np.float32)


_FLOAT8_VALUES = _float8_values()

"""Safetensors files read and written in blocks: weights larger than memory can be combined.

A file is eight bytes with the length of a header, the header (JSON: type, shape and place of each tensor) and the data,
without gaps. Values come as float64 and are rounded once, when they are written. numpy has no bfloat16, so its bits are
moved by hand: it is the upper half of a float32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from ragindex.errors import TrainingError

__all__ = ["BLOCK", "Raw", "Spec", "TensorFiles", "as_float64", "file_order", "rounded", "write_tensors"]

Raw = npt.NDArray[Any]  # elements as they lie in the file; bfloat16 as uint16

BLOCK = 1 << 22  # elements that are in memory at a time, for each file that is read
# By size, as the format's own writer puts them: then every tensor lies at a multiple of its element's size.
_TYPES: Mapping[str, str] = {
    "F64": "<f8",
    "I64": "<i8",
    "U64": "<u8",
    "F32": "<f4",
    "I32": "<i4",
    "U32": "<u4",
    "F16": "<f2",
    "BF16": "<u2",
    "I16": "<i2",
    "U16": "<u2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "u1",
}
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class Spec:
    """Type and shape of a tensor; the type by the format's name for it, such as "F16"."""

    kind: str
    shape: tuple[int, ...]

    @property
    def is_float(self) -> bool:
        """Whether its values can be combined."""
        return self.kind in _FLOATS

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Length of the data."""
        return self.size * np.dtype(_TYPES[self.kind]).itemsize


class TensorFiles:
    """The tensors of several files by name. Data is mapped, not read, until a block is asked for."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Raises TrainingError when a file is damaged or holds a type that cannot be combined (a quantised one)."""
        self.specs: dict[str, Spec] = {}
        self.file_of: dict[str, Path] = {}
        self._data: dict[str, Raw] = {}
        for file in files:
            self._open(file)

    def raw(self, name: str, start: int = 0, stop: int | None = None) -> Raw:
        """Elements [start, stop) of a tensor in the order of the file."""
        return np.asarray(self._data[name][start:stop])

    def block(self, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[np.float64]:
        """Elements [start, stop) of a tensor of floats."""
        return as_float64(self.raw(name, start, stop), self.specs[name].kind)

    def _open(self, file: Path) -> None:
        try:
            with safe_open(str(file), framework="numpy"):  # refuses a header that contradicts the file
                pass
            with file.open("rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                header: dict[str, Any] = json.loads(stream.read(length))
        except (OSError, SafetensorError, ValueError) as error:
            raise TrainingError(f"{file} cannot be read: {error}.") from error
        header.pop("__metadata__", None)
        for name, entry in header.items():
            if entry["dtype"] not in _TYPES:
                raise TrainingError(f"{file} holds {name} as {entry['dtype']}: quantised weights cannot be combined.")
            spec = Spec(entry["dtype"], tuple(entry["shape"]))
            offset = 8 + length + int(entry["data_offsets"][0])
            self.specs[name], self.file_of[name] = spec, file
            kind = np.dtype(_TYPES[spec.kind])
            # A map of nothing is an error.
            self._data[name] = np.memmap(file, kind, "r", offset, (spec.size,)) if spec.size else np.empty(0, kind)


def write_tensors(file: Path, specs: Mapping[str, Spec], blocks: Callable[[str], Iterator[Raw]]) -> None:
    """Write a file whose tensors come in blocks of elements as they are stored, one tensor after the other.

    Raises TrainingError when blocks do not add up to their tensor, OSError when the disk is full.
    """
    names = file_order({name: spec.kind for name, spec in specs.items()})
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        spec = specs[name]
        header[name] = {"dtype": spec.kind, "shape": list(spec.shape), "data_offsets": [end, end + spec.nbytes]}
        end += spec.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            written = sum(stream.write(np.ascontiguousarray(block).data) for block in blocks(name))
            if written != specs[name].nbytes:
                raise TrainingError(f"{file} is incomplete: {name} came in {written} bytes of {specs[name].nbytes}.")


def file_order(kinds: Mapping[str, str]) -> list[str]:
    """Names of tensors in the order in which `write_tensors` asks for them. kinds: their types by name."""
    order = list(_TYPES)
    return sorted(kinds, key=lambda name: (order.index(kinds[name]), name))


def as_float64(raw: Raw, kind: str) -> npt.NDArray[np.float64]:
    """Stored elements as numbers."""
    if kind == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return raw.astype(np.float64)


def rounded(values: npt.NDArray[np.float64], kind: str) -> Raw:
    """Numbers as they are stored: the nearest of the type, ties to even.

    Raises TrainingError for what the type cannot hold.
    """
    if kind != "BF16":
        with np.errstate(over="ignore"):  # seen below
            result: Raw = values.astype(_TYPES[kind])
        finite = np.isfinite(result)
    else:
        with np.errstate(over="ignore"):
            bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
        result = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
        finite = (result & 0x7F80) != 0x7F80
    if not finite.all():
        raise TrainingError(f"A combined weight is not finite, or too large for {kind}; the ingredients do not fit.")
    return result

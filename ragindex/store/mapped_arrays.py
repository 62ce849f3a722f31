"""Named arrays in one file that is read where it lies: NumPy's own format (NPY), one after the other."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from ragindex.store.faiss_base import Buffer

__all__ = ["read_arrays", "write_arrays"]

_MAGIC = b"ragindex arrays\n"
_NAME = 64  # bytes of a name, filled up with spaces
_HEADER = 1024  # bytes in which an array's header surely ends


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays without objects. Raises OSError."""
    with path.open("wb") as file:
        file.write(_MAGIC)
        for name, array in arrays.items():
            file.write(name.encode().ljust(_NAME))
            npy.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)


def read_arrays(data: Buffer) -> dict[str, npt.NDArray[Any]]:
    """The arrays that a buffer holds, without a copy. Raises ValueError when it holds something else."""
    if data[: len(_MAGIC)].tobytes() != _MAGIC:
        raise ValueError("not a file of arrays")
    found: dict[str, npt.NDArray[Any]] = {}
    place = len(_MAGIC)
    while place < data.size:
        name = data[place : place + _NAME].tobytes().rstrip().decode()
        place += _NAME
        head = io.BytesIO(data[place : place + _HEADER].tobytes())
        npy.read_magic(head)
        shape, _, kind = npy.read_array_header_1_0(head)
        if kind.hasobject:
            raise ValueError("an array of objects")
        place += head.tell()
        found[name] = np.frombuffer(data, kind, math.prod(shape), place).reshape(shape)
        place += found[name].nbytes
    return found

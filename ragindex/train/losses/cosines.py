"""Cosines in float32, whatever the precision of the vectors and of the code around them.

Half precision holds a cosine near 1 to three digits; divided by a temperature of 0.02 the error would be larger than
most margins. So vectors are widened before they are multiplied, and autocast is switched off for the product.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cosines", "list_cosines", "widened"]


def widened(values: Tensor) -> Tensor:
    """`values` in float32; float64 stays what it is."""
    return values if values.dtype == torch.float64 else values.float()


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """Cosines of all rows of `left` (..., n, d) with all rows of `right` (..., m, d), unit vectors: (..., n, m)."""
    with torch.autocast(left.device.type, enabled=False):
        return widened(left) @ widened(right).mT


def list_cosines(queries: Tensor, positives: Tensor, negatives: Tensor | None = None) -> Tensor:
    """Cosine of each query (n, d) with its positive (n, d) and then with its own negatives (n, k, d): (n, 1 + k)."""
    documents = widened(positives).unsqueeze(1)
    if negatives is not None:
        documents = torch.cat([documents, widened(negatives)], dim=1)
    return cosines(queries.unsqueeze(1), documents).squeeze(1)

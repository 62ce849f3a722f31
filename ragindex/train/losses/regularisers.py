"""Regularisers that spread vectors over the sphere: unrelated texts should be orthogonal, as random directions are.

Both take the unit vectors of one kind of text (queries, or documents) and look at all pairs of different rows. With
fewer than two rows they are 0.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import relu

from ragindex.train.losses.cosines import cosines

__all__ = ["global_orthogonality", "spread_out"]


def spread_out(vectors: Tensor) -> Tensor:
    """M2 = mean over i != j of (e_i . e_j)^2, a scalar; vectors: (n, d).

    The form of EmbeddingGemma (arXiv 2509.20354) and Jina Embeddings v5 (arXiv 2602.15547). The least value that
    n > d vectors can reach is about 1/d.
    """
    return _mean_of_pairs(_pairs(vectors).square())


def global_orthogonality(vectors: Tensor) -> Tensor:
    """M1^2 + max(0, M2 - 1/d), M1 and M2 being the mean and the mean square of e_i . e_j over i != j; vectors: (n, d).

    Global orthogonal regularisation: Zhang et al., arXiv 1708.06320. Random directions have M1 = 0 and M2 = 1/d, and
    nothing is asked beyond that.
    """
    pairs = _pairs(vectors)
    return _mean_of_pairs(pairs).square() + relu(_mean_of_pairs(pairs.square()) - 1 / vectors.shape[-1])


def _pairs(vectors: Tensor) -> Tensor:
    """Cosines of all rows with all rows, 0 on the diagonal."""
    scores = cosines(vectors, vectors)
    return scores - scores.diag().diag()


def _mean_of_pairs(values: Tensor) -> Tensor:
    count = len(values)
    return values.sum() / max(1, count * (count - 1))

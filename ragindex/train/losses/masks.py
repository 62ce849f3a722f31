"""What is left out of a softmax because it may well be right: false negatives. Every mask is True where to leave out.

Masks are bool tensors over (queries, candidates); they compose with `|`. None has a gradient.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ragindex.train.losses.candidates import TextIds
from ragindex.train.losses.cosines import cosines

__all__ = ["MarginKind", "above_guide", "above_positive", "known_positives", "near_positive", "related_examples"]

MarginKind = Literal["absolute", "relative"]


def above_positive(scores: Tensor, positive: Tensor, *, margin: float) -> Tensor:
    """Candidates that the model itself prefers to the positive: s_ij > s_i+ + margin.

    scores: cosines (n, c); positive: (n,). Qwen3 Embedding (arXiv 2506.05176) with margin 0.1, for documents and for
    queries as candidates of a query.
    """
    return scores.detach() > positive.detach().unsqueeze(1) + margin


def above_guide(scores: Tensor, positive: Tensor, *, margin: float = 0.0, kind: MarginKind = "absolute") -> Tensor:
    """Candidates that a guide, another encoder, prefers to the positive.

    g_ij > g_i+ - margin, or with a relative margin g_ij > g_i+ - |g_i+| margin. scores: the guide's cosines (n, c);
    positive: (n,). GISTEmbed (arXiv 2402.16829) with margin 0; the margins are sentence-transformers'.
    """
    limit = positive - (margin if kind == "absolute" else positive.abs() * margin)
    return scores > limit.unsqueeze(1)


def near_positive(documents: Tensor, positives: Tensor, *, limit: float = 0.95) -> Tensor:
    """Documents that almost repeat the positive: cos(d_j, p_i) > limit.

    documents: (m, d); positives: (n, d), one a query. RzenEmbed (arXiv 2510.27350) with limit 0.95.
    """
    return cosines(positives.detach(), documents.detach()) > limit


def known_positives(ids: TextIds, rows: Tensor, *, depth: int) -> Tensor:
    """Documents that the batch itself pairs with the query of one of `rows` (n,), in whatever example: (n, m).

    Document j is left out for query i if an example holds the text of query i and the text of document j: copies of
    the positive, and the positives of the same query elsewhere. depth: negatives of an example, see `Contrast.depth`.
    """
    same_query = ids.queries[rows].unsqueeze(1) == ids.queries
    same_document = ids.positives.unsqueeze(1) == ids.documents(depth)
    return _joined(same_query, same_document)


def related_examples(ids: TextIds, rows: Tensor) -> Tensor:
    """Examples whose queries and positives are no negatives of those of `rows` (n,), themselves included: (n, N).

    Two are related if the batch pairs the query of one with the positive of the other.
    """
    every = torch.arange(len(ids.queries), device=rows.device)
    paired = known_positives(ids, every, depth=0)
    return (paired | paired.T)[rows]


def _joined(left: Tensor, right: Tensor) -> Tensor:
    """True where some example links both: the matrix product of two bool matrices."""
    return (left.float() @ right.float()) > 0

"""Training losses: pure functions of unit vectors (and a teacher's scores) that return a scalar."""

from ragindex.train.losses.candidates import DIRECTIONS, Contrast, Direction, TextIds, negative_lists, text_ids
from ragindex.train.losses.contrastive import GuideMargin, InfoNCE, info_nce
from ragindex.train.losses.cosines import list_cosines
from ragindex.train.losses.distillation import (
    combine_scores,
    cosine_regression,
    listwise_kl,
    margin_mse,
    similarity_kl,
)
from ragindex.train.losses.graded import angle_similarity, cosent, pair_cosines
from ragindex.train.losses.masks import MarginKind
from ragindex.train.losses.matryoshka import Embeddings, Loss, Matryoshka, matryoshka
from ragindex.train.losses.mixing import Mixing
from ragindex.train.losses.regularisers import global_orthogonality, spread_out
from ragindex.train.losses.temperature import TaskTemperatures
from ragindex.train.losses.weights import Hardness

__all__ = [
    "DIRECTIONS",
    "Contrast",
    "Direction",
    "Embeddings",
    "GuideMargin",
    "Hardness",
    "InfoNCE",
    "Loss",
    "MarginKind",
    "Matryoshka",
    "Mixing",
    "TaskTemperatures",
    "TextIds",
    "angle_similarity",
    "combine_scores",
    "cosent",
    "cosine_regression",
    "global_orthogonality",
    "info_nce",
    "list_cosines",
    "listwise_kl",
    "margin_mse",
    "matryoshka",
    "negative_lists",
    "pair_cosines",
    "similarity_kl",
    "spread_out",
    "text_ids",
]

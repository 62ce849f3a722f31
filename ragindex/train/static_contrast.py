"""Contrastive training of the static floor on pairs: a title or question should find the text it belongs to.

InfoNCE with in-batch negatives in both directions (van den Oord et al., arXiv 1807.03748; the symmetric form of
sentence-transformers' MultipleNegativesRankingLoss), as static-retrieval models are made, beside the distillation
loss that keeps the teacher's geometry:

    loss = 1 - cos(student, teacher) + 0.05 * sum over sources [ CE(q d^T / t) / 2 + CE(d q^T / t) / 4 ]

A batch holds pairs of one source only, so that its negatives are hard; pairs with the same handle are masked, they
are not negatives of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from ragindex.encoder.checkpoint import Counting
from ragindex.train.crops import read_records
from ragindex.train.static_model import Bags, StaticModel, bags_of

__all__ = ["PairSource", "contrast", "in_batch_loss", "read_pairs"]

_TEMPERATURE = 0.05
_SHARE = 0.05  # of the contrastive loss: it is many times larger than a cosine loss
_LENGTHS = (48, 96, 200)  # tokens that texts are cut to, drawn per batch, so that short and long passages are learnt


@dataclass(frozen=True, slots=True)
class PairSource:
    """Tokenised pairs of one file. Two pairs with equal `groups` share their handle."""

    handles: Sequence[np.ndarray]
    texts: Sequence[np.ndarray]
    groups: np.ndarray

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(len(text) for text in self.texts)


def read_pairs(file: Path, tokenizer: Tokenizer, *, longest: int = 256) -> PairSource:
    """The pairs of a record file: title or query, and text."""
    records = [record for record in read_records(file) if record.handle.strip() and record.text.strip()]
    handles = [record.handle[:300] for record in records]
    encoded = tokenizer.encode_batch_fast(handles, add_special_tokens=False)
    texts = tokenizer.encode_batch_fast([record.text[: 6 * longest] for record in records], add_special_tokens=False)
    kept = [index for index in range(len(records)) if encoded[index].ids and texts[index].ids]
    _, groups = np.unique([handles[index] for index in kept], return_inverse=True)
    return PairSource(
        handles=[np.asarray(encoded[index].ids, dtype=np.int32) for index in kept],
        texts=[np.asarray(texts[index].ids[:longest], dtype=np.int32) for index in kept],
        groups=groups,
    )


def in_batch_loss(queries: torch.Tensor, documents: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Both directions of InfoNCE for unit vectors (n, d) whose rows belong together; equal `groups` (n,) are no
    negatives.
    """
    own = torch.eye(len(groups), dtype=torch.bool, device=groups.device)
    twins = (groups.unsqueeze(0) == groups.unsqueeze(1)) & ~own
    scores = (queries @ documents.T / _TEMPERATURE).masked_fill(twins, -torch.inf)
    labels = torch.arange(len(groups), device=groups.device)
    return cross_entropy(scores, labels) / 2 + cross_entropy(scores.T, labels) / 4


def contrast(
    model: StaticModel,
    sources: Sequence[PairSource],
    bags: Bags,
    *,
    steps: int,
    counting: Counting,
    batch: int = 512,
    rate: float = 1.5e-3,
    seed: int = 7,
) -> None:
    """Train `model` on pairs of two sources a step (drawn by the square root of their size) and on a batch of
    teacher vectors. counting: what the tokens of `bags` were counted by.
    """
    generator = np.random.default_rng(seed)
    sizes = np.sqrt([source.tokens for source in sources])
    optimiser = torch.optim.Adam(
        [
            {"params": [model.rows, model.log_weights], "lr": rate * 3},
            {"params": model.head.parameters(), "lr": rate / 10},
        ],
        fused=True,
    )
    warmup = max(1, steps // 15)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / warmup) * (1.0 - step / steps)
    )
    for _ in (progress := tqdm(range(steps), unit="step")):
        pair_loss = torch.zeros(())
        for index in generator.choice(len(sources), size=2, p=sizes / sizes.sum()):
            source = sources[index]
            rows = generator.choice(len(source.texts), size=min(batch, len(source.texts)), replace=False)
            length = int(generator.choice(_LENGTHS))
            queries = model(bags_of([source.handles[row] for row in rows], counting=counting))
            documents = model(bags_of([source.texts[row][:length] for row in rows], counting=counting))
            pair_loss = pair_loss + in_batch_loss(queries, documents, torch.from_numpy(source.groups[rows]))
        part = bags.take(torch.from_numpy(generator.choice(len(bags), size=min(1024, len(bags)), replace=False)))
        distillation = (1 - (model(part) * part.targets).sum(-1)).mean()
        optimiser.zero_grad()
        (distillation + _SHARE * pair_loss).backward()
        optimiser.step()
        schedule.step()
        progress.set_postfix(pairs=f"{pair_loss.item():.3f}", distillation=f"{distillation.item():.4f}")

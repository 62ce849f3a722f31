"""Embedding regression: trains a whole encoder against a teacher's vectors of texts (LEAF, arXiv 2509.12539).

    loss = cosine regression + its mean over the Matryoshka steps + similarity * KL of the rows of the similarity matrix

Each is a function of `ragindex.train.losses`; a Matryoshka step compares with the teacher's own cut and renormalised
vectors.

No labels and no negatives are needed. The vectors come from `ragindex.train.teacher`, cached on disk.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ragindex.encoder.tokenizer import Tokenized
from ragindex.encoder.torch_forward import token_budget_batches
from ragindex.errors import TrainingError
from ragindex.train.losses import Embeddings, Loss, Matryoshka, cosine_regression, matryoshka, similarity_kl
from ragindex.train.model import TrainableEncoder
from ragindex.train.objective import Backward
from ragindex.train.processes import gathered, rank, world_size
from ragindex.train.teacher import read_shards

__all__ = ["Corpus", "DistillOptions", "VectorDistillation", "read_corpus"]

_FEWEST = 10  # texts, for a share of them to be held out
_ALIGNED = 4000  # texts that show how the student's axes lie to the teacher's
_POOL = 4096  # texts that are sorted by length together: little padding, and batches of mixed content


@dataclass(frozen=True, slots=True)
class DistillOptions:
    """tokens: padded tokens in a batch (and process); similarity: weight of the similarity term; temperature: of its
    softmax; matryoshka: shorter lengths that shall work when cut; settled: learning rate of token rows, token weights
    and head as a share of the layers', below 1 where a finished static encoder brings them along; held_out: texts that
    are measured, not trained on.
    """

    tokens: int = 8192
    similarity: float = 0.0
    temperature: float = 0.05
    matryoshka: tuple[int, ...] = ()
    settled: float = 1.0
    held_out: int = 1000
    seed: int = 7


@dataclass(frozen=True, slots=True)
class Corpus:
    """Tokenised texts and the teacher's unit vectors of them, float16 (n, d)."""

    texts: Sequence[Tokenized]
    targets: np.ndarray

    def take(self, rows: Sequence[int]) -> Corpus:
        """The texts at `rows`, in that order."""
        return Corpus([self.texts[row] for row in rows], self.targets[list(rows)])


def read_corpus(directory: Path, model: TrainableEncoder) -> Corpus:
    """The texts of all finished shards. Raises TrainingError when there are none, or their vectors do not fit."""
    texts: list[Tokenized] = []
    targets: list[np.ndarray] = []
    for crops, vectors in read_shards(directory):
        if vectors.shape[1] != model.dimensions:
            raise TrainingError(
                f"The teacher's vectors have {vectors.shape[1]} dimensions, the encoder {model.dimensions}; "
                "start from an encoder with a head of the teacher's size."
            )
        texts.extend(model.documents(crops))
        targets.append(vectors.astype(np.float16))
    if not texts:
        raise TrainingError(f"{directory} holds no finished shards of teacher vectors.")
    return Corpus(texts, np.concatenate(targets))


class VectorDistillation:
    """The objective for `ragindex.train.loop`."""

    def __init__(self, model: TrainableEncoder, corpus: Corpus, options: DistillOptions | None = None) -> None:
        self._model = model
        self._options = options or DistillOptions()
        if len(corpus.texts) < _FEWEST:
            raise TrainingError(f"There are {len(corpus.texts)} texts to learn from; at least {_FEWEST} are needed.")
        order = list(range(len(corpus.texts)))
        random.Random(self._options.seed).shuffle(order)  # noqa: S311 - sampling, not secrecy
        kept = min(self._options.held_out, len(order) // 5)
        self._held_out, self._corpus = corpus.take(order[:kept]), corpus.take(order[kept:])
        self._regression = _regression(self._options.matryoshka, model.dimensions)
        self._align()

    @property
    def model(self) -> nn.Module:
        """The student."""
        return self._model

    def parameter_groups(self, rate: float, *, weight_decay: float) -> list[dict[str, Any]]:
        """See `Objective`."""
        settled = self._options.settled
        return self._model.parameter_groups(rate, weight_decay=weight_decay, table_factor=settled, head_factor=settled)

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """Rows of similar length, at most `tokens` padded tokens together, in random order.

        Of several processes each has its own part of a batch that is so many times as large; parts are equally many,
        so a few rows may be left out, others in every epoch.
        """
        world = world_size()
        generator = random.Random(f"{self._options.seed}:{epoch}")  # noqa: S311
        order = list(range(len(self._corpus.texts)))
        generator.shuffle(order)
        for start in range(0, len(order), _POOL):
            pool = order[start : start + _POOL]
            lengths = [len(self._corpus.texts[row].ids) for row in pool]
            groups = token_budget_batches(lengths, self._options.tokens * world)
            generator.shuffle(groups)
            for group in groups:
                part = group[: len(group) // world * world][rank() :: world]
                if part:
                    yield [pool[index] for index in part]

    def step(self, batch: list[int], backward: Backward) -> Mapping[str, float]:
        """See `Objective`."""
        vectors = self._model([self._corpus.texts[row] for row in batch])
        targets = self._targets(self._corpus.targets[batch])
        loss = self._regression({"student": vectors, "teacher": targets})
        if self._options.similarity:
            temperature = self._options.temperature
            loss = loss + self._options.similarity * similarity_kl(
                gathered(vectors), gathered(targets), student_temperature=temperature, teacher_temperature=temperature
            )
        backward(loss)
        cosine = (vectors.detach() * targets).sum(-1).mean()
        tokens = sum(len(self._corpus.texts[row].ids) for row in batch)
        return {"loss": loss.item(), "cosine": cosine.item(), "texts": len(batch), "tokens": tokens}

    @torch.inference_mode()
    def evaluate(self) -> Mapping[str, float]:
        """Mean cosine to the teacher on held-out texts, and on the shorter half of them (as queries are)."""
        lengths = np.array([len(item.ids) for item in self._held_out.texts])
        cosines = np.empty(len(lengths), dtype=np.float32)
        for rows in token_budget_batches(list(lengths), 8192):
            vectors = self._model([self._held_out.texts[row] for row in rows])
            cosines[rows] = (vectors * self._targets(self._held_out.targets[rows])).sum(-1).cpu().numpy()
        short = lengths <= np.median(lengths)
        return {"held_out_cosine": float(cosines.mean()), "held_out_cosine_short": float(cosines[short].mean())}

    @torch.no_grad()
    def _align(self) -> None:
        """Turn the student's head onto the teacher's axes: a rotation changes none of its cosines, but all of those
        to the teacher.

        Orthogonal Procrustes: R = U Vᵀ of the singular vectors of Tᵀ S (Schönemann, Psychometrika 31, 1966).
        """
        if self._model.weight is None:
            return
        rows = range(min(_ALIGNED, len(self._corpus.texts)))
        texts = sorted((self._corpus.texts[row] for row in rows), key=lambda item: len(item.ids))
        part = Corpus(texts, self._corpus.targets[sorted(rows, key=lambda row: len(self._corpus.texts[row].ids))])
        cross = torch.zeros(2 * (self._model.dimensions,), dtype=torch.float64)
        for group in token_budget_batches([len(item.ids) for item in texts], 8192):
            vectors = self._model([part.texts[row] for row in group]).double().cpu()
            cross += torch.from_numpy(part.targets[group].astype(np.float64)).T @ vectors
        left, _, right = torch.linalg.svd(cross)
        rotation = (left @ right).float().to(self._model.device)
        self._model.weight.copy_(rotation @ self._model.weight)
        if self._model.bias is not None:
            self._model.bias.copy_(rotation @ self._model.bias)

    def _targets(self, targets: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(targets.astype(np.float32)).to(self._model.device)


def _regression(steps: Sequence[int], dimensions: int) -> Loss:
    """Cosine regression of whole vectors, and the mean of those of cut ones."""

    def loss(vectors: Embeddings) -> torch.Tensor:
        return cosine_regression(vectors["student"], vectors["teacher"])

    shorter = tuple(step for step in steps if step != dimensions)
    if not shorter:
        return loss
    return matryoshka(loss, Matryoshka((dimensions, *shorter), (1.0, *[1 / len(shorter)] * len(shorter))))

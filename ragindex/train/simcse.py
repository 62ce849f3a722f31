"""Unsupervised contrastive training: a sentence is its own positive, under another dropout (SimCSE, Gao et al., arXiv
2104.08821; the third step of LLM2Vec, arXiv 2404.05961).

    loss = mean over i of -log( e^{cos(h_i, h_i') / t} / sum over j of e^{cos(h_i, h_j') / t} )

h and h' are the same sentence embedded twice. All that tells them apart is dropout: of the attention weights, and
before an adapter. Without any they are equal, and there is nothing to learn; that is refused.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ragindex.encoder.batching import token_budget_batches
from ragindex.encoder.tokenizer import Tokenized
from ragindex.errors import TrainingError, UsageError
from ragindex.evaluation.sts import StsPairs, spearman
from ragindex.train.data.keys import text_key
from ragindex.train.data.prose import count_words, sentences
from ragindex.train.gradcache import RandomState, cached_backward, plain_backward
from ragindex.train.losses import Contrast, Embeddings, InfoNCE, info_nce
from ragindex.train.model import TrainableEncoder
from ragindex.train.objective import Backward
from ragindex.train.processes import gathered, rank, world_size

__all__ = ["SimCseOptions", "SimCseTraining", "alignment", "text_sentences", "uniformity"]

_FEWEST = 20  # sentences, for some of them to be held out
_EQUAL = 1e-6  # two views nearer than this differ by rounding at most


@dataclass(frozen=True, slots=True)
class SimCseOptions:
    """How a step is made.

    batch: sentences a step and process; chunk: padded tokens that are embedded at a time, more than that goes through
    cached gradients; max_tokens: sentences are cut there; temperature: t; held_out: sentences that are measured, not
    trained on.
    """

    batch: int = 128
    chunk: int = 8192
    max_tokens: int = 128
    temperature: float = 0.05
    held_out: int = 512
    seed: int = 7

    def __post_init__(self) -> None:
        if self.batch < 2:
            raise UsageError("A batch needs at least two sentences, or there is nothing to tell a sentence from.")


class _Held(NamedTuple):
    """What is measured: tokenised sentences, and pairs with scores if there are any."""

    sentences: Sequence[Tokenized]
    left: Sequence[Tokenized]
    right: Sequence[Tokenized]
    scores: Sequence[float]


class SimCseTraining:
    """The objective for `ragindex.train.loop`.

    texts: sentences, no two of them alike (`text_sentences`); sts: pairs whose scores the cosines shall rank.
    """

    def __init__(
        self,
        model: TrainableEncoder,
        texts: Sequence[str],
        options: SimCseOptions | None = None,
        *,
        sts: StsPairs | None = None,
    ) -> None:
        self._model = model
        self._options = options or SimCseOptions()
        self._began = False
        if len(texts) < _FEWEST:
            raise TrainingError(
                f"Only {len(texts)} different sentences were found, at least {_FEWEST} are needed; give more text."
            )
        order = random.Random(self._options.seed).sample(range(len(texts)), len(texts))  # noqa: S311 - sampling
        kept = max(2, min(self._options.held_out, len(texts) // 10))
        self._texts = [texts[row] for row in order[kept:]]
        limit = self._options.max_tokens
        self._held = _Held(
            model.documents([texts[row] for row in order[:kept]], max_tokens=limit),
            model.queries(sts.left, instruction="") if sts else [],
            model.queries(sts.right, instruction="") if sts else [],
            sts.scores if sts else [],
        )

    @property
    def model(self) -> nn.Module:
        """The encoder."""
        return self._model

    def parameter_groups(self, rate: float, *, weight_decay: float) -> list[dict[str, Any]]:
        """See `Objective`."""
        return self._model.parameter_groups(rate, weight_decay=weight_decay)

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """Numbers of sentences in random order; a batch of all processes is drawn as one, so none is in it twice."""
        order = list(range(len(self._texts)))
        random.Random(f"{self._options.seed}:{epoch}").shuffle(order)  # noqa: S311 - shuffling, not secrecy
        world = world_size()
        size = self._options.batch * world
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            batch = batch[: len(batch) // world * world]
            if len(batch) >= 2 * world:
                yield batch[rank() :: world]

    def step(self, batch: list[int], backward: Backward) -> Mapping[str, float]:
        """See `Objective`."""
        items = self._model.documents([self._texts[row] for row in batch], max_tokens=self._options.max_tokens)
        chunks = self._chunks(items)
        padded = sum(len(part) * len(part[0].ids) for part in chunks)
        run = plain_backward if 2 * padded <= self._options.chunk else cached_backward
        loss = run(self._model, {"queries": chunks, "positives": chunks}, self._loss, backward=backward)
        tokens = sum(len(item.ids) for item in items)
        return {"loss": loss.item(), "texts": len(items), "tokens": 2 * tokens}

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """Alignment and uniformity (Wang and Isola, arXiv 2005.10242) of held-out sentences, lower is better; and the
        Spearman correlation with the scores of pairs, if there are any.
        """
        vectors = self._embedded(self._held.sentences)
        training = self._model.training
        with RandomState.now().replayed():
            torch.manual_seed(self._options.seed)
            self._model.train()
            first, second = self._embedded(self._held.sentences), self._embedded(self._held.sentences)
            self._model.train(training)
        measures = {"held_out_alignment": alignment(first, second), "held_out_uniformity": uniformity(vectors)}
        if self._held.scores:
            cosines = (self._embedded(self._held.left) * self._embedded(self._held.right)).sum(-1)
            measures["sts_spearman"] = spearman(self._held.scores, cosines.cpu().numpy())
        return measures

    def _loss(self, vectors: Embeddings) -> Tensor:
        views, others = vectors["queries"], vectors["positives"]
        # An adapter begins as nothing, and so does what its dropout does.
        adapter = self._model.lora is not None and self._model.lora.dropout > 0 and not self._began
        self._began = True
        if float((views.detach() - others.detach()).abs().max()) < _EQUAL and not adapter:
            raise TrainingError(
                "Both views of every sentence are equal, because no dropout is at work in this encoder, so there is "
                "nothing to learn; give dropout above 0, or train an adapter."
            )
        contrast = Contrast(views, gathered(others), offset=rank() * len(views))
        return info_nce(contrast, InfoNCE(temperature=self._options.temperature))

    def _chunks(self, items: Sequence[Tokenized]) -> list[list[Tokenized]]:
        """Both views in the same order, the longest first."""
        groups = token_budget_batches([len(item.ids) for item in items], self._options.chunk)
        return [[items[place] for place in group] for group in groups]

    def _embedded(self, items: Sequence[Tokenized]) -> Tensor:
        groups = token_budget_batches([len(item.ids) for item in items], self._options.chunk)
        order = np.concatenate([np.array(group) for group in groups])
        vectors = torch.cat([self._model([items[place] for place in group]) for group in groups])
        return vectors[torch.from_numpy(np.argsort(order)).to(vectors.device)]


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of unit vectors that belong together, (n, d) each: how much dropout moves a sentence."""
    return float((first - second).square().sum(-1).mean())


def uniformity(vectors: Tensor) -> float:
    """How evenly unit vectors (n, d) lie: log of the mean over pairs of exp(-2 * squared distance), 0 when all are the
    same, -4 when they lie all around. NaN for fewer than two.
    """
    cosines = vectors @ vectors.T
    above = torch.ones_like(cosines, dtype=torch.bool).triu(diagonal=1)
    return float((4 * cosines[above] - 4).exp().mean().log())


def text_sentences(texts: Iterable[str], *, fewest: int = 4, most: int = 100) -> list[str]:
    """The sentences of texts that have from `fewest` to `most` words, each once, whatever its case and punctuation."""
    found: dict[bytes, str] = {}
    for text in texts:
        for span in sentences(text):
            sentence = " ".join(text[span.start : span.end].split())
            if fewest <= count_words(sentence) <= most:
                found.setdefault(text_key(sentence), sentence)
    return list(found.values())

"""InfoNCE and what has been made of it: directions, false-negative masks, hardness, focal weights, mixed negatives.

One softmax for each query i, whose candidates may be left out (masks, `ragindex.train.losses.masks`) and may weigh more
than others (`ragindex.train.losses.weights`):

    L_i = -log( e^{s_i+ / t} / sum over candidates c of e^{s_ic / t + w_ic} )

van den Oord et al., arXiv 1807.03748, with cosines s and temperature t.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ragindex.errors import TrainingError, UsageError
from ragindex.train.losses.candidates import DIRECTIONS, Contrast, Direction
from ragindex.train.losses.masks import (
    MarginKind,
    above_guide,
    above_positive,
    known_positives,
    near_positive,
    related_examples,
)
from ragindex.train.losses.mixing import Mixing, mix_lists, mix_pairs
from ragindex.train.losses.weights import Hardness, focal_weights, hardness_logits

__all__ = ["GuideMargin", "InfoNCE", "info_nce"]


@dataclass(frozen=True, slots=True)
class GuideMargin:
    """How far below its score of the positive a guide's score must be; see `masks.above_guide`."""

    margin: float = 0.0
    kind: MarginKind = "absolute"


@dataclass(frozen=True, slots=True)
class InfoNCE:
    """Options of `info_nce`.

    temperature: t. directions: what is contrasted; "q-d" is always among them.
        "q-d"  a query with all documents
        "d-q"  its positive with all queries, its own included
        "q-q"  the query with the other queries
        "d-d"  its positive with the documents of other examples
    partition: "joint" puts all directions into one softmax, as GTE does (arXiv 2308.03281; its sum holds the pair
    itself in "q-d" and in "d-q", so its least value with both is log 2); "separate" takes the mean of one softmax a
    direction, symmetric InfoNCE for "q-d" and "d-q".
    in_batch: off leaves a query its positive and its own explicit negatives: NV-Embed's second stage (arXiv 2405.17428;
    its first has it on), and all of Llama-Embed-Nemotron's training (arXiv 2511.07025).
    false_negative_margin: candidates that score higher than the positive by more than this are left out; Qwen3 0.1.
    near_positive: documents with a higher cosine to the positive are left out; RzenEmbed 0.95.
    guide: leaves out what another encoder holds to be right; GISTEmbed.
    hardness: hard negatives of "q-d" weigh more. focal: gamma of `weights.focal_weights`; KaLM 0.5, 0 is off.
    mixing: negatives that are made of negatives; KaLM.

    Raises UsageError for values that contradict each other.
    """

    temperature: float = 0.05
    directions: tuple[Direction, ...] = ("q-d",)
    partition: Literal["joint", "separate"] = "joint"
    in_batch: bool = True
    false_negative_margin: float | None = None
    near_positive: float | None = None
    guide: GuideMargin | None = None
    hardness: Hardness | None = None
    focal: float = 0.0
    mixing: Mixing | None = None

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UsageError(f"A temperature must be above 0; got {self.temperature}.")
        if self.focal < 0:
            raise UsageError(f"A focal weight of {self.focal} would favour what is learnt already; give 0 or more.")
        unknown = [item for item in self.directions if item not in DIRECTIONS]
        if unknown or "q-d" not in self.directions or len(set(self.directions)) < len(self.directions):
            raise UsageError(f"Directions are q-d and, once each, some of d-q, q-q, d-d; got {list(self.directions)}.")
        others = [item for item in self.directions if item != "q-d"]
        if others and not self.in_batch:
            raise UsageError(f"Without in-batch negatives there is q-d only; leave out {', '.join(others)}.")
        if self.partition == "separate" and {"q-q", "d-d"} & set(others):
            raise UsageError("q-q and d-d hold no positive, so they cannot stand alone; use a joint softmax.")
        if self.guide is not None and self.mixing is not None:
            raise UsageError("A guide has not seen mixed negatives; use a guide or mixing.")


def info_nce(
    contrast: Contrast,
    options: InfoNCE | None = None,
    *,
    temperature: Tensor | None = None,
    guide: Contrast | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mean of L_i over the queries of `contrast`, a scalar in float32.

    temperature: in place of the one of the options, a scalar or (n,), for one that is learnt. guide: the vectors of
    the guide for the same texts, in the same places; given if and only if the options have a guide. generator: of the
    draws of mixing. A query without negatives left has no gradient and costs nothing (log 2 with "d-q" in a joint
    softmax). Raises TrainingError when a guide or anchors are missing, or the guide is of another batch.
    """
    options = options or InfoNCE()
    if (guide is None) != (options.guide is None):
        raise TrainingError("A guide's vectors and a guide's margin go together; one of them is missing.")
    if guide is not None and not guide.is_laid_out_as(contrast):
        raise TrainingError("The guide's vectors are of other texts than the encoder's; their numbers differ.")
    if options.mixing is not None:
        contrast = _with_mixed(contrast, options.mixing, generator)
    scores = {direction: contrast.cosines(direction) for direction in options.directions}
    positive = scores["q-d"].gather(1, contrast.rows.unsqueeze(1)).squeeze(1)
    left_out = _left_out(contrast, scores, positive, options)
    if guide is not None and options.guide is not None:
        for direction, mask in _guided(guide, options).items():
            left_out[direction] = left_out[direction] | mask

    scale = _scale(options.temperature if temperature is None else temperature, positive)
    logits = {direction: block * scale for direction, block in scores.items()}
    if options.hardness is not None:
        logits["q-d"] = logits["q-d"] + _hardness(contrast, scores["q-d"], options.hardness)
    blocks = [
        block.masked_fill(left_out[direction] & ~_true_pairs(contrast, direction), -torch.inf)
        for direction, block in logits.items()
    ]
    # Blocks are joined before the logarithm: q-q and d-d may be empty, and an empty sum has no gradient but NaN.
    softmaxes = [torch.cat(blocks, dim=1)] if options.partition == "joint" else blocks
    losses = torch.stack([block.logsumexp(dim=1) for block in softmaxes]) - positive * scale.squeeze(1)
    if options.focal:
        losses = focal_weights(losses, gamma=options.focal) * losses
    return losses.mean()


def _scale(temperature: Tensor | float, like: Tensor) -> Tensor:
    """1 / t as a column, (1, 1) or (n, 1)."""
    return 1 / torch.as_tensor(temperature, dtype=like.dtype, device=like.device).reshape(-1, 1)


def _true_pairs(contrast: Contrast, direction: Direction) -> Tensor:
    """Where a direction's block holds a query and its own positive, which no mask may leave out: (n, c), or (n, 1) for
    nowhere.
    """
    rows = contrast.rows.unsqueeze(1)
    if direction == "q-d":
        return rows == torch.arange(len(contrast.owners), device=rows.device)
    examples = torch.arange(len(contrast.positives), device=rows.device)
    return rows == examples if direction == "d-q" else torch.zeros_like(rows, dtype=torch.bool)


def _left_out(
    contrast: Contrast, scores: dict[Direction, Tensor], positive: Tensor, options: InfoNCE
) -> dict[Direction, Tensor]:
    """For each direction, what is no negative: by the batch's own account, and by what the model thinks of it."""
    rows, ids = contrast.rows, contrast.ids
    own = rows.unsqueeze(1) == contrast.owners
    documents = contrast.absent.expand_as(own)
    queries = rows.unsqueeze(1) == torch.arange(len(contrast.positives), device=rows.device)
    if ids is not None:
        ids = ids.to(rows.device)
        documents = documents | known_positives(ids, rows, depth=contrast.depth)
        queries = queries | related_examples(ids, rows)
    if options.near_positive is not None:
        documents = documents | near_positive(contrast.documents, contrast.own_positives, limit=options.near_positive)
    masks: dict[Direction, Tensor] = {
        "q-d": documents if options.in_batch else documents | ~own,
        "d-q": queries,
        "q-q": queries,
        "d-d": documents | own,
    }
    margin = options.false_negative_margin
    if margin is not None:
        for direction in scores:
            # Documents are nearer to each other than queries are to them, so d-d is judged by the query as well.
            judged = scores["q-d" if direction == "d-d" else direction]
            masks[direction] = masks[direction] | above_positive(judged, positive, margin=margin)
    return {direction: masks[direction] for direction in scores}


def _guided(guide: Contrast, options: InfoNCE) -> dict[Direction, Tensor]:
    assert options.guide is not None
    positive = guide.cosines("q-d").gather(1, guide.rows.unsqueeze(1)).squeeze(1)
    return {
        direction: above_guide(guide.cosines(direction), positive, margin=options.guide.margin, kind=options.guide.kind)
        for direction in options.directions
    }


def _hardness(contrast: Contrast, scores: Tensor, hardness: Hardness) -> Tensor:
    weights = hardness_logits(scores, strength=hardness.strength)
    own = contrast.rows.unsqueeze(1) == contrast.owners
    light = {
        "in-batch": own,
        "explicit": ~own | _true_pairs(contrast, "q-d"),
        "all": _true_pairs(contrast, "q-d"),
    }
    return weights.masked_fill(light[hardness.negatives], 0.0)


def _with_mixed(contrast: Contrast, mixing: Mixing, generator: torch.Generator | None) -> Contrast:
    negatives, present = contrast.negatives, contrast.present
    if negatives is None:
        return contrast
    if mixing.pairs:
        mixed, there = mix_pairs(
            negatives,
            present=present,
            count=mixing.pairs,
            concentration=mixing.concentration,
            generator=generator,
        )
        contrast = contrast.with_negatives(mixed, there)
    if mixing.list_temperature is not None:
        mixed, there = mix_lists(
            contrast.all_queries(), negatives, present=present, temperature=mixing.list_temperature
        )
        contrast = contrast.with_negatives(mixed, there)
    return contrast

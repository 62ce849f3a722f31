"""Cuts examples into batches for in-batch negatives: of one source, and with no text that would be its own negative."""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ragindex.errors import UsageError
from ragindex.train.data.examples import Example

__all__ = ["Shard", "same_source_batches"]

_POOL = 32  # batches whose rows are sorted by length together


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several processes that train together: it counts from 0."""

    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise UsageError(f"Process {self.rank} of {self.world} does not exist; they count from 0.")


def same_source_batches(
    examples: Sequence[Example],
    *,
    size: int,
    seed: int,
    epoch: int,
    alpha: float = 1.0,
    smallest: int = 1,
    lengths: Sequence[int] | None = None,
    shard: Shard | None = None,
) -> Iterator[list[int]]:
    """One epoch of batches, as indices of examples; the same arguments give the same batches.

    A batch has at most `size` rows, all of one source and one instruction, and no duplicates: no row's query or
    positive equals (as a string) another row's query, positive or negative. Two rows may share a negative. A row that
    cannot go into a batch goes into a later one, so an epoch has every row once, and short batches at the end of a
    source; those of fewer than `smallest` rows are dropped (`smallest=size` keeps full ones only).

    alpha: sources take part in proportion to their rows to the power of alpha. With 1 all rows of all sources are
    used; below 1 the epoch is as long as the scarcest source lasts, and the others give a part that changes with the
    epoch. lengths: of the rows, to put rows of similar length together. shard: a batch of `size` for each process is
    drawn as one batch, so at every step the processes hold different rows of one source, equally many, without
    duplicates between them; what cannot be shared out evenly is left out.

    Costs O(rows and their negatives). Raises UsageError for options that make no sense.
    """
    shard = shard or Shard()
    if size < 1 or not 1 <= smallest <= size or not 0 <= alpha <= 1:
        raise UsageError("Batches need a size of at least 1, smallest from 1 to size and alpha from 0 to 1.")
    if lengths is not None and len(lengths) != len(examples):
        raise UsageError(f"There are {len(lengths)} lengths for {len(examples)} examples; there must be one for each.")
    chance = random.Random(f"{seed} {epoch}")  # noqa: S311 - shuffling, not secrecy
    pools: list[list[list[int]]] = []
    sources = list(_by_source(examples).values())
    for rows in sources:
        order = _ordered(rows, size * shard.world, lengths, chance)
        shared = [
            batch[: len(batch) // shard.world * shard.world] for batch in _filled(examples, order, size * shard.world)
        ]
        usable = [batch for batch in shared if len(batch) >= smallest * shard.world]
        chance.shuffle(usable)
        pools.append(sorted(usable, key=len, reverse=True))  # what an epoch has no room for are the short ones
    quotas = _quotas([len(rows) for rows in sources], [len(pool) for pool in pools], alpha)
    chosen = [batch for pool, quota in zip(pools, quotas, strict=True) for batch in pool[:quota]]
    chance.shuffle(chosen)
    for batch in chosen:
        yield batch[shard.rank :: shard.world]


def _by_source(examples: Sequence[Example]) -> Mapping[Hashable, list[int]]:
    rows: dict[Hashable, list[int]] = {}
    for index, example in enumerate(examples):
        rows.setdefault((example.source, example.instruction), []).append(index)
    return rows


def _ordered(rows: Sequence[int], size: int, lengths: Sequence[int] | None, chance: random.Random) -> list[int]:
    order = chance.sample(rows, len(rows))
    if lengths is None:
        return order
    step = _POOL * size
    pools = [sorted(order[start : start + step], key=lengths.__getitem__) for start in range(0, len(order), step)]
    return [row for pool in pools for row in pool]


def _filled(examples: Sequence[Example], order: Sequence[int], size: int) -> list[list[int]]:
    """Batches of the rows. Each row goes into the first batch with room behind all batches that its texts keep it out
    of, so the thousandth row of one query costs no more than the first.
    """
    batches: list[list[int]] = []
    room = [0]  # a forest: from each batch towards the first one at or behind it that is not full, at last a new one
    asked: dict[str, int] = {}  # the last batch that has a text as a query or positive
    held: dict[str, int] = {}  # the last batch that has a text at all
    for row in order:
        example = examples[row]
        own = (example.query, example.positive)
        earliest = 1 + max(*(held.get(text, -1) for text in own), *(asked.get(text, -1) for text in example.negatives))
        place = _root(room, earliest)
        if place == len(batches):
            batches.append([])
            room.append(len(batches))
        batches[place].append(row)
        if len(batches[place]) == size:
            room[place] = place + 1
        for text in own:
            asked[text] = held[text] = place
        for text in example.negatives:
            held[text] = max(place, held.get(text, -1))
    return batches


def _root(forest: list[int], node: int) -> int:
    while forest[node] != node:
        forest[node] = forest[forest[node]]
        node = forest[node]
    return node


def _quotas(rows: Sequence[int], batches: Sequence[int], alpha: float) -> list[int]:
    """How many of its batches each source gives to an epoch."""
    if alpha == 1:
        return list(batches)
    scarcest = min((count / size**alpha for count, size in zip(batches, rows, strict=True) if count), default=0.0)
    return [min(count, math.ceil(scarcest * size**alpha)) for count, size in zip(batches, rows, strict=True)]

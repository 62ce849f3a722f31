"""Texts as rows of token ids to learn language from, and batches of such rows.

Two layouts. "packed": all texts, one after the other, cut into blocks of equal length; no token is padding, and a block
may hold the end of one text and the beginning of the next, which attention does not tell apart (nor does LLM2Vec's
training, arXiv 2404.05961). "apart": each row is a piece of one text, between the special tokens that the tokenizer
puts around a text, as an encoder will read it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple, get_args

import numpy as np
from tokenizers import Encoding, Tokenizer

from ragindex.encoder.batching import token_budget_batches
from ragindex.errors import TrainingError, UsageError
from ragindex.train.data.batching import Shard

__all__ = ["Layout", "RowSplit", "Rows", "Surroundings", "row_batches", "rows_of", "split_rows", "surroundings"]

Layout = Literal["packed", "apart"]

_TOKENISED = 1000  # texts at a time
_SHORTEST = 8  # tokens of a row of its own that can teach something
_POOL = 64  # batches whose rows are sorted by length together


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Special tokens before and after each text."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Sequences of token ids, one after the other. ids: int32 (tokens,); starts: int64 (rows + 1,), where each row
    begins, and the end of the last one.
    """

    ids: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[np.ndarray]) -> Rows:
        """Rows of any lengths."""
        parts = [np.asarray(row, np.int32) for row in rows]
        ends = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return cls(np.concatenate(parts) if parts else np.empty(0, np.int32), ends)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return np.asarray(self.ids[self.starts[row] : self.starts[row + 1]])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row, int64 (rows,)."""
        return np.diff(self.starts)

    def take(self, places: Sequence[int]) -> Rows:
        """The rows at these places, in that order."""
        return Rows.of(self[place] for place in places)


class RowSplit(NamedTuple):
    """Rows to train on and rows to measure on."""

    train: Rows
    held_out: Rows


def surroundings(tokenizer: Tokenizer, *, end: int | None = None) -> Surroundings:
    """What stands around each text: what the tokenizer puts there, and `end` after it unless it ends so anyway."""
    encoding = tokenizer.encode("a")
    special = np.asarray(encoding.special_tokens_mask, dtype=bool)
    own = np.flatnonzero(~special)
    first, last = (own[0], own[-1] + 1) if len(own) else (len(special), len(special))
    before, after = tuple(encoding.ids[:first]), tuple(encoding.ids[last:])
    if end is not None and after[-1:] != (end,):
        after = (*after, end)
    return Surroundings(before, after)


def rows_of(
    texts: Iterable[str], tokenizer: Tokenizer, around: Surroundings, *, length: int, layout: Layout = "packed"
) -> Rows:
    """The texts as rows of at most `length` tokens, in order.

    Packed, what is left after the last whole block is dropped; apart, pieces of fewer than 8 tokens are. Raises
    TrainingError when no row is left.
    """
    if layout not in get_args(Layout):
        raise UsageError(f"Rows are {' or '.join(get_args(Layout))}; got {layout!r}.")
    if length < _SHORTEST:
        raise UsageError(f"A row of {length} tokens is too short to learn from; give at least {_SHORTEST}.")
    pieces = _pieces(texts, tokenizer, around, None if layout == "packed" else length)
    if layout == "apart":
        rows = Rows.of(pieces)
        if not len(rows):
            raise TrainingError(f"No text has {_SHORTEST} tokens, so there is nothing to learn from; give more text.")
        return rows
    stream = Rows.of(pieces).ids
    blocks = len(stream) // length
    if not blocks:
        raise TrainingError(
            f"All text together has {len(stream):,} tokens, fewer than one block of {length:,}; give more text or "
            "shorter blocks."
        )
    return Rows(stream[: blocks * length], np.arange(blocks + 1, dtype=np.int64) * length)


def split_rows(rows: Rows, *, held_out: int, seed: int) -> RowSplit:
    """Keep some rows, drawn by the seed, apart: `held_out` of them, or a tenth where there are few.

    Raises TrainingError when there are not at least two rows.
    """
    if len(rows) < 2:
        raise TrainingError(
            "The text gives one row only, and one to train on and one to measure on are needed; give more text or "
            "shorter blocks."
        )
    order = random.Random(seed).sample(range(len(rows)), len(rows))  # noqa: S311 - sampling, not secrecy
    kept = max(1, min(held_out, len(rows) // 10))
    return RowSplit(rows.take(sorted(order[kept:])), rows.take(sorted(order[:kept])))


def row_batches(rows: Rows, *, tokens: int, seed: int, epoch: int, shard: Shard | None = None) -> Iterator[list[int]]:
    """One epoch of batches of row numbers, in random order, each of at most `tokens` padded tokens (or one row).

    Every process takes its own part of the epoch; all of them get equally many batches.
    """
    shard = shard or Shard()
    generator = random.Random(f"{seed}:{epoch}")  # noqa: S311
    order = generator.sample(range(len(rows)), len(rows))
    lengths = rows.lengths
    longest = int(lengths.max(initial=1))
    pool = _POOL * max(1, tokens // longest)
    for start in range(0, len(order), pool):
        part = order[start : start + pool]
        groups = token_budget_batches([int(lengths[row]) for row in part], tokens)
        generator.shuffle(groups)
        whole = len(groups) // shard.world * shard.world
        for group in groups[shard.rank : whole : shard.world]:
            yield [part[place] for place in group]


def _pieces(
    texts: Iterable[str], tokenizer: Tokenizer, around: Surroundings, length: int | None
) -> Iterator[np.ndarray]:
    """Ids of each text between its special tokens; with a length, of its pieces."""
    room = None if length is None else length - len(around.before) - len(around.after)
    if room is not None and room < 1:
        raise UsageError(f"Rows of {length} tokens have no room for text between the tokenizer's special tokens.")
    for encoding in _encoded(texts, tokenizer):
        ids = encoding.ids
        for start in range(0, len(ids), room or max(1, len(ids))):
            piece = ids[start : start + (room or len(ids))]
            if length is None or len(piece) >= min(_SHORTEST, room or 1):
                yield np.array([*around.before, *piece, *around.after], np.int32)


def _encoded(texts: Iterable[str], tokenizer: Tokenizer) -> Iterator[Encoding]:
    stream = iter(texts)
    while batch := list(islice(stream, _TOKENISED)):
        yield from tokenizer.encode_batch_fast(
            [text.encode("utf-8", "replace").decode("utf-8") for text in batch], add_special_tokens=False
        )

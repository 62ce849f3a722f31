"""Cuts texts to what an encoder reads, where a benchmark's convention is to drop the rest; an index never does this."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ragindex.errors import UsageError
from ragindex.evaluation.datasets import Passage

if TYPE_CHECKING:
    from ragindex.encoder import Encoder

__all__ = ["clipped_documents", "clipped_queries"]

_SLACK = 2  # the tokens at a cut may turn out otherwise than they did in the whole text


def clipped_queries(encoder: Encoder, texts: Sequence[str], *, instruction: str | None) -> list[str]:
    """The texts, each cut so that it fits the encoder as a query with this instruction.

    Raises UsageError for an instruction that leaves no room.
    """
    prompt = encoder.config.prompts.for_query("", instruction).text
    room = encoder.max_tokens - encoder.tokenizer.count(prompt) - encoder.tokenizer.specials - _SLACK
    if room < 1:
        raise UsageError(f"The instruction is too long for this encoder of {encoder.max_tokens} tokens; shorten it.")
    return [_clipped(encoder, text, room) for text in texts]


def clipped_documents(encoder: Encoder, passages: Iterable[Passage]) -> list[Passage]:
    """The passages, each cut so that it fits the encoder; a title is left at most half of the room."""
    result = []
    for passage in passages:
        title = _clipped(encoder, passage.title, encoder.max_tokens // 2)
        room = encoder.max_tokens - encoder.document_overhead(title) - _SLACK
        result.append(Passage(title, _clipped(encoder, passage.text, max(1, room))))
    return result


def _clipped(encoder: Encoder, text: str, room: int) -> str:
    offsets = encoder.tokenizer.offsets(text)
    return text if len(offsets) <= room else text[: int(offsets[room - 1][1])]

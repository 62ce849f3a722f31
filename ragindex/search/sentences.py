"""The sentences of passages, read with a static encoder and remembered: users ask in turns, about the same passages."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ragindex.chunking.boundaries import sentence_ends
from ragindex.errors import EncoderError
from ragindex.store.rows import Float32Array, IdArray

if TYPE_CHECKING:
    from ragindex.encoder.reading import TextReader  # brings the tokenizer along, which a lexical query does not need

__all__ = ["Sentences", "Told", "sentences"]

_SHORTEST = 60  # characters of what counts as a sentence: shorter ones are joined to the next
_LINE_END = re.compile("\n")
_KNOWN = 512  # passages that are remembered


class Told(NamedTuple):
    """A passage's sentences with their vectors, float32 (sentences, d), and the distinct tokens of all, int64 (n,).
    Both are None where a sentence is longer than the encoder reads.
    """

    sentences: Sequence[str]
    vectors: Float32Array | None
    tokens: IdArray | None


class Sentences:
    """Reads passages, given as title and text. Thread-safe."""

    def __init__(self, reader: TextReader) -> None:
        self._reader = reader
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], Told] = OrderedDict()

    def of(self, passages: Sequence[tuple[str, str]]) -> list[Told]:
        """The sentences of each passage, the first one told with its title."""
        with self._lock:
            known = {key: self._known[key] for key in passages if key in self._known}
            for key in known:
                self._known.move_to_end(key)
        fresh = {key: sentences(key[1]) for key in passages if key not in known}
        made = {key: Told(parts, None, None) for key, parts in fresh.items()}
        try:
            made.update(self._read(fresh))
        except EncoderError:  # of a sentence that is too long; passages without such a one are read all the same
            for key, parts in fresh.items():
                with suppress(EncoderError):
                    made.update(self._read({key: parts}))
        self._remember(made)
        return [known[key] if key in known else made[key] for key in passages]

    def answered(self, query: str, told: Sequence[Told]) -> Float32Array:
        """How well each passage answers the words of a query, (n,), 0 to 1: `TextReader.interact`. One that could not
        be read counts as the others do on average.
        """
        tokens = [one.tokens for one in told if one.tokens is not None]
        values = np.zeros(len(told), np.float32)
        with suppress(EncoderError):  # the query's vector came with it, and it is too long for this encoder
            found = self._reader.interact(query, tokens)
            if len(found):
                values[:] = found.mean()
                values[[one.tokens is not None for one in told]] = found
        return values

    def _read(self, fresh: Mapping[tuple[str, str], Sequence[str]]) -> Mapping[tuple[str, str], Told]:
        if not fresh:
            return {}
        parts = [part for told in fresh.values() for part in told]
        titles = [title if place == 0 else "" for (title, _), told in fresh.items() for place in range(len(told))]
        vectors, tokens = self._reader.read(parts, titles=titles)
        made, start = {}, 0
        for key, told in fresh.items():
            end = start + len(told)
            made[key] = Told(told, vectors[start:end], np.unique(np.concatenate(tokens[start:end])))
            start = end
        return made

    def _remember(self, made: Mapping[tuple[str, str], Told]) -> None:
        with self._lock:
            self._known.update(made)
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, short ones joined to the next; the text itself where there is only one."""
    ends = sorted({*sentence_ends(text, 0, len(text)), *(match.start() for match in _LINE_END.finditer(text))})
    found: list[str] = []
    start = 0
    for end in (*ends, len(text)):
        if len(part := text[start:end].strip()) >= _SHORTEST or (part and end == len(text)):
            found.append(part)
            start = end
    return found or [text]

"""What a static encoder can tell of texts while a user waits: vectors, and how well a text answers each word.

Where no token reads another, a token's state is the same in every text. So texts need to be tokenised only, and late
interaction (Khattab and Zaharia, "ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction
over BERT", SIGIR 2020), which elsewhere takes a stored vector for every token of every text, costs a product of two
small matrices. Uncontextualised, it tells which of a query's words a text has nothing to say to, which a mean of all
its words does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from ragindex.encoder.prompts import Prompts
from ragindex.encoder.tokenizer import EncoderTokenizer, Tokenized

__all__ = ["Read", "TextReader", "TokenForward"]


class TokenForward(Protocol):
    """The forward pass of a static encoder."""

    def __call__(self, batch: Sequence[Tokenized]) -> np.ndarray:
        """Unit vectors of texts, float32 (len(batch), d)."""

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """States of tokens, float32 (len(ids), hidden)."""

    def shares(self, item: Tokenized) -> np.ndarray:
        """What each token of a text counts in its vector, float32 (length,)."""


class Read(NamedTuple):
    """Of n texts: their unit vectors, float32 (n, d), and of each the ids of its own tokens, int64 (length,)."""

    vectors: np.ndarray
    tokens: Sequence[np.ndarray]


class TextReader:
    """Reads texts with a static encoder. Thread-safe.

    cut: checks vectors (n, d) and shortens them to the encoder's dimensions.
    """

    def __init__(
        self,
        prompts: Prompts,
        tokenizer: EncoderTokenizer,
        forward: TokenForward,
        *,
        cut: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self._prompts = prompts
        self._tokenizer = tokenizer
        self._forward = forward
        self._cut = cut

    def read(self, texts: Sequence[str], *, titles: Sequence[str] | None = None) -> Read:
        """Vectors as of `Encoder.encode_documents`, and tokens. Raises EncoderError for a text that is too long."""
        pairs = zip(texts, titles or [""] * len(texts), strict=True)
        items = self._tokenizer.tokenize([self._prompts.for_document(text, title) for text, title in pairs])
        return Read(self._cut(self._forward(items)), [item.ids[item.pooled] for item in items])

    def interact(self, query: str, tokens: Sequence[np.ndarray]) -> np.ndarray:
        """How well texts, given by their tokens, answer the words of a query, float32 (len(tokens),), 0 to 1.

        The mean over the query's tokens of the highest cosine that each has with a token of the text (ColBERT's
        MaxSim), weighted by how much of the query's vector the token makes. Raises EncoderError for a query that is
        too long.
        """
        if not tokens:
            return np.empty(0, np.float32)
        (item,) = self._tokenizer.tokenize([self._prompts.for_query(query, "")])
        asked = self._forward.rows(item.ids)[item.pooled]
        lengths = np.linalg.norm(asked, axis=1)
        weights = self._forward.shares(item)[item.pooled] * lengths
        used, places = np.unique(np.concatenate(tokens), return_inverse=True)
        starts = np.cumsum([0, *map(len, tokens)])[:-1]
        cosines = _unit(asked) @ _unit(self._forward.rows(used)).T
        best = np.maximum.reduceat(cosines[:, places], starts, axis=1)
        answered = weights / max(float(weights.sum()), 1e-12) @ np.clip(best, 0, 1)
        return np.asarray(answered, np.float32)


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))

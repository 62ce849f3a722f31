"""Words that a WordPiece tokenizer cuts into pieces, and a tokenizer in which they are whole.

WordPiece takes the longest match first, so a word that is added is found as it stands, and every text in which it does
not occur is cut as before, but for longer words that begin with it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer

from ragindex.errors import TrainingError

__all__ = ["cut_words", "with_words"]

_FEWEST = 3  # occurrences: a row that is hardly ever seen is hardly ever trained
_LONGEST = 30  # characters


def cut_words(texts: Iterable[str], tokenizer: Tokenizer, *, most: int) -> list[str]:
    """The words of `texts` that the tokenizer cuts, at most so many, most frequent first.

    A word is what its normaliser and pre-tokenizer make one, has a letter and no unknown character. Raises
    TrainingError when the tokenizer is not WordPiece.
    """
    if not most:
        return []
    if json.loads(tokenizer.to_str())["model"]["type"] != "WordPiece":
        raise TrainingError("Words can have tokens of their own only with a teacher whose tokenizer is WordPiece.")
    written: Counter[str] = Counter()
    for text in texts:
        written.update(text.split())
    counts: Counter[str] = Counter()
    for piece, count in written.items():
        for word in _words(piece, tokenizer):
            counts[word] += count
    vocabulary, unknown = tokenizer.get_vocab(), tokenizer.model.unk_token
    found: list[str] = []
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if len(found) == most or count < _FEWEST:
            break
        if word in vocabulary or len(word) > _LONGEST or not any(map(str.isalpha, word)):
            continue
        if unknown not in tokenizer.encode(word, add_special_tokens=False).tokens:
            found.append(word)
    return found


def _words(text: str, tokenizer: Tokenizer) -> list[str]:
    if tokenizer.normalizer is not None:
        text = tokenizer.normalizer.normalize_str(text)
    if tokenizer.pre_tokenizer is None:
        return [text]
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def with_words(tokenizer: Tokenizer, words: Sequence[str]) -> Tokenizer:
    """The tokenizer with a token for each of these words, in this order, after those it has."""
    if not words:
        return tokenizer
    table = json.loads(tokenizer.to_str())
    size = tokenizer.get_vocab_size()
    table["model"]["vocab"].update({word: size + place for place, word in enumerate(words)})
    return Tokenizer.from_str(json.dumps(table))

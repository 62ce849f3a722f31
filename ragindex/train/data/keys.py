"""When two texts count as the same: case, punctuation and white space do not tell them apart."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from hashlib import blake2b

__all__ = ["folded", "text_key"]

_ASCII_SEPARATOR = re.compile(r"[\W_]+")
_MARKS = (0x300, 0x1F000)  # the range of Unicode that holds vowel signs and accents


def folded(text: str) -> str:
    """The words of a text in lower case with single spaces between them, after NFKC; symbols and punctuation go.

    A text of nothing but symbols keeps them, so that "???" and "!!!" differ.
    """
    if text.isascii():
        plain = text.lower()
        words = _ASCII_SEPARATOR.sub(" ", plain)
    else:
        plain = unicodedata.normalize("NFKC", text).casefold()
        words = _separator().sub(" ", plain)
    return words.strip() or " ".join(plain.split())


def text_key(text: str) -> bytes:
    """16 bytes that are equal when the folded texts are."""
    return blake2b(folded(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()


@cache
def _separator() -> re.Pattern[str]:
    """Whatever is no letter, digit or mark: a regular expression's word leaves out the vowel signs of many scripts."""
    marks = "".join(each for each in map(chr, range(*_MARKS)) if unicodedata.category(each).startswith("M"))
    return re.compile(rf"(?:[^\w{marks}]|_)+")

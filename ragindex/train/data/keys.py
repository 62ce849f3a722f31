"""When two texts count as the same: case, punctuation and white space do not tell them apart."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from hashlib import blake2b

__all__ = ["combining_marks", "folded", "has_marks", "text_key"]

_SEPARATOR = re.compile(r"[\W_]+")
_MARKED = (0x300, 0x1F000)  # the range of Unicode that holds vowel signs and accents
# The parts of it that hold nearly all: few texts have any of these characters, and a class of each mark is slow.
_MARKED_BLOCKS = re.compile(
    "[\u0300-\u036f\u0483-\u1dff\u20d0-\u20f0\u302a-\u302f\u3099\u309a\u2cef-\u2dff\ua66f-\uabff\ufb1e\ufe20-\ufe2f"
    "\U00010a00-\U00011fff\U0001e000-\U0001e8ff]"
)


def folded(text: str) -> str:
    """The words of a text in lower case with single spaces between them, after NFKC; symbols and punctuation go.

    A text of nothing but symbols keeps them, so that "???" and "!!!" differ.
    """
    plain = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    words = (_marked_separator() if has_marks(plain) else _SEPARATOR).sub(" ", plain)
    return words.strip() or " ".join(plain.split())


def text_key(text: str) -> bytes:
    """16 bytes that are equal when the folded texts are."""
    return blake2b(folded(text).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def has_marks(text: str) -> bool:
    """Whether a text may hold `combining_marks`."""
    return not text.isascii() and _MARKED_BLOCKS.search(text) is not None


@cache
def combining_marks() -> str:
    """Accents and vowel signs, which a regular expression's word leaves out: without them the words of many scripts
    would fall apart.
    """
    return "".join(each for each in map(chr, range(*_MARKED)) if unicodedata.category(each).startswith("M"))


@cache
def _marked_separator() -> re.Pattern[str]:
    return re.compile(rf"(?:[^\w{combining_marks()}]|_)+")

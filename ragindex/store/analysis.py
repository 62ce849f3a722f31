"""Cuts text into the words that the lexical index stores and searches for; pure, and versioned.

Documents and queries pass through the same function, so whatever it does to a word is done on both sides. English
stop words and stems are left to tantivy's filters (see `tantivy_index`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise

__all__ = ["ANALYSER_VERSION", "LONGEST_WORD", "words"]

ANALYSER_VERSION = 1  # raise it with any change of behaviour: indexes of another version are made again
LONGEST_WORD = 64  # characters; what is longer is a hash or base64 and is cut

# Vowel signs and accents that Python's \w leaves out; without them Indic and Semitic words would fall apart.
_MARKS = (
    "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u0900-\u0963\u0966-\u0dff\u0e00-\u0eff\u1000-\u109f\u1780-\u17d3"
)
_WORD = rf"[^\W_{_MARKS}][^\W_{_MARKS}]*(?:[{_MARKS}]+[^\W_{_MARKS}]*)*|[{_MARKS}][\w{_MARKS}]*"
# A word, or several joined by single marks as in snake_case, kebab-case and dotted.path. An English ending after an
# apostrophe is swallowed: "user's" is "user".
_RUN = re.compile(rf"(?:{_WORD})(?:[_.\-]+(?:{_WORD}))*(?:['’][^\W\d_]{{1,2}}\b)?")
_JOINT = re.compile(r"[_.\-]+")
_ENDING = re.compile(r"['’].*$")
# Scripts written without spaces, and Hangul, whose particles cling to their words.
_DENSE = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17d3\u3041-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003134f"
)
_DENSE_RUN = re.compile(rf"[{_DENSE}]+|[^{_DENSE}]+")
_DENSE_ANY = re.compile(rf"[{_DENSE}]")
_HUMPS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_ACCENTS = re.compile("[\u0300-\u036f]+")
# Letters that Unicode does not take apart into a base and an accent.
_FOLDED = str.maketrans(
    {"ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE"}
)


def words(text: str) -> list[str]:
    """The words of a text in order, lower-cased, accents folded.

    An identifier yields itself without its joints and its parts: `getUserName`, `get_user_name` and `get-user-name`
    all give getusername, get, user, name. Chinese, Japanese, Korean, Thai, Lao, Burmese and Khmer give single
    characters and pairs.
    """
    if not text.isascii():
        text = _ACCENTS.sub("", unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text)))
        text = unicodedata.normalize("NFC", text).translate(_FOLDED)
    found: list[str] = []
    for run in _RUN.findall(text):
        if run.isalpha() and run.isascii() and (run[1:].islower() or len(run) == 1):
            found.append(run.lower()[:LONGEST_WORD])
        else:
            found.extend(_split(run))
    return found


# Text repeats itself: most runs that are not plain words were seen a moment ago.
@lru_cache(maxsize=1 << 15)
def _split(run: str) -> tuple[str, ...]:
    return tuple(_pieces(run))


def _pieces(run: str) -> Iterator[str]:
    if _DENSE_ANY.search(run):
        for piece in _DENSE_RUN.findall(run):
            yield from _pairs(piece) if _DENSE_ANY.match(piece) else words(piece)
        return
    parts = _JOINT.split(_ENDING.sub("", run))
    if all(part.isdigit() for part in parts):
        # 3.14 and 2024-01-15 keep their marks: without them they would be other numbers.
        if len(parts) > 1:
            yield _ENDING.sub("", run)[:LONGEST_WORD]
    elif len(parts) > 1:
        yield "".join(parts).casefold()[:LONGEST_WORD]
    for part in parts:
        yield part.casefold()[:LONGEST_WORD]
        if len(part) <= LONGEST_WORD and part.isascii():
            humps = _HUMPS.findall(part)
            if len(humps) > 1:
                yield from (hump.casefold() for hump in humps)


def _pairs(piece: str) -> Iterator[str]:
    yield from piece
    for first, second in pairwise(piece):
        yield first + second

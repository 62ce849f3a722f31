"""Text as an attentive reader takes it: compatibility forms, look-alike letters, case and invisible characters folded
away, and for every folded character the place in the text that it comes from.

Patterns that look for an instruction or a delimiter run over the folded form, so that `ｉgnore`, `IGNORE` and
`ig\u200bnore` are one word to them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Folded", "fold", "is_invisible"]

# Letters that are drawn as Latin ones (Cyrillic, Greek); a small part of Unicode's confusables (UTS 39), those that
# occur in English words of disguised texts.
_LOOK_ALIKE = dict(
    zip(
        map(ord, "аеорсухіјѕһԁԛԝгпАВЕКМНОРСТУХІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧαινορυ"),
        "aeopcyxijshdqwrnabekmhopctyxijsabezhikmnoptyxaivopu",
        strict=True,
    )
)
# Drawn as angle brackets and bars; compatibility folding does not reach them.
_BRACKETS = dict(zip(map(ord, "‹〈⟨❮❬⟪《«›〉⟩❯❭⟫》»∣│┃ǀ"), "<<<<<<<<>>>>>>>>||||", strict=True))
# Not of category Cf, yet drawn as nothing: combining grapheme joiner, Hangul and Khmer fillers.
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")


@dataclass(frozen=True, slots=True)
class Folded:
    """`text[i]` was made from character `origin[i]` of the text that was folded."""

    text: str
    origin: Sequence[int]


def is_invisible(character: str) -> bool:
    """Whether it is drawn as nothing: format characters (zero-width, bidirectional, tags), fillers, variation
    selectors.
    """
    code = ord(character)
    if 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF:
        return True
    return character in _FILLERS or unicodedata.category(character) == "Cf"


def fold(text: str) -> Folded:
    """Compatibility forms and look-alikes as plain letters, in lower case, without invisible characters."""
    if text.isascii():
        return Folded(text.lower(), range(len(text)))
    letters: list[str] = []
    origin: list[int] = []
    for place, character in enumerate(text):
        if character.isascii():
            folded = character.lower()
        elif is_invisible(character):
            continue
        else:
            folded = unicodedata.normalize("NFKC", character).translate(_LOOK_ALIKE).translate(_BRACKETS).lower()
        letters.append(folded)
        origin.extend([place] * len(folded))
    return Folded("".join(letters), origin)

"""Guesses the language of a text from its script and its stop words: right for documents, silent for scraps."""

from __future__ import annotations

import re
from collections import Counter
from types import MappingProxyType

from ragindex.loaders.words import words

__all__ = ["detect_language"]

_SAMPLE = 20_000
_WORD = re.compile(r"[^\W\d_]+")
# The most frequent words that few other languages of the list share.
_STOP_WORDS = MappingProxyType(
    {
        code: words(common)
        for code, common in {
            "cs": "a je se na že to v s z do jsem jako pro ale jeho nebo byl ve by které není jsou",
            "da": "og i at det er en af til på den ikke de med der har som et jeg vi kan eller blev efter",
            "de": "der die und das ist nicht ein eine mit von zu den für auf im auch sich dem wird sind oder werden",
            "en": "the and of to is in that it for with as are this was be by on not from or an which have you at",
            "es": "de la que el en y los se del las un por con no una para es al lo como más o pero este",
            "fi": "ja on ei se että oli hän mutta ovat kun myös jos tai sekä niin joka ole voi kanssa",
            "fr": "de la le et les des est un une du en que pour dans qui par pas au sur il plus avec ce sont ou",
            "hu": "a az és hogy nem is egy ez van volt meg ha csak mint de vagy ami már még",
            "it": "di che e la il un a per è in una non del con sono si da dei gli alla nel come più anche le",
            "nl": "de het een van en in is dat op te zijn met voor niet aan er om ook als bij of wordt naar",
            "no": "og i det er på en som til av for ikke med at de har et den jeg vi kan eller ble etter fra",
            "pl": "w i na z się nie do to jest że o jak ale po przez od za co dla są oraz lub był",
            "pt": "de que o a e do da em um para com não uma os no se na por mais as dos como mas ao ou são",
            "ro": "și de la în a cu nu pe este o un din că se pentru mai care sunt sau au fi",
            "sv": "och i att det som en på är av för med den till inte har de ett om jag vi kan eller från",
            "tr": "ve bir bu da de için ile çok ne olarak daha gibi olan var ama kadar sonra en",
        }.items()
    }
)
_CYRILLIC = MappingProxyType(
    {
        "bg": words("и на да се от за не е са че по като това"),
        "ru": words("и в не на что он с как это по но из к у же за от для или"),
        "uk": words("і в не на що з як це та до але від за у про або є для"),
    }
)
_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7a3]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("ar", re.compile(r"[\u0620-\u064a]")),
    ("he", re.compile(r"[\u05d0-\u05ea]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("hi", re.compile(r"[\u0904-\u0939]")),
    ("th", re.compile(r"[\u0e01-\u0e3a]")),
)


def detect_language(text: str) -> str | None:
    """An ISO 639-1 code, or None when the text is too short or no language stands out."""
    sample = text[:_SAMPLE].lower()
    letters = sum(1 for character in sample if character.isalpha())
    if letters < 8:
        return None
    for code, pattern in _SCRIPTS:
        # A tenth is enough for kana: Japanese is mostly Han characters, but no other language writes kana.
        if len(pattern.findall(sample)) * (10 if code == "ja" else 3) > letters:
            return code
    counts = Counter(_WORD.findall(sample))
    cyrillic = len(re.findall(r"[\u0400-\u04ff]", sample)) * 2 > letters
    lists = _CYRILLIC if cyrillic else _STOP_WORDS
    scores = {code: sum(counts[word] for word in stop) for code, stop in lists.items()}
    best, runner_up = sorted(scores, key=lambda code: -scores[code])[:2]
    distinct = sum(1 for word in lists[best] if counts[word])
    if distinct < 3 or scores[best] * 12 < counts.total() or scores[best] * 5 <= scores[runner_up] * 6:
        return None
    return best

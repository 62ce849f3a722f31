"""What the words of a question count in lexical search: those that only give it its shape count less. Pure.

BM25 takes rarity for meaning, and in a folder of manuals "how", "can" and "my" are rare: a page of frequently asked
questions has them all, and stands above the page with the answer. They are not left out, because a query may consist
of them. What they count was measured (docs/querying.md). The index leaves some words out altogether (the, of, is); they
never count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from ragindex.store.analysis import words

__all__ = ["FUNCTION_WORDS", "weighed_terms"]

_COUNTS = 0.4  # of a word; with 0.3 and 0.5 the sets' means are within 0.001
# English words of closed classes, as `words` gives them. Verbs that name commands (get, go, show, let) are not here.
_ASKING = "how what when where which who whom whose why"
_PERSONS = (
    "i me my mine myself we us our ours you your yours he him his she her hers its they them theirs those each every "
    "either neither both all any some other own same"
)
_AUXILIARIES = (
    "am been being were do does did doing done have has had having can could may might must shall should would "
    "don doesn didn isn aren wasn weren haven hasn hadn couldn mustn shouldn wouldn"  # what `words` leaves of "don't"
)
_RELATIONS = (
    "about above after against before below between down during from off out over through under until up while because "
    "than nor"
)
_DEGREES = "also few further here just more most once only so too very"
FUNCTION_WORDS = frozenset(" ".join((_ASKING, _PERSONS, _AUXILIARIES, _RELATIONS, _DEGREES)).split())
_ACRONYM = re.compile(r"\b[A-Z]{2,}\b")


def weighed_terms(text: str, analyse: Callable[[str], Iterable[str]]) -> Mapping[str, float]:
    """The terms of a query and what each counts: 1 for every time it occurs, less for a function word.

    analyse: from words with spaces between them to the terms that the index holds. An acronym (WHO, CAN, US) is no
    function word, unless the whole query is in capitals.
    """
    acronyms = {name.lower() for name in _ACRONYM.findall(text)} if text != text.upper() else set()
    shaping = FUNCTION_WORDS - acronyms
    asked = words(text)
    counted: dict[str, float] = {}
    for count, chosen in (
        (1.0, [word for word in asked if word not in shaping]),
        (_COUNTS, [word for word in asked if word in shaping]),
    ):
        for term in analyse(" ".join(chosen)):
            counted[term] = counted.get(term, 0.0) + count
    return counted

"""A generator of LIMIT-style data: trivial for words, hard for a single vector.

Every pair of people likes one thing that nobody else likes, and every such thing is a query with exactly these two
answers. The number of top-2 sets that queries ask for grows with the square of the people, which a vector of few
dimensions cannot all express. Source: Weller, Boratko, Naim and Lee, "On the Theoretical Limitations of
Embedding-Based Retrieval" (2025); names, things and wording are this module's own.
"""

from __future__ import annotations

import itertools
import random

from ragindex.errors import UsageError
from ragindex.evaluation.datasets import Dataset, Passage

__all__ = ["limit_dataset"]

_GIVEN = """
Ada Bela Cleo Dario Edda Farid Greta Hanno Ines Jonas Kira Levi Mona Nils Odile Pavel Quinn Rosa Samir Tilda
Ugo Vera Wanda Xenia Yusuf Zora
"""
_MIDDLE = "Abel Brook Cruz Dove Elm Frost Gale Hale Ivy June Kai Lane Moss North Oak Pine Rain Sage Tate Vale"
_FAMILY = """
Abbott Berger Castel Drummond Eklund Fontana Garrido Holm Ibarra Jansen Kovac Lindqvist Moreau Novak Okoro
Petrov Quist Romano Sato Tanaka Ulrich Varga Weber Xu Yilmaz Zeller
"""
_QUALITIES = """
amber ancient blue bitter carved coastal copper crimson crooked double dried early foreign frozen gentle giant
golden green hidden hollow indigo ivory late little local loud lunar marble mellow misty northern odd painted
pale paper plain polished purple quiet rustic salty scarlet secret silver slow smoked spiral striped sunny
velvet wild winter
"""
_THINGS = """
acorns almanacs anchors anthems baskets bells bridges buttons canals candles carpets castles chess clocks
comets cupboards dumplings engines fables falcons fiddles fountains gardens gloves hammers harps kettles kites
ladders lanterns lemons mandolins maps marbles mirrors mittens mushrooms needles olives orchards owls pebbles
pickles puppets puzzles quilts radios ribbons riddles saddles seashells sketches sonnets stamps stools
tapestries teapots thimbles trumpets tulips turnips umbrellas violets waltzes windmills
"""


def limit_dataset(*, people: int = 46, likes: int = 50, bystanders: int = 0, seed: int = 0) -> Dataset:
    """Build the data set.

    people: documents that are answers, giving people * (people - 1) / 2 queries; likes: things that each document
    names, at least people - 1; bystanders: further documents that like only things nobody asks for.

    Raises UsageError for numbers that cannot be met.
    """
    if people < 2 or bystanders < 0:
        raise UsageError("A LIMIT data set needs at least two people and no negative number of bystanders.")
    if likes < people - 1:
        raise UsageError(
            f"Each of {people} people shares {people - 1} things; likes must be at least that, not {likes}."
        )
    generator = random.Random(seed)  # noqa: S311 (data, not secrets)
    # One word each: with words in common, "blue kettles" would also find who likes blue maps and old kettles.
    things = [f"{quality}{thing}" for quality in _QUALITIES.split() for thing in _THINGS.split()]
    names = [" ".join(parts) for parts in itertools.product(*map(str.split, (_GIVEN, _MIDDLE, _FAMILY)))]
    generator.shuffle(things)
    generator.shuffle(names)
    pairs = list(itertools.combinations(range(people), 2))
    asked, fillers = things[: len(pairs)], things[len(pairs) :]
    if len(asked) < len(pairs) or len(fillers) < likes:
        raise UsageError(f"There are only {len(things)} things to like: choose fewer people or likes.")
    if people + bystanders > len(names):
        raise UsageError(f"There are only {len(names)} names: choose fewer people or bystanders.")

    liked: list[list[str]] = [[] for _ in range(people + bystanders)]
    qrels: dict[str, dict[str, int]] = {}
    for number, (pair, thing) in enumerate(zip(pairs, asked, strict=True)):
        for person in pair:
            liked[person].append(thing)
        qrels[f"q{number}"] = {names[person]: 1 for person in pair}
    corpus = {}
    for name, own in zip(names, liked, strict=False):
        own += generator.sample(fillers, likes - len(own))
        generator.shuffle(own)
        listed = f"{', '.join(own[:-1])} and {own[-1]}" if len(own) > 1 else own[0]
        corpus[name] = Passage("", f"{name} likes {listed}.")
    order = sorted(corpus)
    generator.shuffle(order)  # else the answers would all come first
    return Dataset(
        name=f"limit-{people}-{likes}-{bystanders}",
        corpus={name: corpus[name] for name in order},
        files=None,
        queries={f"q{number}": f"Who likes {thing}?" for number, thing in enumerate(asked)},
        qrels=qrels,
    )

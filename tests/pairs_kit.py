"""Documents and pseudo-pairs for the tests of `ragindex.train.data`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ragindex.config import Limits
from ragindex.loaders import load
from ragindex.train.data import PAIR_KINDS, Example, PairOptions, pairs_from_documents
from ragindex.types import Document

CUT = PairOptions(keep=0.0)
KEPT = PairOptions(keep=1.0)

GUIDE = """\
---
title: Tide gauges
author: nobody
description: A long line about the keeping of gauges that the reader of the page never gets to see at all.
---
# Tide gauges

The float gauge at the pier records the height of the sea every six minutes. A stilling well keeps the waves out of
the reading. Storm surges lift the water for hours and are visible as a slow bump.

## Overview

Harmonic analysis splits the record into constituents with fixed periods. The largest of them follows the moon with a
period of half a lunar day. Shallow harbours add overtides that only a long record can separate.

## Cleaning the well

Barnacles narrow the inlet until the trace flattens. Divers scrape the pipe twice each summer with a bronze brush.
Afterwards the surveyor compares the gauge with a graduated staff for a full day.

### How often is the staff levelled?

Levelling from the benchmark is repeated every spring. The result is written into the station log.
"""

HARBOUR = """\
# Harbour lights

## Overview

Leading lights mark the deep channel for ships that enter after sunset. Two lamps stand behind each other and line up
when the helmsman steers correctly.

## Lamps

Each lantern burns an electric bulb inside a drum of ground glass. Keepers replaced the paraffin burners seventy years
ago and still polish the lenses by hand.
"""


def essay(count: int, *, first: int = 0) -> str:
    """`count` sentences of twelve words, some of which no other sentence has."""

    def rare(number: int) -> str:
        return "".join("bcdfghjklmnp"[int(digit)] + "aeiou"[int(digit) % 5] for digit in f"{number:05}")

    lines = [
        f"The {rare(n)} keeper of {rare(n + 30000)} rowed to the {rare(n + 60000)} light at dawn."
        for n in range(first, first + count)
    ]
    return " ".join(lines)


def document(folder: Path, name: str, text: str) -> Document:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return load(file, name=name, limits=Limits())


def made(documents: Sequence[Document], *kinds: str, seed: int = 0, options: PairOptions = CUT) -> list[Example]:
    return list(pairs_from_documents(documents, kinds=kinds or tuple(PAIR_KINDS), seed=seed, options=options))


def by_query(examples: Sequence[Example]) -> dict[str, Example]:
    return {example.query: example for example in examples}

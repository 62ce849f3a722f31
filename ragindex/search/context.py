"""A prompt-ready block of hits: numbered, cited, within a token budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ragindex.errors import UsageError
from ragindex.types import Hit

__all__ = ["render_context"]

_ELLIPSIS = " …"


def render_context(hits: Sequence[Hit], *, tokens: int, spans: Callable[[str], np.ndarray]) -> str:
    """The block, at most `tokens` tokens long; `spans` gives the character span of every token of a text.

    Each hit is `[n] citation — headings` and its text. Hits are taken whole in order of rank; the first that does not
    fit is cut at a token and marked with an ellipsis, as long as a useful part of it (a quarter, or 32 tokens)
    remains.
    """
    if tokens < 16:
        raise UsageError(f"A context of {tokens} tokens holds nothing; ask for at least 16.")
    blocks: list[str] = []
    left = tokens
    for number, hit in enumerate(hits, 1):
        head = f"[{number}] {hit.citation}"
        if hit.heading or hit.title:
            head += f" — {' > '.join(hit.heading or (hit.title,))}"
        block = f"{head}\n{hit.text.strip()}\n"
        cost = len(spans(block))
        if cost <= left:
            blocks.append(block)
            left -= cost
            continue
        room = left - len(spans(f"{head}\n{_ELLIPSIS}\n")) - 1
        body = spans(hit.text.strip())
        if room >= min(32, len(body) // 4) and room > 0:
            blocks.append(f"{head}\n{hit.text.strip()[: int(body[room - 1][1])].rstrip()}{_ELLIPSIS}\n")
        break
    return "\n".join(blocks)

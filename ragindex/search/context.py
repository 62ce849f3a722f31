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
    block = ""
    for number, hit in enumerate(hits, 1):
        head = f"[{number}] {hit.citation}"
        if hit.heading or hit.title:
            head += f" — {' > '.join(hit.heading or (hit.title,))}"
        start = f"{block}\n{head}\n" if block else f"{head}\n"
        text = hit.text.strip()
        # The whole is counted each time: tokens of two parts may meet differently than alone.
        if len(spans(f"{start}{text}\n")) <= tokens:
            block = f"{start}{text}\n"
            continue
        body = spans(text)
        room = min(len(body), tokens - len(spans(f"{start}{_ELLIPSIS}\n")))
        while room > 0 and room >= min(32, len(body) // 4):
            cut = f"{start}{text[: int(body[room - 1][1])].rstrip()}{_ELLIPSIS}\n"
            if len(spans(cut)) <= tokens:
                return cut
            room -= 1
        break
    return block

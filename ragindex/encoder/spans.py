"""Late chunking: a text is read whole and its spans are pooled from the states, so that the vector of each knows what
stands around it (Günther et al., "Late Chunking: Contextual Chunk Embeddings Using Long-Context Embedding Models",
arXiv 2409.04701).

Prompt and title stand before the text of every window, are read by all of it, and are pooled with each span just as
with a document that is encoded by itself. So where no token reads another (a static encoder), a span's vector is that
of its text encoded alone with the same title.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ragindex.encoder.checkpoint import IN_NUMPY, EncoderConfig, Pooling
from ragindex.encoder.head import Head
from ragindex.encoder.prompts import Prompts
from ragindex.encoder.tokenizer import EncoderTokenizer, Located, Tokenized
from ragindex.encoder.windows import Span, SpanPlan, TokenCounter, plan_spans
from ragindex.errors import UsageError

__all__ = ["SpanReader"]

_POOLINGS: frozenset[Pooling] = IN_NUMPY - {"last"}
_AHEAD = 32_768  # tokens of windows that are read together; bounds memory

States = Callable[[Sequence[Tokenized]], Iterable[np.ndarray]]
Cut = Callable[[np.ndarray], np.ndarray]


class SpanReader:
    """Late chunking with one encoder.

    states: gives the last hidden states of tokenised texts, float32 (length, hidden) each; cut: checks vectors (n, d)
    and shortens them to the encoder's dimensions.

    Raises UsageError unless a span can be pooled by itself: a last token has read too much, and the other trained
    poolings were trained on whole texts.
    """

    def __init__(
        self, config: EncoderConfig, tokenizer: EncoderTokenizer, head: Head, *, states: States, cut: Cut
    ) -> None:
        if config.pooling not in _POOLINGS:
            raise UsageError(
                f"Late chunking needs an encoder with mean, weighted-mean or mean-query pooling; "
                f"this one has {config.pooling}."
            )
        self._config = config
        self._tokenizer = tokenizer
        self._head = head
        self._states = states
        self._cut = cut

    def plan(
        self, text: str, spans: Sequence[Span], *, title: str = "", tokens: TokenCounter | None = None
    ) -> SpanPlan:
        """How spans of a text are pooled; see `plan_spans` for what may be wrong with them. tokens: in place of the
        encoder's tokenizer, which it has to agree with.
        """
        limit = self._config.max_tokens - self._tokenizer.specials
        prompts, counter = self._config.prompts, tokens or self._tokenizer
        return plan_spans(text, spans, title=title, prompts=prompts, tokens=counter, limit=limit)

    def encode(self, plans: Sequence[SpanPlan]) -> list[np.ndarray]:
        """For each plan the unit vectors of its spans, float32 (spans, d)."""
        found: list[dict[int, np.ndarray]] = [{} for _ in plans]
        for group in _groups(plans, self._config.prompts, self._tokenizer):
            states = self._states([window.located.tokenized for window in group])
            for window, hidden in zip(group, states, strict=True):
                for place in window.spans:
                    pooled = np.flatnonzero(window.pooled(place))
                    ids, all_of_them = window.located.tokenized.ids[pooled], np.ones(len(pooled), dtype=bool)
                    found[window.plan][place] = self._head.apply(
                        hidden[pooled],
                        ids,
                        all_of_them,
                        self._config.pooling,
                        counting=self._config.counting,
                    )
        empty = np.empty((0, self._config.dimensions), dtype=np.float32)
        return [self._cut(np.stack([some[place] for place in sorted(some)]) if some else empty) for some in found]


@dataclass(frozen=True, slots=True)
class _Window:
    """A window of the plan with the number `plan`, tokenised. text: where its part of the text lies in the input;
    spans: where its members do, by their place.
    """

    plan: int
    located: Located
    text: Span
    spans: Mapping[int, Span]

    def pooled(self, place: int) -> np.ndarray:
        """What is pooled for a span, bool (length,): its own tokens, and what is pooled before and after the text."""
        own, around = self.located.within(self.spans[place]), ~self.located.within(self.text)
        pooled: np.ndarray = self.located.tokenized.pooled & (own | around)
        if not pooled.any():  # the tokenizer drops its characters: whatever there is, as for an empty text
            return around if around.any() else ~around
        return pooled


def _groups(plans: Sequence[SpanPlan], prompts: Prompts, tokenizer: EncoderTokenizer) -> Iterator[list[_Window]]:
    """The windows of all plans, tokenised, as many at a time as are read together."""
    group: list[_Window] = []
    tokens = 0
    for number, plan in enumerate(plans):
        before = len(prompts.document_prefix(plan.title))
        for (start, end), members in zip(plan.windows, plan.members(), strict=True):
            prompted = prompts.for_document(plan.text[start:end], plan.title)
            text = before, len(prompted.text) - len(prompts.document_suffix)
            spans = {place: _shifted(plan.spans[place], before - start) for place in members}
            located = tokenizer.locate(prompted)
            group.append(_Window(number, located, text, spans))
            tokens += len(located.tokenized.ids)
            if tokens >= _AHEAD:
                yield group
                group, tokens = [], 0
    if group:
        yield group


def _shifted(span: Span, by: int) -> Span:
    return span[0] + by, span[1] + by

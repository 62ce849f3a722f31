"""Prompt templates: how a query, its instruction, and a document with its title become the text that is tokenised.

The instruction belongs to queries only (LLM2Vec, arXiv 2404.05961; E5, arXiv 2401.00368) and is not pooled, so a
prompt says where it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ragindex.errors import EncoderError

__all__ = ["PROMPT_STYLES", "Prompted", "Prompts"]


@dataclass(frozen=True, slots=True)
class Prompted:
    """Text as it is tokenised. Characters before `pooled_from` are read by the model but not pooled."""

    text: str
    pooled_from: int = 0


@dataclass(frozen=True, slots=True)
class Prompts:
    """The templates of one encoder; stored with it and part of its fingerprint.

    query: used when there is no instruction; instructed_query: `{instruction}` and `{text}`, everything before
    `{text}` is not pooled; instruction: the default, used when a caller gives none; document: `{title}` and `{text}`;
    untitled_document: `{text}` alone. The text comes last in every template.
    """

    query: str = "{text}"
    instructed_query: str = "{instruction} {text}"
    instruction: str = ""
    document: str = "{title}\n{text}"
    untitled_document: str = "{text}"

    def __post_init__(self) -> None:
        for entry in fields(self):
            template = getattr(self, entry.name)
            if entry.name != "instruction" and not template.endswith("{text}"):
                raise EncoderError(f"The prompt template {entry.name!r} is {template!r}; it must end in {{text}}.")

    def for_query(self, text: str, instruction: str | None = None) -> Prompted:
        """The prompted query. `instruction=None` means the encoder's default, an empty string means none at all."""
        chosen = self.instruction if instruction is None else instruction
        if not chosen:
            prefix = self.query.removesuffix("{text}")
            return Prompted(prefix + text)
        prefix = self.instructed_query.removesuffix("{text}").replace("{instruction}", chosen)
        return Prompted(prefix + text, len(prefix))

    def for_document(self, text: str, title: str = "") -> Prompted:
        """The prompted document. The title is pooled: it says what the text is about."""
        return Prompted(self.document_prefix(title) + text)

    def document_prefix(self, title: str) -> str:
        """What stands before the text of a document with this title."""
        if not title:
            return self.untitled_document.removesuffix("{text}")
        return self.document.removesuffix("{text}").replace("{title}", title)

    def as_json(self) -> dict[str, str]:
        """The templates by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Prompts:
        """The inverse of `as_json`. Raises EncoderError for an unknown or missing-text template."""
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(table) - known)
        if unknown:
            raise EncoderError(f"Unknown prompt template {unknown[0]!r}; known are {', '.join(sorted(known))}.")
        return cls(**{key: str(value) for key, value in table.items()})


PROMPT_STYLES: Mapping[str, Prompts] = {
    "plain": Prompts(),
    # LLM2Vec marks the end of an instruction with "!@#$%^&*()", and takes the mark out before it tokenises.
    "llm2vec": Prompts(instructed_query="{instruction} {text}", document="{title} {text}"),
    "e5-instruct": Prompts(
        instructed_query="Instruct: {instruction}\nQuery: {text}",
        instruction="Given a web search query, retrieve relevant passages that answer the query",
    ),
    "embeddinggemma": Prompts(
        query="task: search result | query: {text}",
        instructed_query="task: {instruction} | query: {text}",
        document="title: {title} | text: {text}",
        untitled_document="title: none | text: {text}",
    ),
}

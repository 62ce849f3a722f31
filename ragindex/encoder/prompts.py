"""Prompt templates: how a query, its instruction, its examples, and a document with its title become the text that is
tokenised.

The instruction belongs to queries only (LLM2Vec, arXiv 2404.05961; E5, arXiv 2401.00368) and is not pooled, so a
prompt says where it ends. Examples stand before the query they explain (bge-en-icl, arXiv 2409.15700). Templates are
filled by putting values where their names stand; what a text looks like decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from ragindex.errors import EncoderError, UsageError

__all__ = ["PROMPT_STYLES", "Example", "Pooled", "Prompted", "Prompts", "Task"]

Pooled = Literal["from-text", "text", "all"]
_TEXT, _INSTRUCTION = "{text}", "{instruction}"
_EXAMPLE = "Instruct: {instruction}\nQuery: {query}\nAnswer: {answer}\n\n"


@dataclass(frozen=True, slots=True)
class Prompted:
    """Text as it is tokenised. Characters before `pooled_from`, and those from `pooled_to` on where it is given, are
    read by the model but not pooled.
    """

    text: str
    pooled_from: int = 0
    pooled_to: int | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A query and what answers it, shown before a query. An empty instruction is that of the query it is shown to."""

    query: str
    answer: str
    instruction: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """What an encoder is asked to do besides its default.

    symmetric: both sides get the query's prompt (similarity of sentences, duplicates, clustering); examples: shown
    before each query; query: a template of its own in place of the encoder's, where the instruction is not enough.
    """

    instruction: str = ""
    symmetric: bool = False
    examples: tuple[Example, ...] = ()
    query: str = ""

    def __post_init__(self) -> None:
        if self.query:
            _check_template("query", self.query, needs=(_TEXT,))


@dataclass(frozen=True, slots=True)
class Prompts:
    """The templates of one encoder; stored with it and part of its fingerprint.

    query: used when there is no instruction; instructed_query: `{instruction}` and `{text}`; instruction: the default,
    used when a caller gives none; document: `{title}` and `{text}`, which comes last; untitled_document: `{text}`
    alone. What a query template has before `{text}` is pooled, unless it holds an instruction; a title is pooled.

    wrapper: what stands around every prompt, as chat models have it (white space before its end is dropped); examples:
    shown before queries with the default instruction; example: how one is written, with `{instruction}`, `{query}` and
    `{answer}`; tasks: by name.

    pooled: "from-text" leaves out examples, instruction and the wrapper's beginning, but not what follows the text,
    as LLM2Vec has it; "text" leaves that out too; "all" leaves nothing out. Special tokens are the encoder's matter
    (`EncoderConfig.pool_special`).
    """

    query: str = "{text}"
    instructed_query: str = "{instruction} {text}"
    instruction: str = ""
    document: str = "{title}\n{text}"
    untitled_document: str = "{text}"
    wrapper: str = "{text}"
    pooled: Pooled = "from-text"
    example: str = _EXAMPLE
    examples: tuple[Example, ...] = ()
    tasks: Mapping[str, Task] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("query", "wrapper"):
            _check_template(name, getattr(self, name), needs=(_TEXT,))
        _check_template("instructed_query", self.instructed_query, needs=(_TEXT, _INSTRUCTION))
        _check_template("example", self.example, needs=("{query}", "{answer}"))
        for name in ("document", "untitled_document"):
            template = getattr(self, name)
            if not template.endswith(_TEXT):
                raise EncoderError(f"The prompt template {name!r} is {template!r}; it must end in {{text}}.")
        if self.pooled not in get_args(Pooled):
            raise EncoderError(
                f"Unknown way of pooling prompts {self.pooled!r}; choose one of {', '.join(get_args(Pooled))}."
            )

        alone = [
            example
            for asked in (Task(self.instruction, examples=self.examples), *self.tasks.values())
            for example in asked.examples
            if not (example.instruction or asked.instruction)
        ]
        if alone and _INSTRUCTION in self.example:
            raise EncoderError(f"The stored example {alone[0].query!r} has no instruction to be shown with; store one.")

    def for_query(
        self,
        text: str,
        instruction: str | None = None,
        *,
        task: str | None = None,
        examples: Sequence[Example] | None = None,
    ) -> Prompted:
        """The prompted query.

        instruction: None means the encoder's default, an empty string none at all; task: the instruction, examples and
        template stored under this name instead; examples: in place of the stored ones, which belong to the stored
        instructions. Raises UsageError for an unknown task, and for a task together with an instruction.
        """
        asked = self._asked(instruction, task)
        template = asked.query or (self.instructed_query if asked.instruction else self.query)
        before, _, after = template.partition(_TEXT)
        shown = "".join(
            self._written(example, asked.instruction) for example in (asked.examples if examples is None else examples)
        )
        lead = shown + before.replace(_INSTRUCTION, asked.instruction)
        return self._wrapped(lead, text, after, unpooled=len(lead if _INSTRUCTION in before else shown))

    def for_document(self, text: str, title: str = "", *, task: str | None = None) -> Prompted:
        """The prompted document. The title is pooled: it says what the text is about.

        A symmetric task gives it the task's query prompt, which has no place for a title. Raises UsageError for a
        title there, and for an unknown task.
        """
        if task is not None and self.task(task).symmetric:
            if title:
                raise UsageError(f"In the task {task!r} both sides are prompted alike, so a text has no title.")
            return self.for_query(text, task=task)
        return self._wrapped(self._before_document(title), text, "", unpooled=0)

    def document_prefix(self, title: str) -> str:
        """What stands before the text of a document with this title."""
        return self.wrapper.partition(_TEXT)[0] + self._before_document(title)

    @property
    def document_suffix(self) -> str:
        """What stands after the text of a document."""
        return self.wrapper.partition(_TEXT)[2]

    def task(self, name: str) -> Task:
        """The task of this name. Raises UsageError, naming those there are, when there is none."""
        if name not in self.tasks:
            known = f"it knows {', '.join(sorted(self.tasks))}" if self.tasks else "it stores none; give an instruction"
            raise UsageError(f"The encoder has no task {name!r}: {known}.")
        return self.tasks[name]

    def as_json(self) -> dict[str, Any]:
        """The templates by name; those that came later only where they say something."""
        table = asdict(self)
        usual = asdict(Prompts())
        return {name: value for name, value in table.items() if name in _FIRST or value != usual[name]}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Prompts:
        """The inverse of `as_json`. Raises EncoderError for an unknown or missing-text template."""
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(table) - known)
        if unknown:
            raise EncoderError(f"Unknown prompt template {unknown[0]!r}; known are {', '.join(sorted(known))}.")
        values: dict[str, Any] = {key: str(value) for key, value in table.items() if key not in ("examples", "tasks")}
        try:
            values["examples"] = _examples(table.get("examples", ()))
            values["tasks"] = {str(name): _task(value) for name, value in dict(table.get("tasks", {})).items()}
        except (TypeError, ValueError) as error:
            raise EncoderError(f"The stored tasks or examples of the prompts are malformed: {error}.") from error
        return cls(**values)

    def _asked(self, instruction: str | None, task: str | None) -> Task:
        if task is not None:
            if instruction is not None:
                raise UsageError("A task brings its own instruction; give one of the two.")
            return self.task(task)
        if instruction is None or instruction == self.instruction:
            return Task(self.instruction, examples=self.examples)
        return Task(instruction)

    def _written(self, example: Example, instruction: str) -> str:
        values = {"instruction": example.instruction or instruction, "query": example.query, "answer": example.answer}
        if not values["instruction"] and _INSTRUCTION in self.example:
            raise UsageError("Examples are shown with the instruction that they follow; give one.")
        # In one go: a query may hold the word {answer} itself.
        return re.sub(r"\{(instruction|query|answer)\}", lambda place: values[place[1]], self.example)

    def _before_document(self, title: str) -> str:
        template = self.document if title else self.untitled_document
        return template.removesuffix(_TEXT).replace("{title}", title)

    def _wrapped(self, lead: str, text: str, after: str, *, unpooled: int) -> Prompted:
        """The prompt in its wrapper; the first `unpooled` characters of `lead` are not pooled."""
        begin, _, end = self.wrapper.partition(_TEXT)
        if end and not after:  # LLM2Vec strips a message before it closes it
            text = text.rstrip()
        whole = begin + lead + text + after + end
        if self.pooled == "all":
            return Prompted(whole)
        stop = len(begin) + len(lead) + len(text)
        leave = self.pooled == "text" and stop < len(whole)
        return Prompted(whole, len(begin) + unpooled, stop if leave else None)


_FIRST = frozenset({"query", "instructed_query", "instruction", "document", "untitled_document"})


def _check_template(name: str, template: str, *, needs: Sequence[str]) -> None:
    for place in needs:
        if template.count(place) != 1:
            raise EncoderError(f"The prompt template {name!r} is {template!r}; it must contain {place} once.")
    if _INSTRUCTION in template.partition(_TEXT)[2]:
        raise EncoderError(f"The prompt template {name!r} is {template!r}; {_INSTRUCTION} must come before {_TEXT}.")


def _task(value: Any) -> Task:
    """A stored task: an instruction alone, or an object."""
    if isinstance(value, str):
        return Task(value)
    values = dict(value)
    examples = _examples(values.pop("examples", ()))
    symmetric = bool(values.pop("symmetric", False))
    return Task(**_texts(values), symmetric=symmetric, examples=examples)


def _examples(values: Sequence[Mapping[str, Any]]) -> tuple[Example, ...]:
    return tuple(Example(**_texts(dict(value))) for value in values)


def _texts(values: dict[str, Any]) -> dict[str, Any]:
    wrong = next((name for name, value in values.items() if not isinstance(value, str)), None)
    if wrong is not None:
        raise TypeError(f"{wrong} is no text")
    return values


_WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"

PROMPT_STYLES: Mapping[str, Prompts] = {
    "plain": Prompts(),
    # LLM2Vec marks the end of an instruction with "!@#$%^&*()", and takes the mark out before it tokenises.
    "llm2vec": Prompts(instructed_query="{instruction} {text}", document="{title} {text}"),
    "e5": Prompts(query="query: {text}", document="passage: {title}\n{text}", untitled_document="passage: {text}"),
    "e5-instruct": Prompts(instructed_query="Instruct: {instruction}\nQuery: {text}", instruction=_WEB_SEARCH),
    "qwen3": Prompts(instructed_query="Instruct: {instruction}\nQuery:{text}", instruction=_WEB_SEARCH),
    "icl": Prompts(
        query="{text}\n<response>",
        instructed_query="<instruct>{instruction}\n<query>{text}\n<response>",
        instruction=_WEB_SEARCH,
        example="<instruct>{instruction}\n<query>{query}\n<response>{answer}\n\n",
    ),
    "embeddinggemma": Prompts(
        query="task: search result | query: {text}",
        instructed_query="task: {instruction} | query: {text}",
        document="title: {title} | text: {text}",
        untitled_document="title: none | text: {text}",
        pooled="all",
        tasks={
            "question-answering": Task("question answering"),
            "fact-checking": Task("fact checking"),
            "code-retrieval": Task("code retrieval"),
            "classification": Task("classification", symmetric=True),
            "clustering": Task("clustering", symmetric=True),
            "sts": Task("sentence similarity", symmetric=True),
        },
    ),
}

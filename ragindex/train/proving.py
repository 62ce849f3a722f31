"""Out of a corpus: what is learnt from, and trials made of what is not (`ragindex.train.trial` judges)."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from ragindex.encoder import Encoder
from ragindex.errors import TrainingError
from ragindex.evaluation import Dataset
from ragindex.train.data.corpus import CorpusStatistics
from ragindex.train.data.documents import split_documents
from ragindex.train.data.pairs import PairOptions, document_pairs
from ragindex.train.data.passages import Material, prepared, told_title
from ragindex.train.trial import Question, Text, Trial
from ragindex.types import Block, Document

__all__ = ["Asked", "Asking", "Corpus", "Split", "parts", "sampled"]

# The kinds of pair whose query is worth asking: their texts can be found by more than the words of the query.
QUESTION_KINDS = (
    "title-section",
    "heading-section",
    "first-sentence",
    "sentence-context",
    "question-answer",
    "docstring-code",
)
_LONGEST = 64  # words of a question
_PART = 6000  # characters
_COUNTED = 5000  # documents that word statistics are counted on
_FOR_CHOICE = 0.35  # of what is held out

Item = TypeVar("Item")


class Asked(NamedTuple):
    """A document that is asked about, and its number in the corpus."""

    number: int
    material: Material


class Asking(NamedTuple):
    """A pseudo-query, the passage that answers it, and the kind of pair that they were."""

    query: str
    answer: Text
    kind: str


@dataclass(frozen=True, slots=True)
class Split:
    """A corpus in three, by document: learnt from, asked about to choose by, asked about to prove with."""

    learnt: Sequence[Material]
    choosing: Sequence[Asked]
    proving: Sequence[Asked]


class Corpus:
    """Documents prepared for pairs and trials. `crowd` holds passages of all of them, which compete in every trial.

    competing: passages of the crowd at most. The encoder says how long a passage may be.
    """

    def __init__(self, documents: Iterable[Document], encoder: Encoder, *, competing: int, seed: int) -> None:
        self._encoder, self._seed = encoder, seed
        self._documents: list[Document] = []
        self._sources: list[str] = []  # the path of the document that each part is of
        for document in documents:
            found = parts(document)
            self._documents += found
            self._sources += [document.path] * len(found)
        if not self._documents:
            raise TrainingError("There are no documents to learn from; give a folder with text in it.")
        options, statistics = PairOptions(), CorpusStatistics(self._documents[:_COUNTED])
        self.materials = [
            prepared(document, statistics=statistics, words=options.words, keep=options.keep)
            for document in self._documents
        ]
        self.crowd = self._crowd(competing)

    def split(self, *, held_out: float) -> Split:
        """Keep about `held_out` of the documents apart. What is in one document, or part of one, stays together."""
        numbers = {document.path: number for number, document in enumerate(self._documents)}
        first = split_documents(self._documents, share=held_out, seed=self._seed)
        second = split_documents(first.held_out, share=1 - _FOR_CHOICE, seed=self._seed + 1)

        def asked(chosen: Iterable[Document]) -> list[Asked]:
            return [Asked(numbers[document.path], self.materials[numbers[document.path]]) for document in chosen]

        learnt = [self.materials[numbers[document.path]] for document in first.train]
        return Split(learnt, asked(second.train), asked(second.held_out))

    def questions(self, asked: Sequence[Asked], *, most: int) -> list[Asking]:
        """At most so many questions about these documents."""
        found = [
            Asking(pair.query, self._fitting(Text(pair.positive, pair.title, 0, item.number)), pair.source)
            for item in asked
            for pair in document_pairs(item.material, seed=self._seed, kinds=QUESTION_KINDS)
            if len(pair.query.split()) <= _LONGEST
        ]
        return sampled(found, most, self._seed)

    def trial(self, questions: Sequence[Asking], *, competing: int | None = None) -> Trial:
        """A trial of pseudo-queries; each passage is a thing to find. competing: fewer of the crowd.

        Raises TrainingError for too few questions.
        """
        texts, asked = list(self.crowd[:competing]), []
        for item in questions:
            unit = len(texts)
            asked.append(Question(item.query, {unit: 1.0}, document=item.answer.document, kind=item.kind))
            texts.append(replace(item.answer, unit=unit))
        return Trial(texts, asked)

    def judged_trial(self, judged: Dataset) -> Trial:
        """A trial of a user's own questions; documents are what is found, each by its best passage.

        Raises TrainingError when the judgements name none of the documents, or too few.
        """
        numbers = {path: number for number, path in enumerate(dict.fromkeys(self._sources))}
        questions = []
        for key, query in judged.queries.items():
            rows = judged.qrels[key].items()
            gains = {numbers[name]: float(gain) for name, gain in rows if gain > 0 and name in numbers}
            if gains:
                questions.append(Question(query, gains, kind="judged"))
        if not questions:
            raise TrainingError(
                f"The judgements of {judged.name} name none of the documents; their ids must be paths as "
                "`ragindex list` shows them."
            )
        return Trial([replace(text, unit=numbers[self._sources[text.document]]) for text in self.crowd], questions)

    def _crowd(self, most: int) -> list[Text]:
        texts = [
            Text(passage.text, told_title(material.title, passage.heading), unit=0, document=number)
            for number, material in enumerate(self.materials)
            for passage in material.passages
        ]
        return [replace(self._fitting(text), unit=unit) for unit, text in enumerate(sampled(texts, most, self._seed))]

    def _fitting(self, text: Text) -> Text:
        """The text, cut where it is longer than the encoder reads: passages are counted in words, not in tokens."""
        room = self._encoder.max_tokens - self._encoder.document_overhead(text.title)
        if len(text.text) <= room:  # no token is shorter than a character
            return text
        spans = self._encoder.tokenizer.offsets(text.text)
        return text if len(spans) <= room else replace(text, text=text.text[: spans[room - 1][1]])


def parts(document: Document) -> list[Document]:
    """A long document as several, cut between blocks, so that a corpus of few long ones can be split as well."""
    if len(document.text) <= 2 * _PART or not document.blocks:
        return [document]
    result: list[Document] = []
    blocks: list[Block] = []
    for block in document.blocks:
        if blocks and block.end - blocks[0].start > _PART:
            result.append(_part(document, blocks, len(result)))
            blocks = []
        blocks.append(block)
    return [*result, _part(document, blocks, len(result))]


def sampled(items: Sequence[Item], most: int, seed: int) -> list[Item]:
    """At most so many of the items, in their order."""
    if len(items) <= most:
        return list(items)
    places = random.Random(seed).sample(range(len(items)), most)  # noqa: S311 - sampling, not secrecy
    return [items[place] for place in sorted(places)]


def _part(document: Document, blocks: Sequence[Block], number: int) -> Document:
    start, end = blocks[0].start, blocks[-1].end
    moved = tuple(replace(block, start=block.start - start, end=block.end - start) for block in blocks)
    return Document(
        path=f"{document.path} ({number + 1})", text=document.text[start:end], title=document.title, blocks=moved
    )

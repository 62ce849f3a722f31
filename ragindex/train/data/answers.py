"""Kinds of pseudo-pairs in which one side explains the other: terms and definitions, questions and answers, names and
docstrings, descriptions and code.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from ragindex.train.data.definitions import Definition, definitions, labels
from ragindex.train.data.examples import Example
from ragindex.train.data.keys import folded
from ragindex.train.data.passages import Material, Passage, told_title
from ragindex.train.data.prose import count_words, is_heading, is_legal, is_prose, plain, shortened
from ragindex.train.data.source_code import Documented, documented, spoken

__all__ = ["definition_term", "docstring_code", "name_docstring", "question_answer", "term_definition"]

_SHORTEST_ANSWER = 5  # words
_QUESTION_WORDS = range(3, 41)
_DESCRIPTION_WORDS = 60
_CHARACTERS = 6  # of code for each word of a passage
_MARK = r"[ \t>]*(?:[-*+]\s+)?(?:\*\*|__)?"
_ASKS = rf"^{_MARK}(?:q|question)\s*\d{{0,3}}\s*[:.]"
_BLANK = re.compile(r"\n\s*\n")
_MARKED = re.compile(
    rf"{_ASKS}(?:\*\*|__)?\s*(?P<question>[^\n]{{8,300}}?)\s*\n+"
    rf"{_MARK}(?:a|answer)\s*\d{{0,3}}\s*[:.](?:\*\*|__)?\s*(?P<answer>\S.*?)(?={_ASKS}|\n\s*\n\s*\n|\n#|\Z)",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)


def term_definition(material: Material) -> Iterator[Example]:
    """A term finds its definition (DefSent+, arXiv 2405.16153, trains sentence vectors on such pairs)."""
    for passage, definition in _definitions(material):
        kept = material.keeps()
        line = told_title(material.title, passage.heading, without=() if kept else (definition.term,))
        text = definition.whole if kept else definition.meaning
        yield Example(definition.term, text, title=line, source="term-definition")


def definition_term(material: Material) -> Iterator[Example]:
    """A definition finds its term."""
    for _, definition in _definitions(material):
        yield Example(definition.meaning, definition.term, source="definition-term")


def question_answer(material: Material) -> Iterator[Example]:
    """A question that is a heading, a paragraph of its own or marked "Q:" finds its answer."""
    found = [] if material.language else [*_headed(material), *_paragraphs(material), *_marked(material)]
    for example in material.random.sample(found, len(found)):
        if is_prose(example.positive, fewest=_SHORTEST_ANSWER) and not is_legal(example.positive):
            yield example


def name_docstring(material: Material) -> Iterator[Example]:
    """The name of a class or function, spelt or spoken, finds its description."""
    for item in _documented(material):
        if not item.path[-1].startswith("__") and len(spoken(item.path[-1:])) > 2:
            name = spoken(item.path) if material.random.random() < 0.5 else ".".join(item.path)
            yield Example(name, shortened(item.description, material.words), source="name-docstring")


def docstring_code(material: Material) -> Iterator[Example]:
    """The first paragraph of a description finds the code."""
    outlined = any(block.heading for block in material.document.blocks)
    for item in _documented(material):
        query = shortened(plain(item.description.split("\n\n")[0]), _DESCRIPTION_WORDS)
        code = _first_lines(item.whole if material.keeps() else item.code, _CHARACTERS * material.words)
        title = " > ".join(item.path) if outlined else ""
        if code.count("\n") >= 1:
            yield Example(query, code, title=title, source="docstring-code")


def _definitions(material: Material) -> list[tuple[Passage, Definition]]:
    if material.language:
        return []
    statistics = material.statistics
    repeated = {label for label, times in Counter(labels(material.document.text)).items() if times > 1}
    found = [
        (passage, definition)
        for passage in material.passages
        for definition in definitions(passage.text)
        if folded(definition.term) not in repeated
        and not statistics.is_label(definition.term)
        and not statistics.is_common(definition.term)
        and any(map(statistics.is_salient, definition.term.split()))
    ]
    return material.random.sample(found, len(found))


def _headed(material: Material) -> Iterator[Example]:
    for section in material.sections:
        question = plain(section.heading[-1])
        if _is_question(question):
            without = () if material.keeps() else (question,)
            line = told_title(material.title, section.heading, without=without)
            yield Example(question, section.text, title=line, source="question-answer")


def _paragraphs(material: Material) -> Iterator[Example]:
    """A paragraph of nothing but a question, or a paragraph's first line in bold that is one, with what follows up to
    the next question.
    """
    for passage in material.passages:
        paragraphs = [piece for each in _BLANK.split(passage.text) for piece in _question_apart(each) if piece.strip()]
        asked = [index for index, each in enumerate(paragraphs) if "?" in each and _is_question(plain(each))]
        for index, stop in pairwise([*asked, len(paragraphs)]):
            answer = "\n\n".join(paragraphs[index + 1 : stop])
            yield from _answered(material, passage, paragraphs[index], answer)


def _question_apart(paragraph: str) -> tuple[str, ...]:
    first, _, rest = paragraph.strip().partition("\n")
    return (first, rest) if "?" in first and is_heading(first) else (paragraph,)


def _marked(material: Material) -> Iterator[Example]:
    for passage in material.passages:
        for match in _MARKED.finditer(passage.text):
            yield from _answered(material, passage, match["question"], match["answer"])


def _answered(material: Material, passage: Passage, question: str, answer: str) -> Iterator[Example]:
    question, answer = plain(question), shortened(answer, material.words)
    if material.keeps():
        answer = f"{question}\n{answer}"
    if count_words(question) in _QUESTION_WORDS:
        line = told_title(material.title, passage.heading)
        yield Example(question, answer, title=line, source="question-answer")


def _is_question(text: str) -> bool:
    one = text.rstrip("\"'”’)*_ ")
    return (
        one.endswith(("?", "？"))
        and one.count("?") < 2
        and not one[0].islower()
        and count_words(one) in _QUESTION_WORDS
    )


def _documented(material: Material) -> list[Documented]:
    found = documented(material.document, material.language) if material.language else []
    return material.random.sample(found, len(found))


def _first_lines(text: str, characters: int) -> str:
    if len(text) <= characters:
        return text
    end = text.rfind("\n", 0, characters)
    return text[: end if end > 0 else characters]

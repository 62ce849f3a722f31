"""Pseudo-pairs in which one side explains the other: definitions, questions, docstrings and code."""

from __future__ import annotations

from pathlib import Path

import pytest
from pairs_kit import CUT, KEPT, by_query, document, made

from ragindex.train.data.definitions import definitions
from ragindex.train.data.keys import folded
from ragindex.types import Document


@pytest.mark.parametrize(
    ("text", "term", "meaning"),
    [
        ("**Stilling well**: a pipe that keeps waves from the float.", "Stilling well", "a pipe that keeps waves"),
        ("- `ttl` - how long a lease may live without renewal", "ttl", "how long a lease may live"),
        ("**Porto.** No kitchen of our own, only a meal card.", "Porto", "No kitchen of our own"),
        ("Datum: the level that heights are counted from.", "Datum", "the level that heights"),
        (
            "Datum: the level that heights are counted from.\nStaff: a board with marks in\ncentimetres on it.",
            "Staff",
            "a board with marks in centimetres on it.",
        ),
        ("A tide gauge is an instrument that records the sea level.", "tide gauge", "an instrument that records"),
        ("Seiches are the standing waves of a closed basin.", "Seiches", "the standing waves"),
        ("Neap tide (or neap) refers to a tide of small range.", "Neap tide", "a tide of small range."),
    ],
)
def test_definitions_are_found(text: str, term: str, meaning: str) -> None:
    found = {definition.term: definition for definition in definitions(text)}
    assert found[term].meaning.startswith(meaning)
    assert folded(term) in folded(found[term].whole)
    assert term not in found[term].meaning


@pytest.mark.parametrize(
    "text",
    [
        "Note: the gauge must be read before noon each day.",
        "It is a good idea to read the gauge each day.",
        "This is the best place in town for a gauge.",
        "There are the usual problems with a gauge there.",
        "The trouble is the price of the new gauge.",
        "Gauges that fail are a nuisance to all of the keepers.",
        "We waited until the last bus: the driver was kind to us all.",
        "Call us at noon and\nask for this: the small gauge with a handle.",
        "Rate: 12 34 56 78 90 12 34 56",
        "    key: value of some code that is no definition",
        "| Term | is: a cell of a table with words |",
    ],
)
def test_what_is_no_definition_is_not_taken_for_one(text: str) -> None:
    assert list(definitions(text)) == []


def test_terms_and_definitions_find_each_other_but_speakers_and_fields_do_not(tmp_path: Path) -> None:
    glossary = (
        "# Words of the sea\n\nDatum: the level from which all heights at the pier are counted.\n"
        "Fetch: the distance over which wind has blown across open water.\n\n"
        "Ada: I would rather wait for the tide to turn again.\n\nAda: Then we all have to wait for a while.\n"
    )
    field = "Keeper: somebody who looked after the light at night.\n"
    documents = [document(tmp_path, "words.md", glossary)]
    documents += [document(tmp_path, f"{n}.md", f"# Light {n}\n\n{field}\nMore about {n}.\n") for n in "abc"]
    forward, backward = made(documents, "term-definition"), made(documents, "definition-term")
    assert {example.query for example in forward} == {"Datum", "Fetch"}
    assert {(example.positive, example.query) for example in backward} == {
        (example.query, example.positive) for example in forward
    }
    assert all(example.query not in example.positive for example in forward)
    assert by_query(made(documents, "term-definition", options=KEPT))["Fetch"].positive.startswith("Fetch: the dist")


ASKED = "How often is the staff levelled?"
ANSWER = "Every spring, from the benchmark beside the old customs house."


@pytest.mark.parametrize(
    "text",
    [
        f"# Gauges\n\n## {ASKED}\n\n{ANSWER}\n",
        f"Words before.\n\n**{ASKED}**\n{ANSWER}\n\n**Who does it, please?**\nThe surveyor and two assistants.\n",
        f"{ASKED}\n\n{ANSWER}\n",
        f"Q: {ASKED}\nA: {ANSWER}\n\nQ: Who does it?\nA: The surveyor of the port with two assistants.\n",
        f"question: {ASKED}\nanswer: {ANSWER}\n",
    ],
)
def test_questions_find_their_answers(tmp_path: Path, text: str) -> None:
    for options in (CUT, KEPT):
        found = by_query(made([document(tmp_path, "faq.md", text)], "question-answer", options=options))[ASKED]
        assert found.positive.endswith(ANSWER)
        assert (ASKED in f"{found.title}{found.positive}") == (options is KEPT)


def test_talk_and_rhetoric_are_no_questions(tmp_path: Path) -> None:
    talk = (
        "Ada: Did you read the gauge?\nBen: Yes, and the staff too, both of them twice.\n\n"
        "The sea rose. Why did it rise? Because of the storm that had passed far in the west.\n\n"
        "and what about the next year?\n\nThe gauge was taken away in the next year by the board.\n"
    )
    assert made([document(tmp_path, "talk.md", talk)], "question-answer") == []


PYTHON = '''\
"""Module text that belongs to no definition at all."""
import re

@cached
def read_gauge(port, *, retries=3):
    """Read the water level in millimetres.

    Tries again when the line is busy.

    Args:
        port: the serial port
    """
    level = port.ask("L")
    return int(level)

class StaffReader:
    """Compares the gauge with a graduated staff."""

    def __init__(self, gauge):
        """Remember the gauge for later."""
        self.gauge = gauge

    def compareAll(self, marks):
        """Return the differences at these marks."""
        return [self.gauge.at(mark) - mark for mark in marks]

def undocumented(): pass
'''


def test_docstrings_find_code_and_names_find_docstrings(tmp_path: Path) -> None:
    source = document(tmp_path, "gauge.py", PYTHON)
    code = by_query(made([source], "docstring-code"))
    assert set(code) == {
        "Read the water level in millimetres.",
        "Compares the gauge with a graduated staff.",
        "Remember the gauge for later.",
        "Return the differences at these marks.",
    }
    read = code["Read the water level in millimetres."]
    assert read.positive.startswith("@cached\ndef read_gauge(port, *, retries=3):\n    level = port.ask")
    assert read.title == "read_gauge"
    assert code["Return the differences at these marks."].title == "StaffReader > compareAll"
    crops = made([document(tmp_path, "b.py", PYTHON.replace("read_gauge", "_read_gauge"))], "words-passage")
    assert all("_read_gauge" in example.title for example in crops if "def _read_gauge" in example.positive)
    assert "differences" not in code["Return the differences at these marks."].positive
    kept = by_query(made([source], "docstring-code", options=KEPT))["Read the water level in millimetres."]
    assert '"""Read the water level in millimetres.' in kept.positive

    names = [made([source], "name-docstring", seed=seed) for seed in range(10)]
    queries = {example.query for examples in names for example in examples}
    assert queries == {
        *("read_gauge", "read gauge", "StaffReader", "staff reader"),
        *("StaffReader.compareAll", "staff reader compare all"),
    }
    read = next(example for example in names[0] if "gauge" in example.query.split() or example.query == "read_gauge")
    assert read.positive == "Read the water level in millimetres.\n\nTries again when the line is busy."


@pytest.mark.parametrize(
    ("name", "text", "query", "start"),
    [
        ("a.ts", "/**\n * Waits before the next try.\n * @param n tries\n */\nexport function wait(n) {\n  x();\n}\n",
         "Waits before the next try.", "export function wait(n) {"),
        ("a.go", "// Release stops renewing the lease.\nfunc (h *Beat) Release(id string) {\n\th.stop(id)\n}\n",
         "Release stops renewing the lease.", "func (h *Beat) Release"),
        ("a.rs", "/// Adds two marks of the staff.\npub fn add(a: i32) -> i32 {\n    a + 1\n}\n",
         "Adds two marks of the staff.", "pub fn add"),
        ("old.py", "# Prints all marks of the staff.\ndef show(marks):\n    print marks\n    return 1\n",
         "Prints all marks of the staff.", "def show(marks):"),
        ("17", 'def sum_up(a, b):\n    """Add two marks of the staff."""\n    return a + b\n    # end\n',
         "Add two marks of the staff.", "def sum_up(a, b):\n    return"),
    ],
)  # fmt: skip
def test_comments_of_other_languages_describe_their_definitions(
    tmp_path: Path, name: str, text: str, query: str, start: str
) -> None:
    source = document(tmp_path, name, text) if "." in name else Document(name, text)
    found = by_query(made([source], "docstring-code"))
    assert set(found) == {query}
    assert found[query].positive.startswith(start)
    assert {example.positive for example in made([source], "name-docstring")} == {query}


def test_program_text_makes_no_pairs_of_prose(tmp_path: Path) -> None:
    licence = "# Copyright (c) 2020 Somebody. All rights reserved by the owner.\n"
    source = document(tmp_path, "gauge.py", licence + PYTHON)
    kinds = {example.source for example in made([source])}
    assert kinds == {"docstring-code", "name-docstring", "words-passage", "crop-crop"}
    words = [example for seed in range(9) for example in made([source], "words-passage", seed=seed)]
    assert all(example.positive in source.text for example in words)  # code with words taken out is not code

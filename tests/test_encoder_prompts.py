"""Prompt templates: where the text stands, what the instruction does, and their form on disk."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragindex.encoder import PROMPT_STYLES, Prompts
from ragindex.errors import EncoderError

TRICKY = ["", "plain", "{text}", "{title}", "{instruction}", "{", "}", "{}", "{0}", "%s", "\\n", "a\nb", "é東"]


@pytest.mark.parametrize("name", ["query", "instructed_query", "document", "untitled_document"])
@pytest.mark.parametrize("template", ["", "no text", "{text} after", "{text}\n", "{Text}", "text"])
def test_a_template_ends_in_the_text(name: str, template: str) -> None:
    with pytest.raises(EncoderError, match=rf"'{name}' is .* it must end in \{{text\}}\."):
        Prompts(**{name: template})
    with pytest.raises(EncoderError, match=r"must end in \{text\}"):
        Prompts.from_json({name: template})


def test_the_default_instruction_is_no_template() -> None:
    assert Prompts(instruction="find passages").instruction == "find passages"


@pytest.mark.parametrize("prompts", PROMPT_STYLES.values(), ids=PROMPT_STYLES)
def test_text_title_and_instruction_are_taken_literally(prompts: Prompts) -> None:
    for text, other in itertools.product(TRICKY, TRICKY):
        check_literal(prompts, text, other)


def check_literal(prompts: Prompts, text: str, other: str) -> None:
    query = prompts.for_query(text, other)
    assert query.text.endswith(text)
    if other:
        assert query.text[query.pooled_from :] == text
        assert query.text.count(other) >= 1
    else:
        assert query.pooled_from == 0
    document = prompts.for_document(text, other)
    assert document.text == prompts.document_prefix(other) + text
    assert other in document.text
    assert document.pooled_from == 0


def test_styles_read_as_their_models_were_trained() -> None:
    plain, llm2vec = PROMPT_STYLES["plain"], PROMPT_STYLES["llm2vec"]
    e5, gemma = PROMPT_STYLES["e5-instruct"], PROMPT_STYLES["embeddinggemma"]
    assert plain.for_query("key").text == "key"
    assert plain.for_query("key", "Find").text == "Find key"
    assert plain.for_document("body", "Keys").text == "Keys\nbody"
    assert plain.for_document("body").text == "body"
    assert llm2vec.for_query("key", "Find").text == "Find key"
    assert llm2vec.for_document("body").text == "body"
    assert e5.for_query("key").text == f"Instruct: {e5.instruction}\nQuery: key"
    assert e5.for_query("key", "").text == "key"
    assert e5.for_document("body").text == "body"
    assert gemma.for_query("key").text == "task: search result | query: key"
    assert gemma.for_document("body", "Keys").text == "title: Keys | text: body"
    assert gemma.for_document("body").text == "title: none | text: body"


def test_none_takes_the_default_instruction_and_an_empty_one_takes_none() -> None:
    prompts = Prompts(instruction="Find")
    assert prompts.for_query("key") == prompts.for_query("key", "Find")
    assert prompts.for_query("key", "").text == "key"
    assert Prompts().for_query("key") == Prompts().for_query("key", "")


@given(*[st.text(max_size=20)] * 5)
def test_json_round_trip(query: str, instructed: str, instruction: str, document: str, untitled: str) -> None:
    prompts = Prompts(
        query=query + "{text}",
        instructed_query=instructed + "{text}",
        instruction=instruction,
        document=document + "{text}",
        untitled_document=untitled + "{text}",
    )
    assert Prompts.from_json(json.loads(json.dumps(prompts.as_json()))) == prompts


def test_json_may_leave_templates_out_but_not_invent_any() -> None:
    assert Prompts.from_json({}) == Prompts()
    assert Prompts.from_json({"instruction": "Find"}) == Prompts(instruction="Find")
    with pytest.raises(EncoderError, match="Unknown prompt template 'passage'; known are document, instructed_query"):
        Prompts.from_json({"query": "{text}", "passage": "{text}"})

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


@pytest.mark.parametrize("name", ["document", "untitled_document"])
@pytest.mark.parametrize("template", ["", "no text", "{text} after", "{text}\n", "{Text}", "text"])
def test_a_document_ends_in_the_text(name: str, template: str) -> None:
    for make in (lambda table: Prompts(**table), Prompts.from_json):
        with pytest.raises(EncoderError, match=rf"'{name}' is .* it must end in \{{text\}}\."):
            make({name: template})


@pytest.mark.parametrize(
    ("table", "lack"),
    [
        ({"query": "no text"}, "text"),
        ({"query": "{text} {text}"}, "text"),
        ({"wrapper": "<user>"}, "text"),
        ({"instructed_query": "{instruction}"}, "text"),
        ({"instructed_query": "{text}"}, "instruction"),
        ({"example": "{instruction} {query}"}, "answer"),
        ({"example": "{instruction} {answer}"}, "query"),
    ],
    ids=str,
)
def test_a_template_has_a_place_for_everything_once(table: dict[str, str], lack: str) -> None:
    for make in (lambda table: Prompts(**table), Prompts.from_json):
        with pytest.raises(EncoderError, match=rf"'{next(iter(table))}' is .* must contain \{{{lack}\}} once\."):
            make(table)


def test_an_instruction_after_the_text_could_not_be_left_out() -> None:
    with pytest.raises(EncoderError, match=r"\{instruction\} must come before \{text\}"):
        Prompts(instructed_query="{text} {instruction}")


def test_an_unknown_way_of_pooling_is_refused() -> None:
    with pytest.raises(EncoderError, match="Unknown way of pooling prompts 'some'; choose one of from-text, text, all"):
        Prompts(pooled="some")  # type: ignore[arg-type]


def test_the_default_instruction_is_no_template() -> None:
    assert Prompts(instruction="find passages").instruction == "find passages"


@pytest.mark.parametrize("prompts", PROMPT_STYLES.values(), ids=PROMPT_STYLES)
def test_text_title_and_instruction_are_taken_literally(prompts: Prompts) -> None:
    for text, other in itertools.product(TRICKY, TRICKY):
        check_literal(prompts, text, other)


def check_literal(prompts: Prompts, text: str, other: str) -> None:
    query = prompts.for_query(text, other)
    after = (prompts.instructed_query if other else prompts.query).partition("{text}")[2]
    assert query.text.endswith(text + after)
    if not other or prompts.pooled == "all":
        assert query.pooled_from == 0
    else:
        assert query.text[query.pooled_from :] == text + after
    assert other in query.text
    document = prompts.for_document(text, other)
    assert document.text == prompts.document_prefix(other) + text
    assert other in document.text
    assert document.pooled_from == 0


def test_styles_read_as_their_models_were_trained() -> None:
    plain, llm2vec = PROMPT_STYLES["plain"], PROMPT_STYLES["llm2vec"]
    e5, gemma = PROMPT_STYLES["e5-instruct"], PROMPT_STYLES["embeddinggemma"]
    qwen, icl, old = PROMPT_STYLES["qwen3"], PROMPT_STYLES["icl"], PROMPT_STYLES["e5"]
    assert plain.for_query("key").text == "key"
    assert plain.for_query("key", "Find").text == "Find key"
    assert plain.for_document("body", "Keys").text == "Keys\nbody"
    assert plain.for_document("body").text == "body"
    assert llm2vec.for_query("key", "Find").text == "Find key"
    assert llm2vec.for_document("body").text == "body"
    assert e5.for_query("key").text == f"Instruct: {e5.instruction}\nQuery: key"
    assert e5.for_query("key", "").text == "key"
    assert e5.for_document("body").text == "body"
    assert qwen.for_query("key").text == f"Instruct: {qwen.instruction}\nQuery:key"
    assert icl.for_query("key", "Find").text == "<instruct>Find\n<query>key\n<response>"
    assert old.for_query("key").text == "query: key"
    assert old.for_document("body").text == "passage: body"
    assert gemma.for_query("key").text == "task: search result | query: key"
    assert gemma.for_document("body", "Keys").text == "title: Keys | text: body"
    assert gemma.for_document("body").text == "title: none | text: body"
    assert gemma.for_query("key", task="sts").text == "task: sentence similarity | query: key"
    assert gemma.for_document("body", task="sts").text == "task: sentence similarity | query: body"


def test_none_takes_the_default_instruction_and_an_empty_one_takes_none() -> None:
    prompts = Prompts(instruction="Find")
    assert prompts.for_query("key") == prompts.for_query("key", "Find")
    assert prompts.for_query("key", "").text == "key"
    assert Prompts().for_query("key") == Prompts().for_query("key", "")


@given(*[st.text(max_size=20)] * 5)
def test_json_round_trip(query: str, instructed: str, instruction: str, document: str, untitled: str) -> None:
    prompts = Prompts(
        query=query + "{text}",
        instructed_query="{instruction}" + instructed + "{text}",
        instruction=instruction,
        document=document + "{text}",
        untitled_document=untitled + "{text}",
    )
    assert Prompts.from_json(json.loads(json.dumps(prompts.as_json()))) == prompts


def test_json_may_leave_templates_out_but_not_invent_any() -> None:
    assert Prompts.from_json({}) == Prompts()
    assert Prompts.from_json({"instruction": "Find"}) == Prompts(instruction="Find")
    with pytest.raises(EncoderError, match="Unknown prompt template 'passage'; known are document, example, examples"):
        Prompts.from_json({"query": "{text}", "passage": "{text}"})

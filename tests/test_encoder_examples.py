"""What stands around a text besides an instruction: examples, tasks by name, the wrapper of a chat model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import SENTENCES, tiny_encoder, tiny_tokenizer
from tokenizers import Tokenizer
from transformers import AutoModel

from ragindex.encoder import PROMPT_STYLES, Encoder, Example, Prompts, Task, torch_forward
from ragindex.encoder.llm2vec import llm2vec_prompts
from ragindex.encoder.prompts import Prompted
from ragindex.errors import EncoderError, UsageError

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # from peft, in helpers

SHOWN = (Example("how hot?", "one hundred degrees"), Example("which key?", "the signing key", "Find keys"))
ICL = replace(PROMPT_STYLES["icl"], instruction="Find", examples=SHOWN)
CHAT = Prompts(wrapper="<user>{text}<end>")
TASKED = Prompts(
    query="query: {text}",
    instruction="Find passages",
    tasks={
        "sts": Task("Find the same", symmetric=True, examples=(Example("a", "b"),)),
        "code": Task("Find code"),
        "plain": Task(query="ask {text} now"),
    },
)


def pooled_text(item: Prompted) -> str:
    return item.text[item.pooled_from : item.pooled_to]


# Examples


def test_examples_stand_before_the_query_and_are_not_pooled() -> None:
    shown = "<instruct>Find\n<query>how hot?\n<response>one hundred degrees\n\n"
    shown += "<instruct>Find keys\n<query>which key?\n<response>the signing key\n\n"
    query = ICL.for_query("rotate")
    assert query.text == shown + "<instruct>Find\n<query>rotate\n<response>"
    assert pooled_text(query) == "rotate\n<response>"
    assert pooled_text(replace(ICL, pooled="text").for_query("rotate")) == "rotate"
    assert ICL.for_document("rotate").text == "rotate"
    pooled_prefix = Prompts(query="query: {text}", example="{query} {answer} ", examples=SHOWN[:1])
    assert pooled_text(pooled_prefix.for_query("rotate")) == "query: rotate"


def test_examples_of_a_call_replace_the_stored_ones_which_belong_to_the_stored_instruction() -> None:
    one = Example("q", "a")
    assert ICL.for_query("x", examples=[one]).text.startswith("<instruct>Find\n<query>q\n<response>a\n\n")
    assert ICL.for_query("x", examples=[]).text == "<instruct>Find\n<query>x\n<response>"
    assert ICL.for_query("x", "Seek").text == "<instruct>Seek\n<query>x\n<response>"
    assert ICL.for_query("x", "Find") == ICL.for_query("x")
    assert ICL.for_query("x", "").text == "x\n<response>"
    assert ICL.for_query("x", "Seek", examples=[one]).text.startswith("<instruct>Seek\n<query>q")


def test_examples_are_taken_literally() -> None:
    tricky = Example("{answer} {instruction}", "{query} {text}")
    query = ICL.for_query("{query}", "{answer}", examples=[tricky])
    assert query.text.startswith("<instruct>{answer}\n<query>{answer} {instruction}\n<response>{query} {text}\n\n")
    assert pooled_text(query) == "{query}\n<response>"


def test_an_example_without_any_instruction_is_refused() -> None:
    with pytest.raises(UsageError, match="shown with the instruction that they follow; give one"):
        Prompts().for_query("x", examples=[SHOWN[0]])
    assert Prompts().for_query("x", examples=[SHOWN[1]]).text.startswith("Instruct: Find keys\n")
    for stored in ({"examples": SHOWN}, {"tasks": {"sts": Task(examples=SHOWN)}}):
        with pytest.raises(EncoderError, match="The stored example 'how hot\\?' has no instruction to be shown with"):
            Prompts(**stored)  # type: ignore[arg-type]


def test_examples_change_the_vector_as_the_model_reads_them(tmp_path: Path) -> None:
    stored = Encoder.load(tiny_encoder(tmp_path / "shown", prompts=ICL))
    bare = Encoder.load(tiny_encoder(tmp_path / "bare", prompts=replace(ICL, examples=())))
    texts = ["rotate the key", "", "kettle"]
    np.testing.assert_array_equal(stored.encode_queries(texts), bare.encode_queries(texts, examples=SHOWN))
    np.testing.assert_array_equal(stored.encode_queries(texts, examples=()), bare.encode_queries(texts))
    assert not np.allclose(stored.encode_queries(texts), bare.encode_queries(texts), atol=1e-3)
    np.testing.assert_array_equal(stored.encode_documents(texts), bare.encode_documents(texts))
    assert stored.fingerprint != bare.fingerprint


def test_where_no_token_reads_another_what_is_not_pooled_does_not_matter(tmp_path: Path) -> None:
    static = Encoder.load(tiny_encoder(tmp_path / "e", mixing=0.0, prompts=replace(ICL, pooled="text"), specials=False))
    for text in ("rotate the key", "kettle", "É東"):
        np.testing.assert_allclose(static.encode_queries([text]), static.encode_documents([text]), atol=1e-6)


def test_examples_count_against_the_limit(tmp_path: Path) -> None:
    encoder = Encoder.load(tiny_encoder(tmp_path / "e", prompts=ICL, max_tokens=150))
    room = 150 - encoder.tokenizer.count(ICL.for_query("").text) - encoder.tokenizer.specials
    assert 0 < room < 75
    encoder.encode_queries(["key " * room])
    with pytest.raises(EncoderError, match=r"A text of 151 tokens, \d+ of them its prompt, .* give fewer examples"):
        encoder.encode_queries(["key " * (room + 1)])
    encoder.encode_queries(["key " * (room + 1)], examples=())


# Tasks


def test_a_task_brings_its_instruction_its_examples_and_its_template() -> None:
    assert TASKED.for_query("x", task="code").text == "Find code x"
    assert TASKED.for_query("x", task="sts").text == "Instruct: Find the same\nQuery: a\nAnswer: b\n\nFind the same x"
    assert TASKED.for_query("x", task="plain") == Prompted("ask x now")
    assert TASKED.for_query("x").text == "Find passages x"
    assert TASKED.for_query("x", task="code", examples=SHOWN[1:]).text.endswith("the signing key\n\nFind code x")


def test_a_symmetric_task_prompts_both_sides_alike(tmp_path: Path) -> None:
    assert TASKED.for_document("x", task="sts") == TASKED.for_query("x", task="sts")
    assert TASKED.for_document("x", "T", task="code") == TASKED.for_document("x", "T")
    with pytest.raises(UsageError, match="In the task 'sts' both sides are prompted alike, so a text has no title"):
        TASKED.for_document("x", "T", task="sts")
    encoder = Encoder.load(tiny_encoder(tmp_path / "e", prompts=TASKED))
    texts = ["rotate the key", "kettle"]
    same = encoder.encode_queries(texts, task="sts")
    np.testing.assert_array_equal(encoder.encode_documents(texts, task="sts"), same)
    np.testing.assert_array_equal(encoder.encode_documents(texts, task="code"), encoder.encode_documents(texts))
    assert not np.allclose(same, encoder.encode_queries(texts, task="code"), atol=1e-3)


def test_an_unknown_task_is_refused_with_those_there_are(tiny_encoder_dir: Path) -> None:
    with pytest.raises(UsageError, match=r"no task 'retrieval': it knows code, plain, sts\."):
        TASKED.for_query("x", task="retrieval")
    with pytest.raises(UsageError, match="no task 'sts': it stores none; give an instruction"):
        Encoder.load(tiny_encoder_dir).encode_documents(["x"], task="sts")
    with pytest.raises(UsageError, match="A task brings its own instruction; give one of the two"):
        TASKED.for_query("x", "Find", task="code")
    with pytest.raises(EncoderError, match=r"'query' is 'ask'; it must contain \{text\} once"):
        Task(query="ask")


# On disk


@pytest.mark.parametrize("prompts", [ICL, TASKED, CHAT, replace(CHAT, pooled="text"), *PROMPT_STYLES.values()])
def test_everything_is_stored_readably(prompts: Prompts) -> None:
    assert Prompts.from_json(json.loads(json.dumps(prompts.as_json()))) == prompts


def test_a_task_may_be_stored_as_its_instruction_alone() -> None:
    assert Prompts.from_json({"tasks": {"code": "Find code"}}).tasks == {"code": Task("Find code")}


@pytest.mark.parametrize(
    "table",
    [
        {"tasks": {"code": {"instruct": "Find"}}},
        {"tasks": {"code": 3}},
        {"tasks": ["code"]},
        {"examples": ["how hot?"]},
        {"examples": [{"query": "how hot?"}]},
        {"examples": [{"query": "how hot?", "answer": 100}]},
        {"tasks": {"code": {"instruction": ["Find"]}}},
    ],
    ids=str,
)
def test_malformed_tasks_and_examples_are_one_clear_sentence(table: dict[str, object]) -> None:
    with pytest.raises(EncoderError, match="The stored tasks or examples of the prompts are malformed: "):
        Prompts.from_json(table)


def test_what_says_nothing_is_not_stored_so_old_encoders_stay_what_they_were() -> None:
    names = ["query", "instructed_query", "instruction", "document", "untitled_document"]
    assert list(Prompts().as_json()) == names
    assert Prompts.from_json(dict.fromkeys(names[:1], "q: {text}")) == Prompts(query="q: {text}")


def test_the_fingerprint_covers_all_of_it(tmp_path: Path) -> None:
    changes: list[dict[str, object]] = [
        {},
        {"wrapper": "<user>{text}"},
        {"pooled": "text"},
        {"example": "{query} {answer}\n"},
        {"instruction": "Find"},
        {"instruction": "Find", "examples": SHOWN},
        {"tasks": {"code": Task("Find code")}},
        {"tasks": {"code": Task("Find code", symmetric=True)}},
        {"tasks": {"code": Task("Find code", query="{instruction}: {text}")}},
        {"tasks": {"code": Task("Find code", examples=SHOWN)}},
    ]
    directory = tiny_encoder(tmp_path / "e")
    found = [Encoder.load(directory, prompts=Prompts(**change)).fingerprint for change in changes]  # type: ignore[arg-type]
    assert len(set(found)) == len(changes)
    assert found[0] == Encoder.load(directory).fingerprint
    encoder = Encoder.load(directory, prompts=ICL)
    encoder.save(tmp_path / "saved")
    assert Encoder.load(tmp_path / "saved").fingerprint == encoder.fingerprint
    assert Encoder.load(tmp_path / "saved").config.prompts == ICL


# The wrapper


@pytest.mark.parametrize("text", ["rotate", "", " two before, two after  ", "<end>", "{text}"])
def test_a_wrapper_stands_around_every_prompt(text: str) -> None:
    told = replace(CHAT, instruction="Find")
    kept = text.rstrip()  # a message is stripped before it is closed
    assert told.for_query(text).text == f"<user>Find {kept}<end>"
    assert pooled_text(told.for_query(text)) == f"{kept}<end>"
    assert CHAT.for_document(text, "Keys").text == f"<user>Keys\n{kept}<end>"
    assert pooled_text(CHAT.for_document(text, "Keys")) == f"Keys\n{kept}<end>"
    assert pooled_text(replace(told, pooled="text").for_query(text)) == kept
    assert replace(told, pooled="all").for_query(text) == Prompted(f"<user>Find {kept}<end>")
    assert CHAT.document_prefix("Keys") + kept + CHAT.document_suffix == CHAT.for_document(text, "Keys").text


def reference_pooled(tokenizer: Tokenizer, before: str, text: str, after: str) -> list[int]:
    """Which tokens LLM2Vec 0.2.3 pools: as many from the end as text and closing have by themselves."""
    whole = tokenizer.encode(before + text + after).ids
    own = len(tokenizer.encode(text + after, add_special_tokens=False).ids)
    return list(range(len(whole) - own, len(whole)))


@pytest.mark.parametrize("instruction", ["", "Retrieve relevant passages"])
@pytest.mark.parametrize("wrapper", ["[INST] {text} [/INST]", "<|user|>\n\n{text}<|eot|>"])
def test_the_same_tokens_are_pooled_as_by_the_reference(tmp_path: Path, wrapper: str, instruction: str) -> None:
    prompts = replace(PROMPT_STYLES["llm2vec"], wrapper=wrapper)
    encoder = Encoder.load(tiny_encoder(tmp_path / "e", tokenizer="bpe", specials=False, prompts=prompts))
    begin, _, end = wrapper.partition("{text}")
    plain = tiny_tokenizer("bpe", specials=False)
    compared = 0
    for text in (*SENTENCES, *" ".join(SENTENCES).split(), "café – 東京"):
        (found,) = encoder.tokenizer.tokenize([prompts.for_query(text, instruction)])
        before = f"{begin}{instruction} " if instruction else begin
        assert found.ids.tolist() == plain.encode(before + text + end).ids
        # By itself a text may have other tokens than after a space: there the reference counts wrong.
        if len(plain.encode(text).ids) == len(plain.encode(" " + text).ids) or not before.endswith(" "):
            assert np.flatnonzero(found.pooled).tolist() == reference_pooled(plain, before, text, end)
            compared += 1
    assert compared >= 10


def test_a_token_that_straddles_the_end_belongs_to_the_text(tmp_path: Path) -> None:
    prompts = Prompts(wrapper="{text}ing", pooled="text")
    encoder = Encoder.load(tiny_encoder(tmp_path / "e", tokenizer="bpe", specials=False, prompts=prompts))
    plain = tiny_tokenizer("bpe", specials=False)

    def pieces(text: str) -> list[str]:
        (found,) = encoder.tokenizer.tokenize([prompts.for_document(text)])
        return [plain.id_to_token(int(token)) for token in found.ids[found.pooled]]

    assert plain.encode("keying").tokens == ["k", "e", "y", "in", "g"]
    assert pieces("key") == ["k", "e", "y"]
    assert plain.encode("signing").tokens == ["s", "ig", "nin", "g"]
    assert pieces("sign") == ["s", "ig", "nin"]
    assert pieces("") == ["in", "g"]  # an empty text: whatever there is


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_the_overhead_of_a_document_counts_the_wrapper(tmp_path: Path, kind: str) -> None:
    directory = tiny_encoder(tmp_path / "e", prompts=CHAT, tokenizer=kind)  # type: ignore[arg-type]
    encoder = Encoder.load(directory)
    for title in ("", "Keys > Rotation"):
        for text in (*SENTENCES, "", "<en", "key"):
            (whole,) = encoder.tokenizer.tokenize([CHAT.for_document(text, title)])
            assert len(whole.ids) <= encoder.document_overhead(title) + encoder.tokenizer.count(text)


# Templates of published adapters


@pytest.mark.parametrize(
    ("name", "wrapper"),
    [
        (
            "meta-llama/Meta-Llama-3-8B-Instruct",
            "<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>",
        ),
        ("mistralai/Mistral-7B-Instruct-v0.2", "[INST] {text} [/INST]"),
        ("/models/Mistral-7B-Instruct-v0.2/", "[INST] {text} [/INST]"),
        ("google/gemma-2-9b-it", "<bos><start_of_turn>user\n{text}<end_of_turn>"),
        ("Qwen/Qwen2-1.5B-Instruct", "<|im_start|>user\n{text}<|im_end|>"),
        ("princeton-nlp/Sheared-LLaMA-1.3B", "{text}"),
        ("", "{text}"),
    ],
)
def test_the_template_follows_from_the_base_model(name: str, wrapper: str) -> None:
    assert llm2vec_prompts([name], model_type="llama").wrapper == wrapper
    assert llm2vec_prompts(["mine", name], model_type="llama").wrapper == wrapper


def test_pooling_of_the_end_token_needs_one() -> None:
    def wrapper(name: str, kind: str) -> str:
        return llm2vec_prompts([name], model_type=kind, pooling_mode="eos_token").wrapper

    assert wrapper("mistralai/Mistral-7B-Instruct-v0.2", "mistral") == "[INST] {text} [/INST] </s>"
    assert wrapper("meta-llama/Meta-Llama-3-8B-Instruct", "llama").endswith("{text}<|eot_id|>")
    assert wrapper("meta-llama/Meta-Llama-3-8B", "llama") == "{text}<|end_of_text|>"
    assert wrapper("mine", "llama") == "{text} </s>"
    assert wrapper("mine", "qwen2") == "{text}<|endoftext|>"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter of a model that goes by the name of one with a chat template."""
    base = tiny_encoder(tmp_path / "Meta-Llama-3-8B-Instruct", head=False, attention="causal", specials=False)
    for name in ("ragindex.json", "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (base / name).unlink()
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(
        AutoModel.from_pretrained(base, dtype=torch.float32),
        peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False),
    )
    directory = tmp_path / "adapter"
    wrapped.save_pretrained(str(directory))
    file = directory / "adapter_config.json"
    table = {**json.loads(file.read_text(encoding="utf-8")), "base_model_name_or_path": str(base)}
    file.write_text(json.dumps(table), encoding="utf-8")
    return directory


def test_the_template_is_stored_when_an_adapter_is_loaded(adapter: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(adapter, device="cpu")
    assert encoder.config.prompts.for_query("key").text.endswith("key<|eot_id|>")
    assert Encoder.load(tmp_path / "Meta-Llama-3-8B-Instruct", adapters=[adapter]).config == encoder.config
    encoder.save(tmp_path / "elsewhere")
    shutil.rmtree(adapter)
    shutil.rmtree(tmp_path / "Meta-Llama-3-8B-Instruct")
    again = Encoder.load(tmp_path / "elsewhere", device="cpu")
    assert again.config.prompts == encoder.config.prompts


def test_a_plain_decoder_gets_no_template(adapter: Path, tmp_path: Path) -> None:
    assert Encoder.load(tmp_path / "Meta-Llama-3-8B-Instruct").config.prompts == Prompts()


def test_settings_beside_an_adapter_are_followed(adapter: Path) -> None:
    file = adapter / "llm2vec_config.json"
    file.write_text(json.dumps({"pooling_mode": "eos_token", "max_length": 99}), encoding="utf-8")
    config = Encoder.load(adapter).config
    assert (config.pooling, config.max_tokens, config.pool_special) == ("last", 99, False)
    file.write_text(json.dumps({"pooling_mode": "mean", "skip_instruction": False}), encoding="utf-8")
    config = Encoder.load(adapter).config
    assert (config.prompts.pooled, config.pool_special) == ("all", True)


# As a sentence-transformers model


def theirs(directory: Path) -> SentenceTransformer:
    return SentenceTransformer(str(directory), device="cpu", local_files_only=True)


def test_tasks_are_named_prompts_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_forward, "choose_dtype", lambda device: torch.float32)
    prompts = replace(TASKED, instruction="", tasks={**TASKED.tasks, "asked": Task(query="ask: {text}")})
    encoder = Encoder.load(tiny_encoder(tmp_path / "e", prompts=prompts), device="cpu")
    model = theirs(tmp_path / "e")
    assert model.prompts["asked"] == "ask: "
    assert "code" not in model.prompts  # its instruction is not pooled, which is the whole model's setting there
    assert "plain" not in model.prompts  # text after the text
    texts = list(SENTENCES)
    np.testing.assert_allclose(
        encoder.encode_queries(texts, task="asked"), model.encode(texts, prompt_name="asked"), atol=1e-5
    )
    after = Encoder.load(tmp_path / "e", prompts=replace(prompts, pooled="all"))
    after.save(tmp_path / "all")
    assert theirs(tmp_path / "all").prompts["code"] == "Find code "


def test_a_symmetric_task_of_theirs_is_one_here(tmp_path: Path) -> None:
    named = {"Clustering": "task: clustering | query: ", "Fact": "task: fact | query: ", "Retrieval-document": "d: "}
    directory = tiny_encoder(tmp_path / "e", prompts=PROMPT_STYLES["embeddinggemma"])
    (directory / "ragindex.json").unlink()
    file = directory / "config_sentence_transformers.json"
    table = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**table, "prompts": {**table["prompts"], **named}}), encoding="utf-8")
    prompts = Encoder.load(directory).config.prompts
    assert prompts.for_document("x", task="Clustering") == Prompted("task: clustering | query: x")
    assert prompts.for_document("x", task="Fact") == prompts.for_document("x")
    assert prompts.for_query("x", task="Fact").text == "task: fact | query: x"
    assert "Retrieval-document" not in prompts.tasks
    assert prompts.pooled == "all"  # as the model pools all of them


@pytest.mark.parametrize("prompts", [CHAT, replace(ICL, examples=()), ICL], ids=["wrapper", "after", "examples"])
def test_prompts_that_the_form_cannot_say_are_refused_there(tmp_path: Path, prompts: Prompts) -> None:
    directory = tiny_encoder(tmp_path / "e", prompts=prompts, specials=False, head=False)
    with pytest.raises((ValueError, ImportError, OSError)):
        theirs(directory)
    assert Encoder.load(directory).encode_queries(["key"]).shape == (1, 32)

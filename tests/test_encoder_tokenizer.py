"""The encoder's own tokenizer: which tokens are pooled, where they lie, and what a document's prompt costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny import SENTENCES, tiny_encoder
from tokenizers import Tokenizer

from ragindex.encoder import PROMPT_STYLES, Encoder, find_checkpoint
from ragindex.encoder.prompts import Prompted
from ragindex.encoder.tokenizer import EncoderTokenizer

WORDS = sorted({word for sentence in SENTENCES for word in sentence.split()})
TEXTS = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join),
    st.text(max_size=40),
    st.text(alphabet="ab THEthe \n\t'.-é東😀", max_size=40),
)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> list[Encoder]:
    """Every prompt style with both kinds of tokenizer, with and without special tokens."""
    folder = tmp_path_factory.mktemp("encoders")
    return [
        Encoder.load(
            tiny_encoder(
                folder / f"{style}-{kind}-{specials}",
                prompts=prompts,
                tokenizer=kind,
                specials=specials,
                max_tokens=4096,
            )
        )
        for style, prompts in PROMPT_STYLES.items()
        for kind, specials in (("wordpiece", True), ("bpe", True), ("bpe", False))
    ]


def tokenizer_of(directory: Path) -> tuple[EncoderTokenizer, Tokenizer]:
    return EncoderTokenizer(find_checkpoint(str(directory))), Tokenizer.from_file(str(directory / "tokenizer.json"))


def pooled_pieces(directory: Path, item: Prompted) -> list[str]:
    tokenizer, plain = tokenizer_of(directory)
    (result,) = tokenizer.tokenize([item])
    return [plain.id_to_token(int(token)) for token in result.ids[result.pooled]]


def test_ids_are_the_library_s_and_special_tokens_are_not_pooled(tiny_encoder_dir: Path) -> None:
    tokenizer, plain = tokenizer_of(tiny_encoder_dir)
    results = tokenizer.tokenize([Prompted(text) for text in (*SENTENCES, "key")])
    for text, result in zip((*SENTENCES, "key"), results, strict=True):
        assert result.ids.tolist() == plain.encode(text).ids
        assert result.ids.dtype == np.int64
        assert result.pooled.tolist() == [False, *[True] * (len(result.ids) - 2), False]
    assert tokenizer.specials == 2


def test_instruction_ends_where_the_text_begins(tmp_path: Path) -> None:
    wordpiece = tiny_encoder(tmp_path / "wordpiece")
    bpe = tiny_encoder(tmp_path / "bpe", tokenizer="bpe")
    assert pooled_pieces(wordpiece, Prompted("the kettle boils", 4)) == ["kettle", "boils"]
    assert pooled_pieces(bpe, Prompted("Retrieve the", 9)) == ["Ġthe"]  # the space belongs to the token of the text
    _, plain = tokenizer_of(bpe)
    assert plain.encode("he", add_special_tokens=False).tokens == ["he"]
    assert pooled_pieces(bpe, Prompted("he", 1)) == ["he"]  # a token across the boundary belongs to the text
    # Positions are characters, also after characters of several bytes.
    assert pooled_pieces(bpe, Prompted("é東😀 the", 4)) == ["Ġthe"]
    assert pooled_pieces(wordpiece, Prompted("É東 kettle", 3)) == ["kettle"]


def test_a_mixed_batch_is_what_its_members_are_alone(tiny_encoder_dir: Path) -> None:
    tokenizer, _ = tokenizer_of(tiny_encoder_dir)
    items = [Prompted("the kettle boils", 4), Prompted("the kettle boils"), Prompted("", 0), Prompted("find", 4)]
    for item, result in zip(items, tokenizer.tokenize(items), strict=True):
        (alone,) = tokenizer.tokenize([item])
        assert result.ids.tolist() == alone.ids.tolist()
        assert result.pooled.tolist() == alone.pooled.tolist()
        assert result.pooled.any()


def test_special_tokens_are_pooled_on_request(tmp_path: Path) -> None:
    directory = tiny_encoder(tmp_path / "e")
    file = directory / "ragindex.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"pool_special": false', '"pool_special": true'))
    assert pooled_pieces(directory, Prompted("kettle")) == ["[CLS]", "kettle", "[SEP]"]
    # What stands before an instruction is left out with it, as sentence-transformers does.
    assert pooled_pieces(directory, Prompted("find kettle", 5)) == ["kettle", "[SEP]"]
    assert pooled_pieces(directory, Prompted("find", 4)) == ["[SEP]"]
    assert pooled_pieces(directory, Prompted("kettle find", 0, 7)) == ["[CLS]", "kettle", "[SEP]"]


def test_truncation_and_padding_of_the_file_are_ignored(tmp_path: Path) -> None:
    directory = tiny_encoder(tmp_path / "e")
    plain = Tokenizer.from_file(str(directory / "tokenizer.json"))
    plain.enable_truncation(4)
    plain.enable_padding(length=32)
    plain.save(str(directory / "tokenizer.json"))
    tokenizer, _ = tokenizer_of(directory)
    long, short = tokenizer.tokenize([Prompted("key " * 20), Prompted("key")])
    assert (len(long.ids), len(short.ids)) == (22, 3)


@given(text=TEXTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_offsets_count_characters(encoders: list[Encoder], text: str) -> None:
    for encoder in encoders[:2]:
        offsets = encoder.tokenizer.offsets(text)
        assert offsets.shape == (encoder.tokenizer.count(text), 2)
        assert (offsets[:, 0] <= offsets[:, 1]).all()
        assert offsets.size == 0 or offsets.max() <= len(text)
    words = encoders[0].tokenizer.offsets("É東 😀 kettle")
    assert words[-1].tolist() == [5, 11]


def test_bytes_that_are_no_text_are_counted_as_one_character(tiny_encoder_dir: Path) -> None:
    """The command line passes them on as lone surrogates."""
    encoder = Encoder.load(tiny_encoder_dir)
    np.testing.assert_array_equal(encoder.encode_queries(["key \udcff"]), encoder.encode_queries(["key ?"]))
    assert encoder.tokenizer.offsets("\udcff key")[-1].tolist() == [2, 5]
    assert encoder.tokenizer.count("\ud800") == 1


@given(text=TEXTS, title=TEXTS)
@example(text="hello", title="")
@example(text="  the", title="the ")
@settings(max_examples=150)
def test_overhead_covers_what_prompt_and_title_cost(encoders: list[Encoder], text: str, title: str) -> None:
    for encoder in encoders:
        (whole,) = encoder.tokenizer.tokenize([encoder.config.prompts.for_document(text, title)])
        promised = encoder.document_overhead(title) + encoder.tokenizer.count(text)
        assert len(whole.ids) <= max(promised, 1), encoder.name  # nothing at all is still one token to the model

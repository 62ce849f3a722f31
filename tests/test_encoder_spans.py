"""Late chunking in the encoder: a text is read whole, and spans of it are pooled from what was read."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import HIDDEN, SENTENCES, tiny_encoder
from transformers import AutoModel, PreTrainedTokenizerFast

from ragindex.encoder import Encoder, Prompts, torch_forward
from ragindex.encoder.backbone import set_attention
from ragindex.encoder.tokenizer import Located, Tokenized
from ragindex.errors import EncoderError, UsageError

TEXT = "\n".join(SENTENCES) + "\n"


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_forward, "choose_dtype", lambda device: torch.float32)


def lines(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"[^\n]+", text)]


def load(directory: Path, **options: object) -> Encoder:
    return Encoder.load(tiny_encoder(directory, **options), device="cpu")


def alone(encoder: Encoder, text: str, spans: Sequence[tuple[int, int]], title: str = "") -> np.ndarray:
    return encoder.encode_documents([text[start:end] for start, end in spans], titles=[title] * len(spans))


# Line ends around the text: behind a space, the first word of a text would be another token than behind a line.
WRAPPED = Prompts(document="about {title}\n{text}", untitled_document="passage\n{text}", wrapper="[\n{text}\n] end")


@pytest.mark.parametrize("pooling", ["mean", "weighted-mean"])
@pytest.mark.parametrize("tokenizer", ["wordpiece", "bpe"])
@pytest.mark.parametrize("prompts", [Prompts(), WRAPPED], ids=["plain", "wrapped"])
@pytest.mark.parametrize("max_tokens", [512, 96], ids=["whole", "windows"])
def test_where_no_token_reads_another_a_span_is_its_text_alone(
    pooling: str, tokenizer: str, prompts: Prompts, max_tokens: int, tmp_path: Path
) -> None:
    encoder = load(
        tmp_path / "e", mixing=0, pooling=pooling, tokenizer=tokenizer, prompts=prompts, max_tokens=max_tokens
    )
    for title in ("", "The signing key"):
        found = encoder.encode_spans(TEXT, lines(TEXT), title=title)
        np.testing.assert_allclose(found, alone(encoder, TEXT, lines(TEXT), title), atol=1e-6)


def test_spans_are_pooled_from_the_states_of_the_whole_text(tmp_path: Path) -> None:
    """With transformers alone: one forward pass, then for each span the mean of the tokens that lie in it."""
    encoder = load(tmp_path / "e", head=False)
    model = AutoModel.from_pretrained(tmp_path / "e", dtype=torch.float32).eval()
    set_attention(model, "bidirectional")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "e" / "tokenizer.json"))
    encoding = tokenizer(TEXT, return_offsets_mapping=True)
    with torch.inference_mode():
        states = model(input_ids=torch.tensor([encoding["input_ids"]])).last_hidden_state[0]
    offsets = np.array(encoding["offset_mapping"])
    found = encoder.encode_spans(TEXT, lines(TEXT))
    assert found.dtype == np.float32
    for (start, end), vector in zip(lines(TEXT), found, strict=True):
        inside = (offsets[:, 0] >= start) & (offsets[:, 1] <= end) & (offsets[:, 1] > offsets[:, 0])
        expected = torch.nn.functional.normalize(states[torch.from_numpy(inside)].mean(0), dim=0)
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)


def test_a_span_knows_what_stands_around_it(tmp_path: Path) -> None:
    encoder = load(tmp_path / "e")
    spans = lines(TEXT)
    found = encoder.encode_spans(TEXT, spans)
    assert (np.abs(found - alone(encoder, TEXT, spans)).max(axis=1) > 1e-3).all()
    other = TEXT.replace("Photosynthesis turns", "A vaccine turns")
    changed = encoder.encode_spans(other, lines(other))
    assert (np.abs(found - changed).max(axis=1) > 1e-5).all()  # every one of them, not the edited one alone
    titled = encoder.encode_spans(TEXT, spans, title="The service")
    assert (np.abs(found - titled).max(axis=1) > 1e-4).all()


def test_numpy_and_torch_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spans = lines(TEXT)[:3]
    text = TEXT[: spans[-1][1]]
    small, large = load(tmp_path / "e", max_tokens=64), load(tmp_path / "e", max_tokens=64)
    monkeypatch.setattr(large, "_numpy_supported", False, raising=False)
    np.testing.assert_allclose(small.encode_spans(text, spans), large.encode_spans(text, spans), atol=1e-5)


def test_order_overlap_and_gaps_do_not_matter(tmp_path: Path) -> None:
    encoder = load(tmp_path / "e")
    spans = lines(TEXT)
    wide = (spans[1][0], spans[3][1])
    several = encoder.encode_spans(TEXT, [spans[7], wide, spans[2]])
    usual = encoder.encode_spans(TEXT, spans)
    np.testing.assert_allclose(several[[0, 2]], usual[[7, 2]], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(several, axis=1), 1, atol=1e-6)


def test_dimensions_are_cut_as_usual(tmp_path: Path) -> None:
    tiny_encoder(tmp_path / "e")
    usual = Encoder.load(tmp_path / "e").encode_spans(TEXT, lines(TEXT))
    short = Encoder.load(tmp_path / "e", dimensions=8).encode_spans(TEXT, lines(TEXT))
    expected = usual[:, :8] / np.linalg.norm(usual[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(short, expected, atol=1e-6)
    assert Encoder.load(tmp_path / "e", dimensions=8).encode_spans(TEXT, []).shape == (0, 8)


def test_a_token_lies_in_a_span_that_has_one_of_its_characters() -> None:
    offsets = np.array([[-1, -1], [0, 0], [0, 3], [3, 5], [5, 9], [-1, -1]])  # a special token, one of no characters, …
    located = Located(Tokenized(np.arange(6), np.ones(6, dtype=bool)), offsets)
    assert located.within((0, 3)).tolist() == [False, True, True, False, False, False]
    assert located.within((4, 6)).tolist() == [False, False, False, True, True, False]
    assert located.within((0, 9)).tolist() == [False, True, True, True, True, False]


def test_characters_that_the_tokenizer_drops_have_a_vector(tmp_path: Path) -> None:
    for number, specials in enumerate((True, False)):
        encoder = load(tmp_path / f"e{number}", specials=specials, head=False)
        text = "the key \x00\x01 the index"
        found = encoder.encode_spans(text, [(0, 7), (8, 10)])
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_what_cannot_be_is_one_clear_sentence(tmp_path: Path) -> None:
    encoder = load(tmp_path / "e", max_tokens=32)
    for span in ((3, 3), (5, 4), (-1, 4), (0, len(TEXT) + 1)):
        with pytest.raises(UsageError, match=rf"no span from {span[0]} to {span[1]} in a text of {len(TEXT)} char"):
            encoder.encode_spans(TEXT, [(0, 10), span])
    with pytest.raises(EncoderError, match=r"A span of 605 characters is longer than this encoder's limit; cut it"):
        encoder.encode_spans(TEXT, [(0, 10), (0, 605)])
    with pytest.raises(
        UsageError, match=r"needs an encoder with mean, weighted-mean or mean-query pooling; this one has last"
    ):
        load(tmp_path / "last", pooling="last").encode_spans(TEXT, [(0, 10)])


def test_each_span_is_pooled_once_from_a_window_that_the_encoder_can_read(tmp_path: Path) -> None:
    encoder = load(tmp_path / "e", max_tokens=64)
    text = TEXT * 4
    spans = lines(text)
    plan = encoder.spans.plan(text, spans, title="The key")
    assert len(plan.windows) > 5
    assert sorted(place for members in plan.members() for place in members) == list(range(len(spans)))
    for (begin, end), members in zip(plan.windows, plan.members(), strict=True):
        prompted = encoder.config.prompts.for_document(text[begin:end], "The key")
        (tokenized,) = encoder.tokenizer.tokenize([prompted])  # raises where it is too long
        assert len(tokenized.ids) > 40 or end == len(text)
        assert all(begin <= spans[place][0] < spans[place][1] <= end for place in members)
        assert begin == 0 or all(begin < spans[place][0] for place in members)  # none without what came before it


def test_a_span_has_the_vector_of_its_window(tmp_path: Path) -> None:
    encoder = load(tmp_path / "e", max_tokens=64)
    text = TEXT * 3
    plan = encoder.spans.plan(text, lines(text))
    found = encoder.encode_spans(text, lines(text))
    for (begin, end), members in zip(plan.windows, plan.members(), strict=True):
        own = [(plan.spans[place][0] - begin, plan.spans[place][1] - begin) for place in members]
        part = encoder.encode_spans(text[begin:end], own)
        np.testing.assert_allclose(found[members], part, atol=1e-5)


def test_some_of_the_spans_are_pooled_as_among_all(tmp_path: Path) -> None:
    encoder = load(tmp_path / "e", max_tokens=64)
    text = TEXT * 3
    plan = encoder.spans.plan(text, lines(text))
    some = plan.only([17, 4, 5])
    assert len(some.windows) < len(plan.windows)
    usual, (found, again) = encoder.encode_spans(text, lines(text)), encoder.spans.encode([some, plan])
    np.testing.assert_allclose(found, usual[[17, 4, 5]], atol=1e-5)
    np.testing.assert_allclose(again, usual, atol=1e-5)


def test_a_text_that_fits_is_read_whole_wherever_its_spans_lie(tmp_path: Path) -> None:
    encoder = load(tmp_path / "e")
    spans = lines(TEXT)
    for some in (spans[-1:], spans[4:6], spans):
        assert encoder.spans.plan(TEXT, some).windows == [(0, len(TEXT))]
    np.testing.assert_allclose(
        encoder.encode_spans(TEXT, spans[4:6]), encoder.encode_spans(TEXT, spans)[4:6], atol=1e-5
    )


def test_a_span_is_pooled_where_most_of_what_stands_around_it_is_read(tmp_path: Path) -> None:
    encoder = load(tmp_path / "e", max_tokens=64)
    text = TEXT * 3
    words = [match.span() for match in re.finditer(r"\S+", text)]
    plan = encoder.spans.plan(text, words)
    assert all(after[0] < before[1] for before, after in itertools.pairwise(plan.windows))  # they overlap
    for word, home in zip(words, plan.homes, strict=True):
        holding = [window for window in plan.windows if window[0] <= word[0] and word[1] <= window[1]]
        assert margin(plan.windows[home], word, text) == max(margin(window, word, text) for window in holding)


def margin(window: tuple[int, int], span: tuple[int, int], text: str) -> float:
    left = math.inf if window[0] == 0 else span[0] - window[0]
    return min(left, math.inf if window[1] == len(text) else window[1] - span[1])


def test_a_long_span_keeps_some_of_what_stands_before_it(tmp_path: Path) -> None:
    """A quarter of the window does not fit beside it, less does."""
    encoder = load(tmp_path / "e", max_tokens=64)
    text = TEXT + "key " * 50
    start = len(TEXT)
    ((begin, _),) = encoder.spans.plan(text, [(start, len(text) - 1)]).windows
    assert 0 < begin < start


def test_a_span_as_long_as_a_window_fits_one_of_its_own(tmp_path: Path) -> None:
    encoder = load(tmp_path / "e", max_tokens=64)
    words = "key " * 61 + "key"  # 62 tokens and two special ones
    text = f"{TEXT}{words}\n{TEXT}"
    spans = [*lines(TEXT), (len(TEXT), len(TEXT) + len(words))]
    found = encoder.encode_spans(text, spans)
    np.testing.assert_allclose(found[-1], alone(encoder, text, spans[-1:])[0], atol=1e-5)


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    directory = tmp_path_factory.mktemp("static") / "e"
    return load(directory, mixing=0, head=False, max_tokens=64, tokenizer="bpe")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_text_and_spans_have_a_plan(static: Encoder, data: st.DataObject) -> None:
    text = data.draw(st.text(st.sampled_from("aé \n東.🚀key"), min_size=1, max_size=400))
    start = st.integers(0, len(text) - 1)
    spans = [
        (begin, min(len(text), begin + data.draw(st.integers(1, 20))))
        for begin in data.draw(st.lists(start, max_size=8))
    ]
    plan = static.spans.plan(text, spans)
    assert sorted(place for members in plan.members() for place in members) == list(range(len(spans)))
    found = static.encode_spans(text, spans)
    assert found.shape == (len(spans), HIDDEN)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)

"""What an encoder promises about its vectors: form, order, batches, empty and long texts, threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import HEAD_DIMENSIONS, SENTENCES, tiny_encoder

from ragindex.encoder import (
    PROMPT_STYLES,
    Encoder,
    EncoderConfig,
    TextEncoder,
    find_checkpoint,
    numpy_forward,
    torch_forward,
)
from ragindex.encoder import encoder as encoder_module
from ragindex.encoder.numpy_forward import NumpyForward
from ragindex.encoder.prompts import Prompted
from ragindex.encoder.tokenizer import EncoderTokenizer
from ragindex.encoder.torch_forward import TorchForward, pool_states, token_budget_batches
from ragindex.errors import EncoderError, UsageError

MIXED = [" ".join(SENTENCES[:count]) for count in (3, 1, 4, 1, 5, 0, 2)] + ["key", "", "café – 東京"]


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tolerances here are those of float32, also on processors that would choose bfloat16."""
    monkeypatch.setattr(torch_forward, "choose_dtype", lambda device: torch.float32)


@pytest.fixture(scope="module")
def encoder(tiny_encoder_dir: Path) -> Encoder:
    return Encoder.load(tiny_encoder_dir, device="cpu")


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """Without head and special tokens, and with a byte-level tokenizer."""
    directory = tmp_path_factory.mktemp("bpe") / "encoder"
    return Encoder.load(tiny_encoder(directory, tokenizer="bpe", specials=False, head=False), device="cpu")


def one_by_one(encoder: Encoder, texts: list[str]) -> np.ndarray:
    return np.concatenate([encoder.encode_documents([text]) for text in texts])


def test_vectors_are_unit_float32(encoder: Encoder, bpe: Encoder) -> None:
    for one in (encoder, bpe):
        for vectors in (one.encode_queries(MIXED), one.encode_documents(MIXED), one.encode_queries(["key"])):
            assert vectors.dtype == np.float32
            assert vectors.shape[1] == one.dimensions
            np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
        assert isinstance(one, TextEncoder)
    assert encoder.dimensions == HEAD_DIMENSIONS


def test_no_texts_give_no_vectors(encoder: Encoder) -> None:
    assert encoder.encode_queries([]).shape == (0, encoder.dimensions)
    assert encoder.encode_documents([], titles=[]).shape == (0, encoder.dimensions)


def test_a_batch_gives_what_single_texts_give_in_their_order(encoder: Encoder, bpe: Encoder) -> None:
    """Sorting by length, padding, and the choice between numpy and torch leave no trace."""
    for one in (encoder, bpe):
        together, apart = one.encode_documents(MIXED), one_by_one(one, MIXED)
        np.testing.assert_allclose(together, apart, atol=1e-5)
        similarity = together @ apart.T
        distinct = [index for index, text in enumerate(MIXED) if MIXED.count(text) == 1]
        assert all(similarity[index].argmax() == index for index in distinct)
        reordered = one.encode_documents(MIXED[::-1])
        np.testing.assert_allclose(reordered[::-1], together, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "weighted-mean", "last"])
@pytest.mark.parametrize("attention", ["bidirectional", "causal"])
@pytest.mark.parametrize(("key_heads", "head"), [(4, True), (2, True), (2, False), (1, False)])
def test_numpy_and_torch_agree(tmp_path: Path, pooling: str, attention: str, key_heads: int, head: bool) -> None:
    directory = tiny_encoder(
        tmp_path / "encoder", pooling=pooling, attention=attention, key_heads=key_heads, head=head, mixing=1.0
    )
    checkpoint = find_checkpoint(str(directory))
    batch = EncoderTokenizer(checkpoint).tokenize([Prompted(text) for text in MIXED] + [Prompted("find keys", 5)])
    in_numpy = NumpyForward(checkpoint)(batch)
    in_torch = TorchForward(checkpoint, device="cpu", dtype=torch.float32)(batch)
    assert in_numpy.dtype == in_torch.dtype == np.float32
    np.testing.assert_allclose(in_numpy, in_torch, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(in_numpy, axis=1), 1.0, atol=1e-5)


def test_half_floats_are_read_exactly() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    numbers = every[np.isfinite(every)]
    assert len(numbers) == 63_488
    for values in (numbers, numbers.reshape(-1, 2), every, np.empty(0, np.float16), numbers.astype(np.float32)):
        read = numpy_forward._float32(values.copy())
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, values.astype(np.float32))
    assert np.signbit(numpy_forward._float32(np.array([-0.0], np.float16)))[0]


@pytest.mark.parametrize("pooling", ["mean", "weighted-mean", "last"])
@pytest.mark.parametrize("specials", [True, False])
def test_an_encoder_without_layers_serves_any_number_of_texts_in_numpy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pooling: str, specials: bool
) -> None:
    directory = tiny_encoder(tmp_path / "encoder", layers=0, pooling=pooling, specials=specials)
    checkpoint = find_checkpoint(str(directory))
    inputs = [Prompted(text) for text in MIXED] + [Prompted("find keys", 5), Prompted("find", 4)]
    batch = EncoderTokenizer(checkpoint).tokenize(inputs)
    in_torch = TorchForward(checkpoint, device="cpu", dtype=torch.float32)(batch)
    in_numpy = NumpyForward(checkpoint)
    np.testing.assert_allclose(in_numpy(batch), in_torch, atol=1e-4)
    np.testing.assert_allclose(np.concatenate([in_numpy([item]) for item in batch]), in_torch, atol=1e-4)
    monkeypatch.delattr(torch_forward, "TorchForward")
    vectors = Encoder.load(directory).encode_documents(list(SENTENCES) * 30)
    np.testing.assert_allclose(vectors[:10], vectors[-10:], atol=1e-6)


def test_attention_and_pooling_decide_vectors(tmp_path: Path) -> None:
    """Otherwise the agreement above would prove nothing."""
    text = [SENTENCES[0]]
    vectors = [
        Encoder.load(tiny_encoder(tmp_path / f"{attention}-{pooling}", attention=attention, pooling=pooling))
        .encode_documents(text)
        .ravel()
        for attention in ("bidirectional", "causal")
        for pooling in ("mean", "weighted-mean", "last")
    ]
    cosines = np.stack(vectors) @ np.stack(vectors).T
    assert (cosines[~np.eye(len(vectors), dtype=bool)] < 0.9999).all()


def test_pooling_ignores_padding_on_either_side() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(1, 6, 4, generator=generator)
    weights = torch.rand(1, 6, generator=generator) + 0.1
    pooled = torch.tensor([[0.0, 1, 1, 0, 1, 1]])
    for pooling in ("mean", "weighted-mean", "last"):
        expected = pool_states(states, pooled, weights, pooling)
        for pad in ((0, 3), (3, 0), (2, 2)):
            junk = torch.nn.functional.pad(states, (0, 0, *pad), value=99.0)
            mask = torch.nn.functional.pad(pooled, pad)
            padded = pool_states(junk, mask, torch.nn.functional.pad(weights, pad, value=9.0), pooling)
            torch.testing.assert_close(padded, expected)
    assert torch.equal(pool_states(states, pooled, None, "last")[0], states[0, 5])
    later = pool_states(states, pooled, None, "weighted-mean")[0]
    torch.testing.assert_close(later, (states[0, 1] + 2 * states[0, 2] + 3 * states[0, 4] + 4 * states[0, 5]) / 10)


def test_instruction_is_read_but_not_pooled(tmp_path: Path, encoder: Encoder) -> None:
    plain, instructed = encoder.encode_queries(["key"]), encoder.encode_queries(["key"], instruction="find a recipe")
    assert float((plain * instructed).sum()) < 0.9999
    for pooling in ("mean", "weighted-mean", "last"):
        # With no mixing no token reads another, so only a pooled instruction could change the vector.
        static = Encoder.load(tiny_encoder(tmp_path / pooling, mixing=0.0, pooling=pooling, specials=False))
        for text in ("key", "rotate the key?", "zebra"):
            expected = static.encode_queries([text])
            np.testing.assert_allclose(static.encode_queries([text], instruction="find a recipe"), expected, atol=1e-6)


def test_a_token_that_straddles_the_end_of_the_instruction_is_pooled(tmp_path: Path) -> None:
    static = Encoder.load(tiny_encoder(tmp_path / "e", mixing=0.0, tokenizer="bpe", specials=False, head=False))
    instructed = static.encode_queries(["the"], instruction="Retrieve")  # "Retrieve the" ends in one token, " the"
    np.testing.assert_allclose(instructed, static.encode_queries([" the"]), atol=1e-6)


def test_default_instruction_and_its_absence(tmp_path: Path) -> None:
    style = PROMPT_STYLES["e5-instruct"]
    encoder = Encoder.load(tiny_encoder(tmp_path / "e", prompts=style))
    bare = Encoder.load(tiny_encoder(tmp_path / "bare", prompts=replace(style, instruction="")))
    by_default = encoder.encode_queries(["key"])
    np.testing.assert_array_equal(by_default, encoder.encode_queries(["key"], instruction=style.instruction))
    np.testing.assert_array_equal(encoder.encode_queries(["key"], instruction=""), bare.encode_queries(["key"]))
    assert not np.allclose(by_default, bare.encode_queries(["key"]))
    np.testing.assert_array_equal(encoder.encode_documents(["key"]), bare.encode_documents(["key"]))


def test_titles_are_pooled_with_the_text(encoder: Encoder) -> None:
    plain = encoder.encode_documents(["it boils"])
    titled = encoder.encode_documents(["it boils"], titles=["kettle"])
    assert not np.allclose(plain, titled, atol=1e-3)
    np.testing.assert_array_equal(encoder.encode_documents(["it boils"], titles=[""]), plain)
    np.testing.assert_array_equal(titled, encoder.encode_documents(["kettle\nit boils"]))
    with pytest.raises(UsageError, match="2 texts but 1 titles"):
        encoder.encode_documents(["a", "b"], titles=["c"])


def test_empty_texts_have_a_unit_vector(tmp_path: Path) -> None:
    for specials in (True, False):
        for tokenizer in ("wordpiece", "bpe"):
            directory = tiny_encoder(tmp_path / f"{tokenizer}{specials}", tokenizer=tokenizer, specials=specials)
            encoder = Encoder.load(directory)
            for text in ("", " ", "\n\t", "\u200b", "\x00"):
                for vector in (encoder.encode_documents([text]), encoder.encode_queries([text], instruction="find")):
                    assert np.isfinite(vector).all()
                    assert float(np.linalg.norm(vector)) == pytest.approx(1.0, abs=1e-5)


def test_a_text_that_is_too_long_is_refused_and_never_cut(tmp_path: Path) -> None:
    encoder = Encoder.load(tiny_encoder(tmp_path / "e", max_tokens=16))
    assert encoder.max_tokens == 16
    encoder.encode_documents(["key " * 14])  # and two special tokens
    for encode in (encoder.encode_documents, encoder.encode_queries):
        with pytest.raises(EncoderError, match="17 tokens is longer than this encoder's limit of 16"):
            encode(["fine", "key " * 15])
    with pytest.raises(EncoderError, match="limit of 16"):
        encoder.encode_documents(["key " * 10], titles=["word " * 10])
    with pytest.raises(EncoderError, match="limit of 16"):
        encoder.encode_queries(["key"], instruction="find " * 20)


def test_fewer_dimensions_are_the_first_ones_normalised_again(tiny_encoder_dir: Path, encoder: Encoder) -> None:
    short = Encoder.load(tiny_encoder_dir, dimensions=8, device="cpu")
    assert short.dimensions == 8
    expected = encoder.encode_documents(MIXED)[:, :8]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    vectors = short.encode_documents(MIXED)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    for impossible in (0, -1, HEAD_DIMENSIONS + 1):
        with pytest.raises(UsageError, match=f"{HEAD_DIMENSIONS} dimensions; {impossible} cannot be had"):
            Encoder.load(tiny_encoder_dir, dimensions=impossible)


def test_many_texts_go_through_in_bounded_batches(tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder.load(tiny_encoder_dir, device="cpu")
    texts = [f"key {number % 500}" for number in range(20_000)]
    padded: list[int] = []
    windows: list[int] = []
    run, tokenize = TorchForward._run, EncoderTokenizer.tokenize

    def spy_run(self, items):
        padded.append(len(items) * max(len(item.ids) for item in items))
        return run(self, items)

    def spy_tokenize(self, inputs):
        windows.append(len(inputs))
        return tokenize(self, inputs)

    monkeypatch.setattr(TorchForward, "_run", spy_run)
    monkeypatch.setattr(EncoderTokenizer, "tokenize", spy_tokenize)
    vectors = encoder.encode_documents(texts)
    assert vectors.shape == (20_000, encoder.dimensions)
    assert len(padded) > 1
    assert max(padded) <= 8192
    assert max(windows) < 20_000
    np.testing.assert_allclose(vectors[:500], vectors[-500:], atol=1e-5)
    np.testing.assert_allclose(vectors[[7, 499]], one_by_one(encoder, [texts[7], texts[499]]), atol=1e-5)


def test_the_next_texts_are_tokenised_while_the_last_are_encoded(
    tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder.load(tiny_encoder_dir, device="cpu")
    monkeypatch.setattr(encoder_module, "_WINDOW", 4)
    texts = [f"key {number}" for number in range(10)] + ["key " * 600]
    second_began = threading.Event()
    tokenize, compute = EncoderTokenizer.tokenize, NumpyForward.__call__
    windows: list[int] = []

    def spy(self, inputs):
        windows.append(len(inputs))
        if len(windows) == 2:
            second_began.set()
        return tokenize(self, inputs)

    def forward(self, batch):
        assert second_began.wait(timeout=60)
        return compute(self, batch)

    monkeypatch.setattr(EncoderTokenizer, "tokenize", spy)
    monkeypatch.setattr(NumpyForward, "__call__", forward)
    vectors = encoder.encode_documents(texts[:10])
    assert [size for size in windows if size] == [4, 4, 2]
    monkeypatch.undo()
    np.testing.assert_allclose(vectors, one_by_one(encoder, texts[:10]), atol=1e-5)
    monkeypatch.setattr(encoder_module, "_WINDOW", 4)
    with pytest.raises(EncoderError, match="602 tokens is longer"):
        encoder.encode_documents(texts)


def test_a_batch_that_does_not_fit_the_device_is_halved(
    tiny_encoder_dir: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = encoder.encode_documents(MIXED)
    run = TorchForward._run
    sizes: list[int] = []

    def small_device(self, items):
        sizes.append(len(items))
        if len(items) > 3:
            raise torch.OutOfMemoryError
        return run(self, items)

    monkeypatch.setattr(TorchForward, "_run", small_device)
    np.testing.assert_allclose(
        Encoder.load(tiny_encoder_dir, device="cpu").encode_documents(MIXED), expected, atol=1e-5
    )
    assert max(sizes) > 3 >= min(sizes)


def test_token_budget_batches_cover_every_index_once() -> None:
    lengths = [5, 1, 900, 3, 3, 64, 1, 0]
    groups = list(token_budget_batches(lengths, 100))
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    assert groups[0] == [2]  # longer than the budget: alone, and first
    assert all(len(group) * max(lengths[index] for index in group) <= 100 for group in groups[1:])
    assert token_budget_batches([], 100) == []


def test_threads_share_an_encoder(tiny_encoder_dir: Path, encoder: Encoder) -> None:
    jobs = [MIXED, ["key"], MIXED[:5] * 6, ["restore a backup", "key"]]
    expected = [encoder.encode_documents(job) for job in jobs]
    fresh = Encoder.load(tiny_encoder_dir, device="cpu")  # the weights are read by whoever comes first
    together = threading.Barrier(len(jobs))

    def work(job: list[str]) -> list[np.ndarray]:
        together.wait(timeout=60)
        return [fresh.encode_documents(job) for _ in range(5)]

    with ThreadPoolExecutor(len(jobs)) as pool:
        for rounds, wanted in zip(pool.map(work, jobs), expected, strict=True):
            for vectors in rounds:
                np.testing.assert_allclose(vectors, wanted, atol=1e-5)


def test_weights_are_read_once_however_many_threads_ask(
    tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[threading.Thread] = []
    read = TorchForward.__init__

    def spy(self, *args, **options):
        loads.append(threading.current_thread())
        read(self, *args, **options)

    monkeypatch.setattr(TorchForward, "__init__", spy)
    encoder = Encoder.load(tiny_encoder_dir, device="cpu")
    together = threading.Barrier(4)

    def work(_: int) -> None:
        together.wait(timeout=60)
        encoder.encode_documents(MIXED)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert len(loads) == 1


def test_configuration_refuses_what_it_cannot_mean() -> None:
    for options, message in (
        ({"pooling": "cls"}, "Unknown pooling 'cls'; choose one of mean, weighted-mean, last"),
        ({"attention": "both"}, "Unknown attention 'both'"),
        ({"dimensions": 0}, "at least 1 dimension"),
        ({"max_tokens": 4}, "8 tokens"),
    ):
        with pytest.raises(EncoderError, match=message):
            EncoderConfig(**{"dimensions": 8, **options})


def test_bundled_encoder_finds_the_passage() -> None:
    encoder = Encoder.load()
    assert encoder.name == "bundled"
    found = (
        encoder.encode_documents(list(SENTENCES))
        @ encoder.encode_queries(
            ["How often should I rotate keys?", "at what temperature does water boil", "vacation days carried over"]
        ).T
    )
    assert found.argmax(axis=0).tolist() == [0, 1, 2]

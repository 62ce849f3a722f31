"""Vectors in smaller forms: what they are made of, what they decode to, and how near their cosines are."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.util.quantization import quantize_embeddings
from tiny import HEAD_DIMENSIONS, SENTENCES

from ragindex.encoder import Encoder, Quantiser
from ragindex.encoder.quantise import Output, hamming_distances, int8_ranges
from ragindex.errors import UsageError

OUTPUTS: tuple[Output, ...] = get_args(Output)
# Largest 1 - cosine of a decoded vector in 384 dimensions.
LOSSES: dict[Output, float] = {"float32": 0.0, "float16": 1e-6, "int8": 1e-4, "float8": 1e-3, "binary": 0.3}


def unit(count: int, dimensions: int, *, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def to_e4m3(values: np.ndarray) -> np.ndarray:
    """Bits of the form as torch makes them."""
    return np.asarray(torch.from_numpy(values.copy()).to(torch.float8_e4m3fn).view(torch.uint8).numpy())


# float8


def test_every_float8_decodes_to_the_number_that_it_is() -> None:
    codes = np.arange(256, dtype=np.uint8)[:, None]
    theirs = torch.from_numpy(codes).view(torch.float8_e4m3fn).float().numpy()
    numbers = ~np.isnan(theirs).ravel()
    ours = Quantiser("float8", 1)._values(codes)
    np.testing.assert_array_equal(ours[numbers], theirs[numbers])
    assert np.isnan(ours[~numbers]).all()


def test_float8_rounds_to_the_nearest_and_ties_to_even() -> None:
    numbers = Quantiser("float8", 1)._values(np.arange(127, dtype=np.uint8)[:, None]).ravel()
    middles = ((numbers[1:] + numbers[:-1]) / 2).astype(np.float32)
    near = [np.nextafter(middles, np.float32(end)) for end in (0, 1000)]
    values = np.concatenate([numbers, middles, *near])
    values = np.concatenate([values, -values])[:, None] / 256
    np.testing.assert_array_equal(Quantiser("float8", 1).encode(values), to_e4m3(values * 256))


@given(st.lists(st.floats(-1.75, 1.75, width=32), min_size=1, max_size=64))
def test_float8_is_torch_s(values: list[float]) -> None:
    array = np.asarray(values, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(Quantiser("float8", 1).encode(array), to_e4m3(array * 256))


def test_float8_ends_at_its_largest_number_and_not_in_nonsense() -> None:
    found = Quantiser("float8", 1).encode(np.asarray([[1.8], [100.0], [-np.inf]], dtype=np.float32))
    assert found.ravel().tolist() == [126, 126, 254]


# int8


def test_int8_with_ranges_is_sentence_transformers_s() -> None:
    vectors = unit(200, 48)
    ranges = int8_ranges(vectors[:150])  # what comes later may lie outside
    ours = Quantiser("int8", 48, ranges)
    theirs = quantize_embeddings(vectors, "int8", ranges=ranges)
    np.testing.assert_array_equal(ours.encode(vectors), theirs)
    inside = ours.encode(vectors[:150])
    steps = (ranges[1] - ranges[0]) / 255
    decoded = ours._values(inside)
    assert (np.abs(decoded - vectors[:150]) <= steps / 2 + 1e-6).all()


def test_a_dimension_that_never_changes_keeps_its_value() -> None:
    vectors = unit(20, 6)
    vectors[:, 2] = 0.5
    ours = Quantiser("int8", 6, int8_ranges(vectors))
    np.testing.assert_array_equal(ours._values(ours.encode(vectors))[:, 2], np.full(20, 0.5, dtype=np.float32))


def test_int8_alone_uses_its_whole_range_for_every_vector() -> None:
    vectors = unit(50, 32)
    codes = Quantiser("int8", 32).encode(vectors)
    assert (np.abs(codes.astype(int)).max(axis=1) == 127).all()
    tail = np.zeros((1, 32), dtype=np.float32)
    tail[0, :2] = 1.0, -0.004  # one outlier does not decide for the others
    np.testing.assert_array_equal(Quantiser("int8", 32).encode(np.concatenate([vectors, tail]))[:50], codes)


def test_ranges_that_fit_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="taken from at least 2 vectors"):
        int8_ranges(unit(1, 8))
    with pytest.raises(UsageError, match=r"of shape \(2, 8\); they have \(2, 6\)"):
        Quantiser("int8", 8, int8_ranges(unit(5, 6)))
    with pytest.raises(UsageError, match="the least and the largest value"):
        Quantiser("int8", 8, int8_ranges(unit(5, 8))[::-1])
    with pytest.raises(UsageError, match="Ranges are for int8; float8 has no use for them"):
        Quantiser("float8", 8, int8_ranges(unit(5, 8)))


# binary


@pytest.mark.parametrize("dimensions", [8, 24, 13])
@pytest.mark.parametrize("output", ["binary", "ubinary"])
def test_bits_are_sentence_transformers_s(output: Output, dimensions: int) -> None:
    vectors = unit(30, dimensions)
    vectors[0, :3] = 0.0, -0.0, 1e-30
    ours = Quantiser(output, dimensions)
    codes = ours.encode(vectors)
    theirs = quantize_embeddings(vectors, output)
    assert codes.dtype == theirs.dtype
    np.testing.assert_array_equal(codes, theirs)
    np.testing.assert_array_equal(ours.decode(codes) > 0, vectors > 0)


def test_hamming_distances_count_bits() -> None:
    one, other = unit(7, 20), unit(9, 20, seed=1)
    expected = ((one > 0)[:, None] != (other > 0)[None]).sum(axis=2)
    for output in ("binary", "ubinary"):
        quantiser = Quantiser(output, 20)  # type: ignore[arg-type]
        found = hamming_distances(quantiser.encode(one), quantiser.encode(other))
        np.testing.assert_array_equal(found, expected)
    assert hamming_distances(quantiser.empty(0), quantiser.encode(other)).shape == (0, 9)


# all of them


@pytest.mark.parametrize("output", OUTPUTS)
def test_codes_have_the_stated_shape_and_decode_to_unit_vectors_near_by(output: Output) -> None:
    vectors = unit(100, 384)
    quantiser = Quantiser(output, 384)
    codes = quantiser.encode(vectors)
    room = quantiser.empty(100)
    assert (codes.dtype, codes.shape) == (room.dtype, room.shape)
    sizes = {"float32": 1536, "float16": 768, "int8": 384, "float8": 384, "binary": 48, "ubinary": 48}
    assert codes.nbytes == 100 * sizes[output]
    decoded = quantiser.decode(codes)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1, atol=1e-5)
    assert 1 - np.einsum("ij,ij->i", vectors, decoded).min() <= LOSSES.get(output, 0.3) + 1e-6


@pytest.mark.parametrize("output", OUTPUTS)
def test_scores_are_cosines_with_what_was_decoded(output: Output) -> None:
    vectors, queries = unit(60, 64), unit(5, 64, seed=1)
    quantiser = Quantiser(output, 64)
    codes = quantiser.encode(vectors)
    found = quantiser.scores(queries, codes)
    assert (found.dtype, found.shape) == (np.float32, (5, 60))
    np.testing.assert_allclose(found, queries @ quantiser.decode(codes).T, atol=1e-6)
    assert np.corrcoef(found.ravel(), (queries @ vectors.T).ravel())[0, 1] > 0.75


def test_rescoring_bits_with_exact_queries_beats_hamming_distances() -> None:
    vectors, queries = unit(2000, 128), unit(20, 128, seed=1)
    quantiser = Quantiser("ubinary", 128)
    codes = quantiser.encode(vectors)
    best = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]

    def recall(scores: np.ndarray) -> float:
        found = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, best, strict=True)]))

    assert recall(quantiser.scores(queries, codes)) > recall(-hamming_distances(quantiser.encode(queries), codes)) + 0.1


def test_what_is_no_code_is_not_decoded() -> None:
    vectors = unit(3, 16)
    for output, codes in (
        ("float8", Quantiser("int8", 16).encode(vectors)),  # negative numbers would be taken for places
        ("int8", Quantiser("float8", 16).encode(vectors)),
        ("ubinary", Quantiser("binary", 16).encode(vectors)),
        ("binary", Quantiser("binary", 24).encode(unit(3, 24))),
        ("float16", vectors),
    ):
        with pytest.raises(UsageError, match=f"Codes of {output} are "):
            Quantiser(output, 16).decode(codes)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"shape \(n, 16\) can be encoded; these have \(3, 8\)"):
        Quantiser("int8", 16).encode(unit(3, 8))


# through an encoder


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("dimensions", [HEAD_DIMENSIONS, 10])
def test_an_encoder_gives_each_form_of_the_same_vectors(
    tiny_encoder_dir: Path, output: Output, dimensions: int
) -> None:
    encoder = Encoder.load(tiny_encoder_dir, dimensions=dimensions, device="cpu")
    texts = list(SENTENCES)
    exact = encoder.encode_documents(texts, titles=["Keys"] * len(texts))
    found = encoder.encode_documents(texts, titles=["Keys"] * len(texts), output=output)
    np.testing.assert_array_equal(found, encoder.quantiser(output).encode(exact))
    asked = encoder.encode_queries(texts[:2], output=output)
    np.testing.assert_array_equal(asked, encoder.quantiser(output).encode(encoder.encode_queries(texts[:2])))
    assert encoder.encode_queries([], output=output).shape == (0, encoder.quantiser(output).width)


def test_an_encoder_takes_a_quantiser_with_ranges(tiny_encoder_dir: Path) -> None:
    encoder = Encoder.load(tiny_encoder_dir, device="cpu")
    exact = encoder.encode_documents(list(SENTENCES))
    quantiser = Quantiser("int8", encoder.dimensions, int8_ranges(exact))
    codes = encoder.encode_documents(list(SENTENCES), output=quantiser)
    np.testing.assert_array_equal(codes, quantiser.encode(exact))
    with pytest.raises(UsageError, match=f"The quantiser is for 8 dimensions; this encoder has {HEAD_DIMENSIONS}"):
        encoder.encode_documents(["key"], output=Quantiser("int8", 8))
    with pytest.raises(UsageError, match="Unknown output 'int4'; choose one of float32, float16, int8"):
        encoder.encode_queries(["key"], output="int4")  # type: ignore[arg-type]


def test_windows_are_put_together_in_every_form(tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragindex.encoder.encoder._WINDOW", 3)
    encoder = Encoder.load(tiny_encoder_dir, device="cpu")
    texts = list(SENTENCES)
    one_by_one = np.concatenate([encoder.encode_documents([text], output="int8") for text in texts])
    together = encoder.encode_documents(texts, output="int8")
    assert np.abs(together.astype(int) - one_by_one).max() <= 1

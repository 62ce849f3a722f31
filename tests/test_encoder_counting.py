"""How much tokens count in pooling, by place and by repetition: the formula, the same in numpy, torch and training."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tiny import SENTENCES, tiny_encoder

from ragindex.encoder import Encoder, find_checkpoint, torch_forward
from ragindex.encoder.checkpoint import Counting, EncoderConfig
from ragindex.encoder.head import counted
from ragindex.encoder.numpy_forward import NumpyForward
from ragindex.encoder.torch_forward import TorchForward, counts_of
from ragindex.errors import EncoderError
from ragindex.train.model import TrainableEncoder

COUNTINGS = [Counting(saturation=4.0), Counting(lead=3.0), Counting(saturation=0.5, lead=10.0)]
TEXTS = [*SENTENCES, "key", "key key key rotate", " ".join(SENTENCES[:4])]


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_forward, "choose_dtype", lambda device: torch.float32)


def by_hand(ids: list[int], pooled: list[int], counting: Counting) -> list[float]:
    """What the docstring of `Counting` says, token by token; 0 for those that are not pooled."""
    places = [sum(pooled[:place]) for place in range(len(ids))]
    counts = [0.0 if not own else 1.0 for own in pooled]
    if counting.lead is not None:
        counts = [count / math.sqrt(1 + place / counting.lead) for count, place in zip(counts, places, strict=True)]
    if counting.saturation is None:
        return counts
    together = {token: sum(c for i, c in zip(ids, counts, strict=True) if i == token) for token in ids}
    k = counting.saturation
    return [count * (k + 1) / (k + together[token]) for token, count in zip(ids, counts, strict=True)]


@pytest.mark.parametrize("counting", COUNTINGS, ids=str)
def test_the_formula(counting: Counting) -> None:
    ids, pooled = [9, 9, 5, 9, 5, 7, 9], [0, 1, 1, 1, 1, 1, 0]
    expected = by_hand(ids, pooled, counting)
    found = counted(np.array(ids), np.array(pooled, dtype=bool), counting) * pooled
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    padded = torch.tensor([[*ids, 9, 0], [5, 7, 9, 0, 0, 0, 0, 0, 0]])
    mask = torch.tensor([[*pooled, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0, 0]], dtype=torch.float32)
    both = counts_of(padded, mask, None, counting)
    assert both is not None
    np.testing.assert_allclose((both * mask)[0, : len(ids)], expected, rtol=1e-6)
    np.testing.assert_allclose((both * mask)[1, :3], by_hand([5, 7, 9], [1, 1, 1], counting), rtol=1e-6)
    weighted = counts_of(padded, mask, torch.arange(10.0), counting)
    assert weighted is not None
    torch.testing.assert_close(weighted, both * padded)


def test_ten_times_the_same_is_less_than_ten_times_as_much() -> None:
    ids, all_of_them = np.array([3] * 10 + [4]), np.ones(11, dtype=bool)
    repeated = counted(ids, all_of_them, Counting(saturation=4.0))
    assert repeated[:10].sum() == pytest.approx(5 * 10 / 14)
    assert repeated[10] == pytest.approx(1.0)
    assert (np.diff(counted(ids, all_of_them, Counting(lead=20.0))) < 0).all()
    assert (counted(ids, all_of_them, Counting()) == 1).all()


@pytest.mark.parametrize("counting", COUNTINGS, ids=str)
def test_every_path_counts_alike(tmp_path: Path, counting: Counting) -> None:
    directory = tiny_encoder(tmp_path / "made")
    encoder = Encoder.load(directory, device="cpu", **counting._asdict())
    encoder.save(tmp_path / "saved")
    saved = Encoder.load(tmp_path / "saved", device="cpu")
    assert saved.config.counting == counting
    assert saved.fingerprint == encoder.fingerprint
    checkpoint = find_checkpoint(str(tmp_path / "saved"))
    items = saved.tokenizer.tokenize([checkpoint.config.prompts.for_document(text, "") for text in TEXTS])
    expected = NumpyForward(checkpoint)(items)
    np.testing.assert_allclose(TorchForward(checkpoint, device="cpu")(items), expected, atol=1e-5)
    np.testing.assert_allclose(
        np.concatenate([saved.encode_documents([text]) for text in TEXTS]), saved.encode_documents(TEXTS), atol=1e-5
    )
    model = TrainableEncoder.open(tmp_path / "saved", device="cpu")
    model.mixed = False
    with torch.no_grad():
        np.testing.assert_allclose(model(model.documents(TEXTS)).numpy(), expected, atol=1e-5)
    plain = Encoder.load(directory, device="cpu")
    assert plain.fingerprint != encoder.fingerprint
    assert not np.allclose(plain.encode_documents(TEXTS), expected, atol=1e-3)
    # One token of a text is no mean of several.
    last = Encoder.load(directory, device="cpu", pooling="last", **counting._asdict())
    alone = Encoder.load(directory, device="cpu", pooling="last")
    np.testing.assert_allclose(last.encode_documents(TEXTS), alone.encode_documents(TEXTS), atol=1e-6)


def test_sentence_transformers_refuses_what_it_cannot_say(tmp_path: Path) -> None:
    Encoder.load(tiny_encoder(tmp_path / "made"), device="cpu", lead=20.0).save(tmp_path / "saved")
    with pytest.raises((ImportError, OSError, ValueError)):
        SentenceTransformer(str(tmp_path / "saved"), device="cpu", local_files_only=True)


@pytest.mark.parametrize("name", ["saturation", "lead"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_what_is_no_number_above_zero(name: str, value: float) -> None:
    with pytest.raises(EncoderError, match=f"A {name} of .* is impossible; give one above 0"):
        EncoderConfig(dimensions=4, **{name: value})  # type: ignore[arg-type]

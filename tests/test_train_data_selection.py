"""Training text is picked by its similarity to a target, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tiny import SENTENCES

from ragindex.encoder import Encoder
from ragindex.errors import TrainingError, UsageError
from ragindex.train.data import Example, best_share, score_texts, select_examples, selection, target_similarity


def test_similarity_is_the_mean_cosine_to_the_nearest_targets() -> None:
    targets = np.array([[2, 0], [0, 3], [-1, 0]], np.float32)
    candidates = np.array([[5, 0], [1, 1], [0, -2], [0, 0]], np.float32)
    root = np.sqrt(0.5)
    np.testing.assert_allclose(target_similarity(candidates, targets), [1, root, 0, 0], atol=1e-6)
    np.testing.assert_allclose(target_similarity(candidates, targets, top=2), [0.5, root, 0, 0], atol=1e-6)
    mean = [0, (2 * root - root) / 3, -1 / 3, 0]
    for top in (3, 10):
        np.testing.assert_allclose(target_similarity(candidates, targets, top=top), mean, atol=1e-6)


@pytest.mark.parametrize("top", [1, 3, 7])
def test_targets_and_texts_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch, top: int) -> None:
    generator = np.random.default_rng(0)
    vectors = {f"t{number}": generator.standard_normal(6).astype(np.float32) for number in range(50)}
    targets = generator.standard_normal((23, 6)).astype(np.float32)
    sizes: list[int] = []

    def encode(texts: Sequence[str]) -> np.ndarray:
        sizes.append(len(texts))
        return np.stack([vectors[text] for text in texts])

    unit = np.stack(list(vectors.values()))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = unit @ (targets / np.linalg.norm(targets, axis=1, keepdims=True)).T
    expected = np.sort(cosines, axis=1)[:, -top:].mean(1)
    monkeypatch.setattr(selection, "_TARGETS", 5)
    monkeypatch.setattr(selection, "_TEXTS", 8)
    np.testing.assert_allclose(score_texts(iter(vectors), targets, encode=encode, top=top), expected, atol=1e-5)
    assert sizes == [8] * 6 + [2]


def test_the_best_share_keeps_the_order_and_the_first_of_equals() -> None:
    scores = np.array([0.1, 0.9, 0.5, 0.9, 0.5], np.float32)
    assert best_share(scores, 0.4) == [1, 3]
    assert best_share(scores, 0.6) == [1, 2, 3]
    assert best_share(scores, 0.01) == [1]
    assert best_share(scores, 1) == [0, 1, 2, 3, 4]
    assert best_share(np.zeros(0, np.float32), 0.5) == []
    assert best_share(np.tile(np.array([0.5, 0.25], np.float32), 500), 0.2) == list(range(0, 400, 2))


def test_examples_like_the_target_are_selected(tiny_encoder_dir: Path) -> None:
    encoder = Encoder.load(tiny_encoder_dir, device="cpu")
    examples = [Example(sentence, SENTENCES[index - 1]) for index, sentence in enumerate(SENTENCES[:6])]
    chosen = select_examples(examples, [SENTENCES[4], SENTENCES[1]], encode=encoder.encode_queries, share=1 / 3)
    assert chosen == [examples[1], examples[4]]
    chosen = select_examples(
        examples, [SENTENCES[4], SENTENCES[1]], encode=encoder.encode_documents, share=1 / 3, by="positive"
    )
    assert chosen == [examples[2], examples[5]]


def test_what_cannot_be_selected_by_is_refused() -> None:
    vectors = np.ones((2, 3), np.float32)
    with pytest.raises(TrainingError, match="no target texts"):
        select_examples([Example("a", "b")], [], encode=lambda texts: vectors[: len(texts)], share=0.5)
    with pytest.raises(UsageError, match="top is 0"):
        target_similarity(vectors, vectors, top=0)
    for share in (0, -1, 1.5):
        with pytest.raises(UsageError, match="above 0 and at most 1"):
            best_share(np.ones(3, np.float32), share)

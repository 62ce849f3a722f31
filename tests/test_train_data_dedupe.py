"""Exact and near duplicates, of texts and of examples."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ragindex.errors import UsageError
from ragindex.train.data import Example, deduplicate, deduplicate_texts, duplicate_groups
from ragindex.train.data.keys import folded, text_key
from ragindex.train.data.minhash import near_duplicate_groups

WORDS = [f"word{number}" for number in range(5000)]


def text(seed: int, count: int = 60) -> list[str]:
    return random.Random(seed).sample(WORDS, count)


def similarity(one: list[str], other: list[str]) -> float:
    grams = [{tuple(words[start : start + 5]) for start in range(len(words) - 4)} for words in (one, other)]
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def changed(words: list[str], places: int) -> list[str]:
    """`words` with that many changes at even distances."""
    result = list(words)
    for number in range(places):
        result[(2 * number + 1) * len(words) // (2 * places)] = f"other{number}"
    return result


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is  a Tide?", "what is a tide"),
        ("snake_case names", "SNAKE CASE, names"),
        ("ﬁne print № ½", "fine print No 1⁄2"),
        ("Straße", "STRASSE"),
        ("e\u0301te\u0301", "été"),
        (" « Qui ? » ", "qui"),
    ],
)
def test_case_punctuation_and_compatibility_forms_do_not_tell_texts_apart(one: str, other: str) -> None:
    assert folded(one) == folded(other)
    assert text_key(one) == text_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("a b", "ab"), ("???", "!!!"), ("résumé", "resume"), ("हिन्दी", "हिन्द"), ("tide 1", "tide 2"), ("", "?")],
)
def test_other_texts_stay_apart(one: str, other: str) -> None:
    assert folded(one) != folded(other)
    assert text_key(one) != text_key(other)


def test_exact_repeats_go_and_the_first_stays() -> None:
    texts = ["A tide.", "A gauge.", "a tide", "A  TIDE!", "a gauge of tides"]
    assert deduplicate_texts(texts, threshold=None) == [0, 1, 4]
    assert duplicate_groups(texts, threshold=None).tolist() == [0, 1, 0, 0, 4]
    assert deduplicate_texts([]) == []


def test_near_duplicates_are_found_from_the_threshold_on() -> None:
    base = text(1, 400)
    variants = {places: changed(base, places) for places in (1, 4, 30)}
    assert similarity(base, variants[1]) > similarity(base, variants[4]) > 0.88
    assert similarity(base, variants[30]) < 0.55
    texts = [" ".join(words) for words in (base, variants[1], variants[4], variants[30], text(2, 400))]
    assert duplicate_groups(texts).tolist() == [0, 0, 0, 3, 4]
    assert duplicate_groups(texts, threshold=0.4).tolist() == [0, 0, 0, 0, 4]
    assert duplicate_groups(texts, threshold=1.0).tolist() == [0, 1, 2, 3, 4]


def test_the_estimate_is_as_good_as_it_is_said_to_be() -> None:
    """Of pairs well above the threshold nearly all are found, of pairs well below it none."""
    missed = wrong = 0
    for seed in range(60):
        base = text(seed, 200)
        for places, similar in ((2, True), (12, False)):
            other = changed(base, places)
            assert (similarity(base, other) > 0.88) == similar
            assert similar or similarity(base, other) < 0.62
            found = near_duplicate_groups([" ".join(base), " ".join(other)])[1] == 0
            missed += similar and not found
            wrong += found and not similar
    assert missed <= 3
    assert wrong == 0


def test_groups_do_not_depend_on_how_many_texts_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [" ".join([*text(seed % 40, 30), f"end{seed // 200}"]) for seed in range(400)]
    whole = duplicate_groups(texts)
    monkeypatch.setattr("ragindex.train.data.minhash._SLICE", 100)
    monkeypatch.setattr("ragindex.train.data.minhash._PAIRS", 3)
    np.testing.assert_array_equal(duplicate_groups(texts), whole)
    assert sorted(set(whole.tolist())) == list(range(40))
    np.testing.assert_array_equal(duplicate_groups(texts[:200]), whole[:200])


def test_short_texts_are_repeats_only_when_they_are_equal() -> None:
    texts = ["tide", "tides", "a tide gauge", "a tide gauge works", "Tide!", "", "?", "a tide gauge"]
    assert duplicate_groups(texts).tolist() == [0, 1, 2, 3, 0, 5, 6, 2]
    # A short text is its own gram, whatever stands behind it.
    assert near_duplicate_groups(["a tide", "x", "a tide", "y"]).tolist() == [0, 1, 0, 3]


def test_an_example_repeats_another_only_when_both_sides_do() -> None:
    passage, other = " ".join(text(1)), " ".join(changed(text(1), 1))
    examples = [
        Example("what moves the sea?", passage, source="one"),
        Example("What moves the sea", other, source="two"),
        Example("who measures it?", passage),
        Example("what moves the sea?", " ".join(text(2))),
        Example("what moves the sea?", passage, ("hard",)),
    ]
    assert deduplicate(examples) == [examples[0], examples[2], examples[3]]
    assert deduplicate(examples, threshold=None) == [examples[0], examples[1], examples[2], examples[3]]


@pytest.mark.parametrize("threshold", [0, -0.5, 1.2])
def test_a_threshold_must_be_a_similarity(threshold: float) -> None:
    with pytest.raises(UsageError, match="must be above 0 and at most 1"):
        duplicate_groups(["a"], threshold=threshold)

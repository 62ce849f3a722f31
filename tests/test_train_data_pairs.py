"""Pseudo-pairs of documents: titles, headings, sentences, words and crops; what is left out; chance is repeatable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pairs_kit import GUIDE, HARBOUR, KEPT, by_query, document, essay, made

from ragindex.errors import UsageError
from ragindex.train.data import PAIR_KINDS, PairOptions, pairs, pairs_from_documents
from ragindex.train.data.keys import folded
from ragindex.train.data.prose import count_words, is_sentence
from ragindex.types import Document


def test_a_title_finds_its_passages_which_do_not_show_it(tmp_path: Path) -> None:
    first, *rest = made([document(tmp_path, "guide.md", GUIDE)], "title-section", options=PairOptions(30, 0.0))
    assert first.source == "title-section"
    assert first.query == "Tide gauges"
    assert first.positive.startswith("The float gauge at the pier")
    assert {"Cleaning the well"} <= {example.title for example in rest}
    for example in (first, *rest):
        assert "author" not in example.positive
        assert "never gets to see" not in example.positive
        assert "Tide gauges" not in f"{example.title} {example.positive}"
    kept, *_ = made([document(tmp_path, "guide.md", GUIDE)], "title-section", options=KEPT)
    assert "Tide gauges" in kept.title


def test_a_heading_finds_its_section_and_a_common_one_needs_its_title(tmp_path: Path) -> None:
    documents = [document(tmp_path, f"{n}.md", GUIDE.replace("gauges", f"gauges {n}")) for n in "abc"]
    documents.append(document(tmp_path, "harbour.md", HARBOUR))
    found = by_query(made(documents, "heading-section"))
    assert found["Harbour lights - Overview"].positive.startswith("Leading lights mark the deep channel")
    assert found["Harbour lights - Lamps"].positive.startswith("Each lantern burns")  # one word says too little
    assert "Overview" not in found
    assert not any(query.endswith("?") for query in found)
    for query, example in found.items():
        assert query not in f"{example.title}\n{example.positive}"
        assert "Harbour" not in example.title


def test_a_sentence_is_cut_out_of_its_passage(tmp_path: Path) -> None:
    guide = document(tmp_path, "guide.md", GUIDE)
    for kind in ("first-sentence", "sentence-context"):
        examples = made([guide], kind)
        assert examples
        for example in examples:
            assert example.source == kind
            assert is_sentence(example.query)
            assert folded(example.query) in folded(guide.text)
            assert folded(example.query) not in folded(example.positive)
            assert "  " not in example.positive
            assert example.title == "Tide gauges"
        for example in made([guide], kind, options=KEPT):
            assert folded(example.query) in folded(example.positive)
    assert made([guide], "first-sentence")[0].query.startswith("The float gauge at the pier")


def test_a_sentence_that_comes_back_is_no_query() -> None:
    refrain = "The old keeper of the northern light rowed home alone."
    text = f"{refrain} {essay(2)} {refrain} {essay(2, first=7)} {refrain}"
    for kind in ("first-sentence", "sentence-context"):
        queries = {example.query for seed in range(9) for example in made([Document("a.txt", text)], kind, seed=seed)}
        assert refrain not in queries
        assert queries or kind == "first-sentence"


def test_underlined_headings_are_taken_out_with_their_underlines(tmp_path: Path) -> None:
    text = f"Keepers\n=======\n\n{essay(3)}\n\nRowing home\n-----------\n\n{essay(3, first=5)}\n"
    for name in ("a.rst", "a.md"):
        examples = made([document(tmp_path, name, text)], "title-section", "words-passage", "heading-section")
        assert {example.query for example in examples} >= {"Keepers", "Rowing home"}
        assert not any("---" in example.positive or "===" in example.positive for example in examples)


def test_a_heading_under_one_that_says_nothing_makes_no_pair(tmp_path: Path) -> None:
    page = "# {}\n\n## Overview\n\n### History\n\n{}\n"
    documents = [document(tmp_path, f"{n}.md", page.format(f"Light {n}", essay(2, first=2 * n))) for n in range(4)]
    assert made(documents, "heading-section") == []


def test_the_query_stays_in_about_one_pair_of_ten() -> None:
    documents = [Document(f"{n}.txt", essay(12, first=12 * n)) for n in range(60)]
    examples = made(documents, "sentence-context", options=PairOptions())
    kept = sum(folded(example.query) in folded(example.positive) for example in examples)
    assert len(examples) == 60
    assert 1 <= kept <= 14


def test_words_are_a_few_rare_ones_near_each_other(tmp_path: Path) -> None:
    documents = [document(tmp_path, "guide.md", GUIDE), document(tmp_path, "harbour.md", HARBOUR)]
    examples = [example for seed in range(30) for example in made(documents, "words-passage", seed=seed)]
    without = 0
    for example in examples:
        words = example.query.split()
        assert 3 <= len(words) <= 12
        assert not {"the", "of", "and", "with"} & set(words)
        assert all(word in GUIDE + HARBOUR for word in words)
        present = [f" {folded(word)} " in f" {folded(example.positive)} " for word in words]
        without += not any(present)
        assert all(present) or not any(present)
    assert 0.25 < without / len(examples) < 0.75


def test_crops_are_two_spans_of_one_passage() -> None:
    text = essay(12)
    examples = [example for seed in range(20) for example in made([Document("a.txt", text)], "crop-crop", seed=seed)]
    for example in examples:
        assert example.query in text
        assert example.positive in text
        assert 8 <= count_words(example.query) <= 40
        assert count_words(example.positive) >= 2 * count_words(example.query)
    overlapping = [example.query in example.positive for example in examples]
    assert any(overlapping)
    assert not all(overlapping)


def test_lines_that_many_documents_share_are_left_out(tmp_path: Path) -> None:
    menu = "Home Products Prices Contact the harbour office for the prices of all our products today."
    documents = [document(tmp_path, f"{n}.md", f"{menu}\n\n{essay(9, first=9 * n)}\n\n{menu}\n") for n in range(6)]
    for example in made(documents):
        if example.source not in {"heading-section", "title-section"}:
            assert "Prices Contact" not in example.query
        assert "Prices Contact" not in example.positive
    alone = made(documents[:1], "sentence-context", "first-sentence", "crop-crop")
    assert any("Prices Contact" in f"{example.query} {example.positive}" for example in alone)


def test_the_same_seed_makes_the_same_pairs_whatever_else_is_asked_for(tmp_path: Path) -> None:
    documents = [document(tmp_path, "guide.md", GUIDE), document(tmp_path, "harbour.md", HARBOUR)]
    examples = made(documents, seed=3, options=PairOptions())
    assert examples == made(documents, seed=3, options=PairOptions())
    assert examples != made(documents, seed=4, options=PairOptions())
    for kind in PAIR_KINDS:
        alone = made(documents, kind, seed=3, options=PairOptions())
        assert alone == [example for example in examples if example.source == kind]
    turned = made(documents[::-1], seed=3, options=PairOptions())
    assert Counter(map(repr, turned)) == Counter(map(repr, examples))


def test_passages_and_pairs_are_bounded(tmp_path: Path) -> None:
    book = "\n\n".join(essay(4, first=4 * n) for n in range(300))
    long = document(tmp_path, "book.txt", book)
    examples = made([long], options=PairOptions(words=60, per_document=7))
    counts = Counter(example.source for example in examples)
    assert counts["sentence-context"] == counts["words-passage"] == counts["crop-crop"] == 7
    assert max(counts.values()) == 7
    assert max(count_words(example.positive) for example in examples) <= 60
    assert len(made([long], "sentence-context", options=PairOptions(words=60, per_document=1000))) > 150
    spread = {
        book.find(example.positive[:40]) * 10 // len(book) for example in examples if example.source == "crop-crop"
    }
    assert len(spread) > 2  # not only the beginning of the book


def test_documents_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "_SAMPLE_DOCUMENTS", 2)
    taken: list[int] = []

    def source() -> Iterator[Document]:
        for number in range(5):
            taken.append(number)
            yield Document(f"{number}.md", document(tmp_path, f"{number}.md", GUIDE).text)

    examples = pairs_from_documents(source(), kinds=["sentence-context"], seed=0)
    next(examples)
    assert taken == [0, 1]
    assert len(list(examples)) >= 4
    assert taken == [0, 1, 2, 3, 4]


def test_copies_and_a_few_versions_of_a_document_are_not_boilerplate() -> None:
    text = essay(9).replace(". ", ".\n")
    copies = [Document(f"{n}.txt", text) for n in range(8)]
    assert len(made(copies, "sentence-context")) == 8
    versions = [Document(f"{n}.txt", f"{text}\nVersion {n}.") for n in range(4)]
    assert len(made(versions, "sentence-context")) == 4


def test_a_title_of_many_documents_is_no_query(tmp_path: Path) -> None:
    page = "# Lights of the coast\n\n## History\n\n{}\n"
    documents = [document(tmp_path, f"{n}.md", page.format(essay(9, first=9 * n))) for n in range(9)]
    assert made(documents, "title-section", "heading-section") == []
    assert len(made(documents[:4], "title-section")) == 4


def test_unknown_kinds_and_options_are_refused() -> None:
    with pytest.raises(UsageError, match="no kind of pair called 'titles'; known are title-section"):
        pairs_from_documents([], kinds=["titles"])
    for options in ({"words": 5}, {"keep": 1.5}, {"per_document": 0}):
        with pytest.raises(UsageError, match="Pairs need"):
            PairOptions(**options)

"""What pairs are made of in any script, and of what none are made: words, sentences, marks, junk."""

from __future__ import annotations

from pathlib import Path

import pytest
from pairs_kit import document, essay, made

from ragindex.train.data.prose import count_words, is_prose, plain, sentences, shortened
from ragindex.types import Document

JUNK = """\
# Tables

| Height | Time |
| 1.234 | 12:45 |

1.23 4.56 7.89 10.11 12.13 14.15 16.17 18.19 20.21 22.23 24.25 26.27 28.29 30.31 32.33 34.35 36.37 38.39 40.41

Copyright 2021 by the harbour board and its many members. All rights reserved by the harbour board and its members.

```
while gauge.ready: level = gauge.read(); print(level); log.write(level); gauge.reset(); gauge.sleep(60)
```
"""


def test_numbers_code_and_licences_are_not_asked_for(tmp_path: Path) -> None:
    kinds = ("first-sentence", "sentence-context", "title-section", "heading-section", "question-answer")
    assert made([document(tmp_path, "junk.md", JUNK)], *kinds, "term-definition") == []


@pytest.mark.parametrize("text", ["", " \n\t\n", "word", "\ufffd" * 50, "---\n---\n", "# Only a title\n", "```\nopen"])
def test_documents_with_nothing_to_say_make_no_pairs(text: str) -> None:
    assert made([Document("a.md", text)]) == []


def test_scripts_without_spaces_make_pairs(tmp_path: Path) -> None:
    text = (
        "# 潮位計\n\n潮位計は海面の高さを記録する装置である。防波堤の井戸の中の浮きが水面とともに上下する。"
        "記録は六分ごとに本部へ送られる。嵐のときは水位がゆっくりと上がり、数時間のあいだ続く。"
        "技術者は毎年春に基準点から測り直す。貝が管をふさぐと記録は平らになる。\n"
    )
    examples = made([document(tmp_path, "ja.md", text)])
    found = {example.source for example in examples}
    assert {"title-section", "first-sentence", "sentence-context", "words-passage", "crop-crop"} <= found
    for example in examples:
        if example.source in {"first-sentence", "sentence-context"}:
            assert example.query.endswith("。")
            assert example.query not in example.positive


def test_words_with_vowel_signs_stay_whole(tmp_path: Path) -> None:
    text = (
        "ज्वार मापी समुद्र की ऊँचाई को लगातार लिखता रहता है। घाट के कुएँ में एक पीपा पानी के साथ ऊपर नीचे चलता है। "
        "हर छह मिनट पर एक नया अंक मुख्यालय को भेजा जाता है। तूफ़ान के समय पानी घंटों तक धीरे धीरे बढ़ता रहता है।\n"
    )
    assert is_prose(text)
    assert count_words("हिन्दी में ज्वार") == 3
    words = {word.strip("।") for word in text.split()}
    for seed in range(9):
        for example in made([document(tmp_path, "hi.txt", text)], "words-passage", "crop-crop", seed=seed):
            assert {word.strip("।") for word in example.query.split()} <= words


def test_text_without_sentences_loses_a_run_of_words() -> None:
    words = essay(4).replace(".", "").split()
    (example,) = made([Document("1", " ".join(words))], "sentence-context")
    run = example.query.split()
    assert 6 <= len(run) <= 12
    first = " ".join(words).index(example.query)
    assert example.positive == f"{' '.join(words)[: first - 1]}{' '.join(words)[first + len(example.query) :]}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("## A *fine* [link](http://x.y/z \"t\") and `code`", "A fine link and code"),
        ("- [ ] **bold** item\n  goes on", "bold item goes on"),
        ("3. `Text <http://x>`_ and :func:`~a.b` with ``snake_case_name``", "Text and a.b with snake_case_name"),
        ("A * b * c stays, and so does __init__.py of x_1", "A * b * c stays, and so does init.py of x_1"),
    ],
)  # fmt: skip
def test_marks_are_taken_out(text: str, expected: str) -> None:
    assert plain(text) == expected


def test_sentences_are_those_of_paragraphs_and_items() -> None:
    text = (
        "# Heading of it\nOne ends here. Two goes\non here!\n\n- An item. And more\n- Next\n\n```\nno. code.\n```\n"
        "**Bold line.**\n| a. | b. |\nLast e.g. this one.\n"
    )
    found = [text[span.start : span.end] for span in sentences(text)]
    assert found == ["One ends here.", "Two goes\non here!", "An item.", "And more", "Next", "Last e.g. this one."]


def test_a_text_is_shortened_at_a_sentence_where_there_is_one() -> None:
    text = "One two three four. Five six seven eight. Nine ten eleven twelve."
    assert shortened(text, 99) == text
    assert shortened(text, 10) == "One two three four. Five six seven eight."
    assert shortened("one two three four five six", 4) == "one two three four"
    assert is_prose(shortened(text, 8))

"""Folding hits that overlap or repeat each other, and choosing different ones."""

from __future__ import annotations

import numpy as np
import pytest

from ragindex.search.diversity import diversified
from ragindex.search.merging import Candidate, merge
from ragindex.store.rows import ChunkRow

TEXT = " ".join(f"word{number}" for number in range(400)) + "\nlast line"


def candidate(
    number: int, start: int, end: int, *, document: int = 1, text: str = TEXT, score: float = 1.0
) -> Candidate:
    row = ChunkRow(
        chunk_id=number,
        document_id=document,
        path=f"{document}.txt",
        title="",
        heading=(),
        page=None,
        line_start=1 + text[:start].count("\n"),
        line_end=1 + text[:end].count("\n"),
        start=start,
        end=end,
        text=text[start:end],
        metadata={},
        ordinal=number,
        tokens=10,
    )
    return Candidate(row, score)


def ids(found) -> list[int]:
    return [item.row.chunk_id for item in found]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_overlapping_spans_become_one_that_is_still_the_text(order):
    spans = {1: (100, 300), 2: (250, 500)}
    found = merge([candidate(number, *spans[number]) for number in order], 5)
    assert ids(found) == [order[0]]
    row = found[0].row
    assert (row.start, row.end, found[0].merged) == (100, 500, (order[1],))
    assert row.text == TEXT[100:500]


def test_span_within_a_span():
    found = merge([candidate(1, 100, 500), candidate(2, 200, 300)], 5)
    assert (found[0].row.text, found[0].merged) == (TEXT[100:500], (2,))
    found = merge([candidate(2, 200, 300), candidate(1, 100, 500)], 5)
    assert (found[0].row.text, found[0].merged) == (TEXT[100:500], (1,))


def test_lines_of_a_merged_hit_are_those_of_its_ends():
    found = merge([candidate(2, len(TEXT) - 100, len(TEXT)), candidate(1, 0, len(TEXT) - 50)], 5)
    assert (found[0].row.line_start, found[0].row.line_end) == (1, 2)


def test_a_hit_spans_three_chunks_at_most():
    chain = [candidate(number, number * 80, number * 80 + 100) for number in range(8)]
    found = merge(chain, 8)
    assert all(item.row.text == TEXT[item.row.start : item.row.end] for item in found)
    assert max(len(item.merged) for item in found) == 2
    assert len(found) < 8


def test_spans_that_touch_or_lie_apart_stay_apart():
    found = merge([candidate(1, 0, 100), candidate(2, 100, 200), candidate(3, 900, 1000)], 5)
    assert ids(found) == [1, 2, 3]


def test_near_duplicates_of_other_documents_are_folded_and_others_are_not():
    other = TEXT.replace("word200 ", "changed ")
    found = merge(
        [
            candidate(1, 0, len(TEXT)),
            candidate(2, 0, len(TEXT), document=2),
            candidate(3, 0, len(other), document=3, text=other),
            candidate(4, 0, len(TEXT) // 2, document=4),
            candidate(5, 0, 5, document=5, text="alpha"),
            candidate(6, 0, 5, document=6, text="ALPHA"),
            candidate(7, 0, 4, document=7, text="beta"),
        ],
        10,
    )
    assert ids(found) == [1, 4, 5, 7]
    assert found[0].merged == (2, 3)
    assert found[0].row.text == TEXT
    assert found[2].merged == (6,)


def test_copies_take_no_room_from_neighbours():
    copies = [candidate(number, 0, 900, document=number) for number in (2, 3, 4)]
    found = merge([candidate(1, 0, 900), *copies, candidate(5, 800, 1700), candidate(6, 1600, 2400)], 5)
    assert ids(found) == [1]
    assert found[0].merged == (2, 3, 4, 5, 6)
    assert found[0].row.text == TEXT[:2400]


def test_what_a_document_says_twice_is_one_hit():
    """A log, a form, a licence text: the same lines over and over."""
    same = "Nothing new was seen on the watch from eight to twelve, and the tide was low. "
    log = same * 20 + "At noon a sail came up in the west, and everybody was called on deck to look at it."
    spans = [(n * len(same), (n + 1) * len(same)) for n in (0, 2, 4, 6, 8)] + [(20 * len(same), len(log))]
    found = merge([candidate(n, *span, text=log) for n, span in enumerate(spans, 1)], 5)
    assert ids(found) == [1, 6]
    assert found[0].merged == (2, 3, 4, 5)
    assert found[0].row.text == same  # its own place is cited
    # Copies that overlap as well, as the chunks of a long line do: three become one span, the others its copies.
    line = "x" * 1000
    found = merge([candidate(n, n * 90, n * 90 + 100, text=line) for n in range(6)], 5)
    assert [(item.row.start, item.row.end) for item in found] == [(0, 280)]
    assert found[0].merged == (1, 2, 3, 4, 5)


def test_limit_counts_what_remains_and_folds_what_follows_up_to_the_next_new_one():
    found = merge([candidate(n, n * 1000 % 2500, n * 1000 % 2500 + 10, document=n) for n in range(1, 9)], 3)
    assert len(found) == 3
    assert merge([], 3) == []


def test_diversity_zero_is_the_order_of_scores_and_more_of_it_avoids_repeats():
    vectors = np.array([[1, 0], [1, 0], [0.999, 0.0447], [0, 1]], np.float32)
    scores = np.array([1.0, 0.99, 0.98, 0.5], np.float32)
    assert diversified(scores, vectors, diversity=0.0, count=4) == [0, 1, 2, 3]
    assert diversified(scores, vectors, diversity=0.7, count=2) == [0, 3]
    assert sorted(diversified(scores, vectors, diversity=1.0, count=9)) == [0, 1, 2, 3]
    assert diversified(np.ones(3, np.float32), vectors[:3], diversity=0.5, count=2)[0] == 0
    assert diversified(scores[:0], vectors[:0], diversity=0.5, count=2) == []

"""Folding hits that overlap or repeat each other, choosing different ones, and the block for a prompt."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny_encoder

from ragindex.encoder import Encoder
from ragindex.errors import UsageError
from ragindex.search.context import render_context
from ragindex.search.diversity import diversified
from ragindex.search.merging import Candidate, merge
from ragindex.store.rows import ChunkRow
from ragindex.types import Hit, Scores

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


@pytest.fixture(scope="module", params=["wordpiece", "bpe"])
def encoder(request, tmp_path_factory):
    return Encoder.load(str(tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny", tokenizer=request.param)))


def hit(rank: int, text: str, **changes: object) -> Hit:
    values = {
        "rank": rank,
        "score": 1.0,
        "scores": Scores(),
        "path": f"docs/{rank}.md",
        "title": "A title",
        "heading": (),
        "page": None,
        "line_start": rank,
        "line_end": rank + 2,
        "char_start": 0,
        "char_end": len(text),
        "chunk_id": rank,
        "text": text,
        "metadata": {},
    }
    return Hit(**(values | changes))


HITS = [
    hit(1, "\n  Rotate the signing key every ninety days.\n\n", heading=("Keys", "Rotation")),
    hit(2, "Restore a backup, \n\n\n\nstop the service; 漢字 🦓 naïve. " * 20),
    hit(3, "Short.", page=4, title=""),
]


@pytest.mark.parametrize("tokens", [16, 17, 31, 60, 90, 111, 200, 333, 5000])
def test_context_never_exceeds_its_budget(encoder, tokens):
    block = render_context(HITS, tokens=tokens, spans=encoder.tokenizer.offsets)
    assert encoder.tokenizer.count(block) <= tokens


def test_context_is_numbered_cited_and_whole_where_there_is_room(encoder):
    block = render_context(HITS, tokens=5000, spans=encoder.tokenizer.offsets)
    assert block.startswith("[1] docs/1.md:1-3 — Keys > Rotation\nRotate the signing key every ninety days.\n")
    assert "\n\n[2] docs/2.md:2-4 — A title\nRestore" in block
    assert block.endswith("\n\n[3] docs/3.md, page 4\nShort.\n")
    assert "…" not in block


def test_context_cuts_the_first_that_does_not_fit_and_stops_there(encoder):
    whole = encoder.tokenizer.count(render_context(HITS[:2], tokens=5000, spans=encoder.tokenizer.offsets))
    block = render_context(HITS, tokens=whole - 20, spans=encoder.tokenizer.offsets)
    assert block.endswith(" …\n")
    assert "[2]" in block
    assert "[3]" not in block
    assert encoder.tokenizer.count(block) > whole - 40


def test_context_of_nothing_and_of_too_little(encoder):
    assert render_context([], tokens=100, spans=encoder.tokenizer.offsets) == ""
    assert render_context([hit(1, "word " * 500, path="x" * 300)], tokens=16, spans=encoder.tokenizer.offsets) == ""
    with pytest.raises(UsageError, match="at least 16"):
        render_context(HITS, tokens=3, spans=encoder.tokenizer.offsets)

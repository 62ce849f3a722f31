from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ragindex.chunking import ChunkOptions, TokenCounter, chunk, packing
from ragindex.chunking.boundaries import sentence_ends, whole_character
from ragindex.chunking.packing import LEAST_ROOM
from ragindex.chunking.titles import title_line
from ragindex.chunking.tokens import LONGEST_TOKEN, WINDOW, TokenMap
from ragindex.errors import UsageError
from ragindex.types import Block, BlockKind, Chunk, Document

TRAINING = [
    "The quick brown fox jumps over the lazy dog. Numbers 12 345 and naïve café, über alles!",
    "a b c d e f g",
] * 3


class Words:
    """One token per run of characters that are not white space."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def offsets(self, text: str) -> NDArray[np.int64]:
        self.sizes.append(len(text))
        return np.array([match.span() for match in re.finditer(r"\S+", text)], np.int64).reshape(-1, 2)


class Trained:
    """A real tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def offsets(self, text: str) -> NDArray[np.int64]:
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return np.array(offsets, np.int64).reshape(-1, 2)


@cache
def counter(kind: str) -> TokenCounter:
    if kind == "words":
        return Words()
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=["[UNK]"], show_progress=False)
    else:
        tokenizer = Tokenizer(models.BPE())
        if kind == "bytes":
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
            alphabet = pre_tokenizers.ByteLevel.alphabet()
        else:
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
            tokenizer.decoder = decoders.Metaspace()
            alphabet = []
        trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TRAINING, trainer)
    return Trained(tokenizer)


def overhead(title: str, heading: tuple[str, ...]) -> int:
    return 2 + len(title.split()) + sum(len(part.split()) for part in heading)


def cut(text: str, budget: int = 20, overlap: int = 0, blocks: tuple[Block, ...] = ()) -> list[Chunk]:
    document = Document(path="a", text=text, blocks=blocks)
    return chunk(document, ChunkOptions(budget, overlap), Words(), lambda title, heading: 0)


def sentences(count: int, words: int = 5) -> str:
    return " ".join(f"S{number} " + "word " * (words - 2) + "end." for number in range(count))


def blocks_of(*parts: tuple[str, BlockKind, tuple[str, ...]]) -> Document:
    text, blocks = "", []
    for body, kind, heading in parts:
        blocks.append(Block(len(text), len(text) + len(body), kind, heading))
        text += body + "\n\n"
    return Document(path="a", text=text, blocks=tuple(blocks))


_pieces = st.sampled_from(
    [
        "word ",
        "The quick ",
        "fox. ",
        "\n",
        "\n\n",
        "  ",
        "é",
        "e\u0301",
        "漢字。",
        "👩‍👩‍👧",
        "xyz" * 7,
        "$",
        "\x00",
        "\u200b",
        "a, b; ",
    ]
)
_texts = st.lists(_pieces, max_size=80).map("".join) | st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
_headings = st.sampled_from([(), ("A",), ("A", "B"), ("A", "long heading of many words " * 4), ("C",)])
_kinds: st.SearchStrategy[BlockKind] = st.sampled_from(["prose", "code", "table", "list", "heading"])


@st.composite
def _documents(draw: st.DrawFn) -> Document:
    text = draw(_texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    ends = [*cuts[1:], len(text)] if cuts else []
    blocks = tuple(
        Block(a, b, draw(_kinds), draw(_headings)) for a, b in zip(cuts, ends, strict=True) if draw(st.booleans())
    )
    return Document(
        path="a", text=text, title=draw(st.sampled_from(["", "A Title"])), blocks=blocks, page_starts=(0, 40)
    )


@pytest.mark.parametrize("kind", ["words", "wordpiece", "bytes", "metaspace"])
@given(document=_documents(), budget=st.integers(16, 60), overlap=st.integers(0, 7))
@settings(max_examples=150, deadline=None)
def test_spans_are_exact_complete_and_within_budget(kind: str, document: Document, budget: int, overlap: int) -> None:
    tokens = counter(kind)
    chunks = chunk(document, ChunkOptions(budget, overlap), tokens, overhead)
    covered = set[int]()
    previous = 0
    for number, piece in enumerate(chunks):
        assert piece.ordinal == number
        assert piece.text == document.text[piece.start : piece.end] == piece.text.strip() != ""
        cost = overhead(document.title, piece.heading)
        own = len(tokens.offsets(piece.text))
        assert piece.tokens == cost + own
        assert own <= max(LEAST_ROOM, budget - cost)
        assert piece.end > previous
        previous = piece.end
        assert piece.line_start == document.line_at(piece.start) <= piece.line_end == document.line_at(piece.end - 1)
        assert piece.page == document.page_at(piece.start)
        covered.update(range(piece.start, piece.end))
    assert all(index in covered for index, letter in enumerate(document.text) if not letter.isspace())


@given(document=_documents(), budget=st.integers(16, 60))
@settings(max_examples=100, deadline=None)
def test_without_overlap_chunks_are_disjoint(document: Document, budget: int) -> None:
    chunks = chunk(document, ChunkOptions(budget), counter("bytes"), overhead)
    assert all(left.end <= right.start for left, right in pairwise(chunks))


def test_the_recount_is_what_keeps_chunks_within_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte-level tokenizer adds a space in front of each text: what filled the budget exactly is one token over."""
    text = "z" * 400
    tokens = counter("bytes")

    def longest() -> int:
        pieces = chunk(Document(path="a", text=text), ChunkOptions(16), tokens, lambda title, heading: 0)
        return max(len(tokens.offsets(piece.text)) for piece in pieces)

    assert longest() <= 16

    def trusting(self: packing._Packer, start: int, end: int) -> packing._Span:
        return packing._Span(start, end, 0)

    monkeypatch.setattr(packing._Packer, "_counted", trusting)
    assert longest() > 16


def test_sentences_stay_whole_where_they_can() -> None:
    chunks = cut(sentences(30, words=6), budget=20)
    assert all(piece.text.endswith("end.") and piece.text.startswith("S") for piece in chunks)
    assert max(piece.tokens for piece in chunks) == 18


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?"]),
        ("Dr. Smith met J. Doe at 3.5 km, e.g. here. Then", ["Dr. Smith met J. Doe at 3.5 km, e.g. here."]),
        ("a:\n1. first\n2. second. third", ["a:\n1. first\n2. second."]),
        ('He said "stop." Then (so.) "Go!" x', ['He said "stop."', "Then (so.)", '"Go!"']),
        ("一句话。二句话！？三「对。」四", ["一句话。", "二句话！？", "三「对。」"]),
        ("wait... what. ", ["wait...", "what."]),
        ("lower case. is common. in web text", ["lower case.", "is common."]),
    ],
)
def test_sentence_ends(text: str, expected: list[str]) -> None:
    found, start = [], 0
    for end in sentence_ends(text, 0, len(text)):
        found.append(text[start:end].strip())
        start = end
    assert found == expected


def test_paragraphs_end_chunks_before_sentences_do() -> None:
    text = "\n\n".join(sentences(2, words=6) for _ in range(6))
    assert all(piece.text.count("end.") == 2 for piece in cut(text, budget=20))


def test_no_last_chunk_is_a_scrap() -> None:
    for words in range(17, 160):
        text = " ".join(f"w{number}" for number in range(words))
        sizes = [piece.tokens for piece in cut(text, budget=16)]
        assert min(sizes) >= 8, (words, sizes)


def test_overlap_repeats_whole_sentences_of_prose() -> None:
    chunks = cut(sentences(40), budget=30, overlap=12)
    for left, right in pairwise(chunks):
        shared = left.text[right.start - left.start :]
        assert shared.startswith("S")
        assert shared.endswith("end.")
        assert 5 <= len(shared.split()) <= 12


def test_overlap_falls_back_to_words_and_never_exceeds_its_size() -> None:
    text = " ".join(f"w{number}" for number in range(300))
    chunks = cut(text, budget=30, overlap=7)
    overlaps = [len(left.text[right.start - left.start :].split()) for left, right in pairwise(chunks)]
    assert set(overlaps) == {7}


@pytest.mark.parametrize("kind", ["code", "table", "list"])
def test_overlap_is_for_prose_only(kind: BlockKind) -> None:
    text = "\n".join(f"row {number} a b c" for number in range(50))
    chunks = cut(text, budget=22, overlap=10, blocks=(Block(0, len(text), kind),))
    assert len(chunks) > 5
    assert all(left.end < right.start for left, right in pairwise(chunks))
    assert all(piece.text.startswith("row") and piece.text.endswith("c") for piece in chunks)


def test_prose_after_code_repeats_no_code() -> None:
    code, prose = "\n".join(["call(one, two, three)"] * 4), sentences(6)
    chunks = chunk(
        blocks_of((code, "code", ()), (prose, "prose", ())), ChunkOptions(16, 6), Words(), lambda title, heading: 0
    )
    assert not any("call" in piece.text and "S1" in piece.text for piece in chunks)


def test_text_that_costs_more_alone_than_in_its_window_still_advances() -> None:
    class Moody(Words):
        def offsets(self, text: str) -> NDArray[np.int64]:
            if len(text) > 400:
                return super().offsets(text)
            return np.array([(index, index + 1) for index in range(len(text))], np.int64).reshape(-1, 2)

    text = "words " * 200
    chunks = chunk(Document(path="a", text=text), ChunkOptions(16, 7), Moody(), lambda title, heading: 0)
    assert "".join(piece.text.replace(" ", "") for piece in chunks) == "words" * 200
    assert max(piece.tokens for piece in chunks) <= 16


def test_code_is_cut_at_blank_lines() -> None:
    text = "\n\n\n".join(f"def f{number}(a):\n    b = a\n\n    return b" for number in range(20))
    chunks = cut(text, budget=30, blocks=(Block(0, len(text), "code"),))
    assert len(chunks) > 3
    assert all(re.search(r"\n\s*\n\s*$", text[: piece.start]) for piece in chunks[1:])


def test_blocks_stay_whole_and_are_packed() -> None:
    document = blocks_of(*[(" ".join(["w"] * size), "prose", ("A",)) for size in (5, 5, 12, 3, 18, 4)])
    chunks = chunk(document, ChunkOptions(20), Words(), lambda title, heading: 0)
    starts, ends = {b.start for b in document.blocks}, {b.end for b in document.blocks}
    assert all(piece.start in starts and piece.end in ends for piece in chunks)
    assert len(chunks) == 4


def test_large_sections_do_not_share_a_chunk_and_small_relatives_do() -> None:
    body = sentences(3)
    separate = blocks_of((body, "prose", ("A", "B")), (body, "prose", ("A", "C")))
    relatives = blocks_of(("few words.", "prose", ("A", "B")), (body, "prose", ("A", "C")))
    strangers = blocks_of(("few words.", "prose", ("A",)), (body, "prose", ("C",)))
    tiny = blocks_of(("few words.", "prose", ("A",)), ("and more.", "prose", ("C",)))
    free: packing.Overhead = lambda title, heading: 0  # noqa: E731

    def headings(document: Document) -> list[tuple[str, ...]]:
        return [piece.heading for piece in chunk(document, ChunkOptions(40), Words(), free)]

    assert headings(separate) == [("A", "B"), ("A", "C")]
    assert headings(relatives) == [("A",)]
    assert headings(strangers) == [("A",), ("C",)]
    assert headings(tiny) == [()]


@pytest.mark.parametrize("own", [(), ("Keys",)])
def test_a_heading_goes_with_what_it_heads(own: tuple[str, ...]) -> None:
    body = sentences(3)
    document = blocks_of(
        (body, "prose", ("Intro",)), ("# Keys", "heading", own), (body, "prose", ("Keys",)), (body, "prose", ("Keys",))
    )
    chunks = chunk(document, ChunkOptions(20), Words(), lambda title, heading: 0)
    assert [piece.text.split("\n")[0] for piece in chunks[:2]] == [body, "# Keys"]
    assert [piece.heading for piece in chunks] == [("Intro",), ("Keys",), ("Keys",)]


def test_text_outside_of_blocks_is_kept() -> None:
    text = "before\n\ninside\n\nafter"
    chunks = cut(text, blocks=(Block(8, 14, "code"), Block(10, 99, "prose")))
    assert chunks[0].text == text


def test_long_headings_leave_room_for_text() -> None:
    document = Document(path="a", text=sentences(20))
    chunks = chunk(document, ChunkOptions(64, 16), Words(), lambda title, heading: 1000)
    assert all(len(piece.text.split()) <= LEAST_ROOM for piece in chunks)
    assert chunks[0].tokens == 1000 + len(chunks[0].text.split())


def test_empty_and_blank_documents_have_no_chunks() -> None:
    assert cut("") == []
    assert cut(" \n\u3000\t ") == []


def test_characters_stay_whole() -> None:
    family = "👩‍👩‍👧"
    chunks = chunk(Document(path="a", text=family * 60), ChunkOptions(40), counter("bytes"), lambda title, heading: 0)
    assert all(set(re.split(family, piece.text)) == {""} for piece in chunks)
    assert whole_character("ae\u0301b", 2, 0) == 1
    assert whole_character("e" + "\u0301" * 100, 50, 0) == 50


def test_an_unbroken_line_of_unknown_letters_is_not_one_chunk() -> None:
    chunks = chunk(
        Document(path="a", text="Z" * 20_000), ChunkOptions(32), counter("wordpiece"), lambda title, heading: 2
    )
    assert max(len(piece.text) for piece in chunks) <= 30 * LONGEST_TOKEN


def test_a_character_that_cannot_fit_is_an_error() -> None:
    class Costly:
        def offsets(self, text: str) -> NDArray[np.int64]:
            return np.array([(i, i + 1) for i in range(len(text)) for _ in range(50)], np.int64).reshape(-1, 2)

    with pytest.raises(UsageError, match="raise the chunk size"):
        chunk(Document(path="a", text="ab"), ChunkOptions(20), Costly(), lambda title, heading: 0)


@pytest.mark.parametrize("options", [(15, 0), (64, 32), (64, -1)])
def test_options_that_make_no_sense_are_refused(options: tuple[int, int]) -> None:
    with pytest.raises(UsageError):
        ChunkOptions(*options)


class Stripes:
    """A token per eight characters: costs nothing, so that size is all that a test sees."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def offsets(self, text: str) -> NDArray[np.int64]:
        self.sizes.append(len(text))
        starts = np.arange(0, len(text), 8)
        return np.stack([starts, np.minimum(starts + 8, len(text))], axis=1)


@pytest.mark.parametrize("unit", ["x", "word ", "end. ", ".", "é", " .\u0301"])
def test_one_line_of_fifty_megabytes_costs_linear_work(unit: str) -> None:
    size = 50_000_000 if unit == "word " else 3_000_000
    text = unit * (size // len(unit))
    tokens = Stripes()
    chunks = chunk(Document(path="a", text=text), ChunkOptions(4096, 64), tokens, lambda title, heading: 0)
    assert max(tokens.sizes) <= WINDOW
    assert sum(tokens.sizes) <= 4 * len(text)
    assert len(chunks) <= 2 * len(text) / (4096 * 8) + 1
    assert chunks[-1].end == len(text.rstrip())


def test_the_token_map_agrees_with_one_pass() -> None:
    text = sentences(20_000)
    assert len(text) > 4 * WINDOW
    estimate = TokenMap(text, Words())
    whole = Words().offsets(text)
    assert estimate.count(0, len(text)) == len(whole)
    assert estimate.advance(int(whole[100, 0]), 7, len(text)) == whole[107, 0]
    assert estimate.retreat(int(whole[100, 0]), 7, 0) == whole[93, 0]


def _lines(chunks: list[Chunk]) -> Iterator[str]:
    for piece in chunks:
        yield f"{piece.line_start}-{piece.line_end}"


def test_lines_and_pages_are_those_of_the_span() -> None:
    text = "\n\n".join(sentences(3) for _ in range(4))
    document = Document(path="a", text=text, page_starts=(0, len(text) // 2))
    chunks = chunk(document, ChunkOptions(20), Words(), lambda title, heading: 0)
    assert list(_lines(chunks)) == ["1-1", "3-3", "5-5", "7-7"]
    assert [piece.page for piece in chunks] == [1, 1, 2, 2]


def test_a_title_line_names_each_part_once_and_drops_the_outermost() -> None:
    assert title_line("Handbook", ("HANDBOOK", "Travel\n by  rail", "")) == "Handbook > Travel by rail"
    assert title_line("", ("Travel", "Handbook", "Travel")) == "Travel > Handbook > Travel"
    assert title_line("", ()) == title_line(" ", ("\n",)) == ""
    assert title_line("Handbook", ("Travel", "Rail"), fits=lambda line: len(line) < 15) == "Travel > Rail"
    assert title_line("Handbook", ("Travel", "Rail"), fits=lambda _: False) == "Rail"

"""Mining: which passages become negatives, which are taken for unlabelled answers, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from index_kit import open_index, write
from tiny import SENTENCES, tiny_encoder

from ragindex.cli import main
from ragindex.encoder import Encoder
from ragindex.errors import TrainingError, UsageError
from ragindex.train import mining
from ragindex.train.data.examples import Example, read_examples, write_examples
from ragindex.train.embedder import Candidate, Embedder, candidate
from ragindex.train.mining import Mined, MiningOptions, MiningReport, mine
from ragindex.train.mining_rules import drawn, overlap, score_limit, soft_scores
from ragindex.train.sources import Found, PassagePool, StorePassages, positives_of, read_passages

QUERY, ANSWER = "how often is the key rotated", SENTENCES[0]


@pytest.fixture(scope="module")
def encoder(tiny_encoder_dir: Path) -> Encoder:
    return Encoder.load(tiny_encoder_dir, device="cpu")


@dataclass
class Listed:
    """A source that finds the same for every query: texts with their cosines, and their BM25 if it is asked."""

    scores: Mapping[str, float]
    words: Mapping[str, float] | None = None
    documents: Mapping[str, str] | None = None
    titles: Mapping[str, str] | None = None

    def find(self, examples: Sequence[Example], vectors: np.ndarray, *, depth: int, lexical: bool) -> list[Found]:
        found = [
            candidate(text, title=(self.titles or {}).get(text, ""), document=(self.documents or {}).get(text, ""))
            for text in self.scores
        ]
        words = [(self.words or {}).get(text, np.nan) for text in self.scores]
        return [Found(found, np.array(list(self.scores.values())), np.array(words)) for _ in examples]


def mined(
    source: Listed,
    encoder: Encoder,
    *examples: Example,
    guide: Encoder | None = None,
    **options: object,
) -> list[Mined]:
    chosen = MiningOptions(**{"negatives": 2} | options)
    return list(mine(examples or [Example(QUERY, ANSWER)], source, encoder=encoder, guide=guide, options=chosen))


def texts(count: int) -> list[str]:
    """Texts that share no run of five words."""
    return [f"{sentence} Number {number}." for number, sentence in enumerate(SENTENCES[1:], 1)][:count]


# The positive's cosine in these lists is 0.8, so 0.95 of it is 0.76.
A, B, C, D, E = texts(5)
LIST = {ANSWER: 0.8, A: 0.9, B: 0.77, C: 0.75, D: 0.5, E: 0.2}


def test_the_nearest_below_a_share_of_the_positive_are_taken(encoder: Encoder) -> None:
    (item,) = mined(Listed(LIST), encoder)
    assert item.example == Example(QUERY, ANSWER, negatives=(C, D))
    assert (item.found, item.dropped) == (2, {"margin": 2})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"share": None}, (A, B)),
        ({"share": 0.97}, (B, C)),  # 0.776
        ({"share": None, "margin": 0.04}, (C, D)),  # 0.76
        ({"share": None, "margin": 0.3}, (E,)),  # 0.5 is not below 0.5
        ({"share": None, "limit": 0.6}, (D, E)),
        ({"limit": 0.6}, (D, E)),  # the stricter rule counts
        ({"skip": 1}, (C, D)),  # A was too near anyway
        ({"skip": 3}, (D, E)),
        ({"negatives": 1}, (C,)),
        ({"negatives": 9}, (C, D, E)),
    ],
    ids=str,
)
def test_rules_for_the_score(options: dict[str, object], expected: tuple[str, ...], encoder: Encoder) -> None:
    assert mined(Listed(LIST), encoder, **options)[0].example.negatives == expected


def test_score_limits() -> None:
    assert score_limit(0.8, MiningOptions()) == pytest.approx(0.76)
    assert score_limit(0.8, MiningOptions(margin=0.1)) == pytest.approx(0.7)
    assert score_limit(0.8, MiningOptions(share=0.5, limit=0.3)) == pytest.approx(0.3)
    assert score_limit(0.8, MiningOptions(share=None)) == np.inf
    assert score_limit(-0.2, MiningOptions()) == pytest.approx(-0.21)  # 0.95 of it would lie above it


def test_positives_of_the_same_query_are_no_negatives(encoder: Encoder) -> None:
    examples = [Example(QUERY, ANSWER), Example(f"{QUERY.upper()}?", C), Example("another query", D)]
    items = mined(Listed(LIST), encoder, *examples)
    assert items[0].example.negatives == (D, E)
    assert items[0].dropped == {"margin": 2, "positive": 1}
    others = mined(Listed(LIST), encoder, *examples, share=None, negatives=9)
    assert others[1].example.negatives == (A, B, D, E)
    assert others[2].example.negatives == (A, ANSWER, B, C, E)


def test_a_text_that_is_part_of_the_positive_or_holds_it_is_no_negative(encoder: Encoder) -> None:
    within = " ".join(ANSWER.split()[2:14])
    around = f"Chapter one. {ANSWER.upper()} That was all, and now for something else."
    copy = ANSWER.replace(" ", "\n").replace(".", "!")
    source = Listed({ANSWER: 0.8, within: 0.7, around: 0.6, copy: 0.65, D: 0.5})
    (item,) = mined(source, encoder)
    assert item.example.negatives == (D,)
    assert item.dropped["positive"] == 2  # the copy is the positive


def test_negatives_do_not_repeat_each_other(encoder: Encoder) -> None:
    again = f"Once more: {C}"
    assert mined(Listed({ANSWER: 0.8, C: 0.7, again: 0.69, D: 0.5}), encoder)[0].example.negatives == (C, D)


def test_overlap_is_the_share_of_five_word_runs() -> None:
    assert overlap("a b c d e f", "x a b c d e y") == 0.5  # of "a b c d e" and "b c d e f"
    assert overlap("A, b: c (d) É f!", "a b c d e f g h") == 1
    assert overlap("a b c", "a b c d e") == 0
    assert overlap("A b.", "a b") == 1
    assert overlap("東京は日本の首都である。", "周知のように、東京は日本の首都である。人口は多い。") > 0.9
    assert overlap("東京は日本の首都である。", "京都は昔の都であり、寺が多い。") < 0.2
    assert overlap("??!", "…") == 0


def test_negatives_that_were_brought_along_stay_and_count(encoder: Encoder) -> None:
    brought = "A text that somebody chose."
    items = mined(
        Listed(LIST),
        encoder,
        Example(QUERY, ANSWER, negatives=(brought,), scores=(1.0, 0.5)),
        Example(QUERY, ANSWER, negatives=(brought, C), scores=(1.0, 0.5, 0.2)),
        Example(QUERY, ANSWER, negatives=(f"{C} ",)),
    )
    assert items[0].example == Example(QUERY, ANSWER, negatives=(brought, C))  # old scores do not fit it
    assert items[1].example == Example(QUERY, ANSWER, negatives=(brought, C), scores=(1.0, 0.5, 0.2))
    assert items[2].example.negatives == (f"{C} ", D)
    assert [item.found for item in items] == [1, 0, 1]


def test_a_title_goes_with_a_negative_where_the_positive_has_one(encoder: Encoder) -> None:
    source = Listed(LIST, titles={C: "Kettles"})
    assert mined(source, encoder)[0].example.negatives == (C, D)
    assert mined(source, encoder, Example(QUERY, ANSWER, title="Keys"))[0].example.negatives == (f"Kettles\n{C}", D)


def test_passages_of_the_positives_document_can_be_left_out(encoder: Encoder) -> None:
    longer = f"{ANSWER} And so on for a while in the very same place."
    scores = {ANSWER: 0.8, longer: 0.79, C: 0.75, D: 0.5, E: 0.2}
    source = Listed(scores, documents={longer: "keys.md", C: "keys.md", D: "kettle.md"})
    assert mined(source, encoder)[0].example.negatives == (C, D)
    (item,) = mined(source, encoder, other_documents=True)
    assert item.example.negatives == (D, E)
    assert item.dropped["document"] == 1


def test_words_and_vectors_decide_together_what_is_hard(encoder: Encoder) -> None:
    # In cosine C, D, E; in words E is far ahead.
    words = {ANSWER: 5.0, A: 0.0, B: 0.0, C: 0.0, D: 0.0, E: 9.0}
    assert mined(Listed(LIST, words), encoder)[0].example.negatives == (E, C)


def test_soft_scores_are_means_of_standard_scores() -> None:
    rows = np.array([[1.0, 2.0, 3.0], [np.nan, 0.0, 10.0]])
    np.testing.assert_allclose(soft_scores(rows), [-1.2247449, -0.5, 1.1123724], atol=1e-6)
    np.testing.assert_array_equal(soft_scores(np.array([[0.3, 0.3]])), [0, 0])  # no opinion
    np.testing.assert_array_equal(soft_scores(np.full((1, 2), np.nan)), [0, 0])


def test_scores_are_of_the_positive_and_then_of_each_negative(encoder: Encoder) -> None:
    words = dict.fromkeys(LIST, 0.0) | {D: 4.0}
    (item,) = mined(Listed(LIST, words), encoder, scores="dense")
    assert item.example.negatives == (D, C)
    assert item.example.scores == (0.8, 0.5, 0.75)
    columns = [*LIST.values(), 0.8], [*words.values(), 0.0]  # the positive stands in the list, and by itself
    (item,) = mined(Listed(LIST, words), encoder, scores="soft")
    soft = soft_scores(np.array(columns))
    assert item.example.scores == pytest.approx((soft[-1], soft[4], soft[3]), abs=1e-6)


def test_scores_that_a_source_does_not_know_are_measured(encoder: Encoder) -> None:
    brought = "A text that somebody chose."
    source = Listed({C: np.nan, D: np.nan})
    example = Example(QUERY, ANSWER, negatives=(brought,), title="Keys")
    (item,) = mined(source, encoder, example, negatives=9, share=None, scores="dense")
    vector = encoder.encode_queries([QUERY])[0]
    expected = encoder.encode_documents([ANSWER, *item.example.negatives], titles=["Keys", "", "", ""]) @ vector
    np.testing.assert_allclose(item.example.scores, expected, atol=2e-3)


def test_a_guide_sees_through_false_negatives(encoder: Encoder, tmp_path: Path) -> None:
    guide = Encoder.load(tiny_encoder(tmp_path / "guide", seed=5), device="cpu")
    examples = [Example(" ".join(sentence.split()[:4]), sentence) for sentence in SENTENCES]
    pool = PassagePool(positives_of(examples), Embedder(encoder))
    options = MiningOptions(share=None)
    alone = list(mine(examples, pool, encoder=encoder, options=options))
    guided = list(mine(examples, pool, encoder=encoder, guide=guide, options=options))
    assert any(_above(guide, item.example) for item in alone)
    assert not any(_above(guide, item.example) for item in guided)
    assert sum(item.dropped.get("guide", 0) for item in guided) > 0
    assert sum(item.found for item in guided) > len(examples)  # others came in their place
    strict = MiningOptions(share=None, guide_margin=0.3)
    for item in mine(examples, pool, encoder=encoder, guide=guide, options=strict):
        assert not _above(guide, item.example, margin=0.3)


def _above(guide: Encoder, example: Example, *, margin: float = 0.0) -> list[str]:
    vector = guide.encode_queries([example.query])[0]
    limit = guide.encode_documents([example.positive])[0] @ vector - margin + 2e-3
    return [text for text in example.negatives if guide.encode_documents([text])[0] @ vector > limit]


def test_scores_of_a_guide(encoder: Encoder, tmp_path: Path) -> None:
    guide = Encoder.load(tiny_encoder(tmp_path / "guide", seed=5), device="cpu")
    (item,) = mined(Listed(LIST), encoder, guide=guide, guide_margin=-2.0, scores="guide")
    expected = guide.encode_documents([ANSWER, C, D]) @ guide.encode_queries([QUERY])[0]
    np.testing.assert_allclose(item.example.scores, expected, atol=2e-3)
    with pytest.raises(UsageError, match="need a guide"):
        mined(Listed(LIST), encoder, scores="guide")


def test_draws_follow_the_softmax() -> None:
    hardness = np.array([0.0, np.log(3.0)])
    for temperature, expected in [(1.0, 0.75), (np.inf, 0.5), (0.5, 0.9)]:
        firsts = [drawn(hardness, temperature=temperature, seed=(0, number))[0] for number in range(4000)]
        assert np.mean(firsts) == pytest.approx(expected, abs=0.02)
    assert drawn(hardness, temperature=0.0, seed=(0, 0)).tolist() == [1, 0]


def test_a_sample_depends_on_the_seed_alone(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [Example(f"{QUERY} {number}", ANSWER) for number in range(12)]

    def sample(seed: int) -> list[tuple[str, ...]]:
        items = mined(Listed(LIST), encoder, *examples, negatives=1, temperature=np.inf, seed=seed)
        return [item.example.negatives for item in items]

    first = sample(1)
    assert {text for negatives in first for text in negatives} == {C, D, E}
    assert sample(1) == first
    assert sample(2) != first
    for item in mined(Listed(LIST), encoder, *examples, temperature=np.inf):  # drawn in any order, shown in theirs
        assert [*item.example.negatives] == sorted(item.example.negatives, key=lambda text: -LIST[text])
    monkeypatch.setattr(mining, "_BATCH", 5)
    assert sample(1) == first


def test_a_pool_finds_neighbours_and_shared_words(encoder: Encoder) -> None:
    examples = [Example(f"query {number}", sentence) for number, sentence in enumerate(SENTENCES)]
    pool = PassagePool([*positives_of(examples), candidate(SENTENCES[1].upper(), document="d")], Embedder(encoder))
    assert len(pool) == len(SENTENCES)  # each text once
    asked = Example("vaccine", SENTENCES[0])
    vector = encoder.encode_queries([asked.query])
    (near,) = pool.find([asked], vector, depth=2, lexical=False)
    cosines = encoder.encode_documents([item.text for item in near.candidates]) @ vector[0]
    np.testing.assert_allclose(near.dense, cosines, atol=2e-3)
    every = np.sort(encoder.encode_documents(SENTENCES) @ vector[0])
    np.testing.assert_allclose(np.sort(near.dense)[-2:], every[-2:], atol=2e-3)
    assert np.isnan(near.lexical).all()
    assert SENTENCES[0] in {item.text for item in near.candidates}  # the positive is always there
    (both,) = pool.find([asked], vector, depth=2, lexical=True)
    words = {item.text: score for item, score in zip(both.candidates, both.lexical, strict=True)}
    assert words[SENTENCES[8]] > 0
    assert [text for text, score in words.items() if score > 0] == [SENTENCES[8]]
    assert len(words) == len(both.candidates)
    with pytest.raises(UsageError, match="no passages"):
        PassagePool([], Embedder(encoder))


def test_a_passage_that_the_words_did_not_find_counts_as_the_last_one_found(encoder: Encoder) -> None:
    kettles = [f"{'kettle ' * count}{sentence}" for count, sentence in enumerate(SENTENCES[2:8])]
    pool = PassagePool([candidate(text) for text in kettles], Embedder(encoder))
    vector = encoder.encode_queries(["kettle"])

    def words(example: Example, depth: int) -> dict[str, float]:
        (found,) = pool.find([example], vector, depth=depth, lexical=True)
        return {item.text: round(float(score), 4) for item, score in zip(found.candidates, found.lexical, strict=True)}

    exact = words(Example("kettle", "elsewhere"), 6)
    assert exact[kettles[0]] == 0  # the list is complete
    assert len(set(exact.values())) == 6
    best = sorted(exact.values())[-2:]
    assert set(words(Example("kettle", "elsewhere"), 2).values()) == set(best)
    for positive in (kettles[0], kettles[1]):
        found = words(Example("kettle", positive), 2)
        assert found.pop(positive) == exact[positive]
        assert set(found.values()) == set(best)


def test_a_pool_knows_the_document_where_any_copy_does(encoder: Encoder) -> None:
    pool = PassagePool([candidate(A), candidate(A, document="a.md"), candidate(A, document="b.md")], Embedder(encoder))
    (found,) = pool.find([Example("q", B)], encoder.encode_queries(["q"]), depth=5, lexical=False)
    assert [item.document for item in found.candidates] == ["a.md"]


@pytest.mark.parametrize("before", range(4))
def test_a_character_of_several_tokens_is_kept_or_left_out(tmp_path: Path, before: int) -> None:
    short = Encoder.load(tiny_encoder(tmp_path / "bytes", tokenizer="bpe", max_tokens=24))
    text = "x" * before + "\N{FOX FACE}\N{OWL}" * 20  # four bytes each, and as many tokens
    assert Embedder(short).candidates([candidate(text)]).shape == (1, short.dimensions)


def test_texts_that_are_too_long_are_cut(tmp_path: Path) -> None:
    short = Encoder.load(tiny_encoder(tmp_path / "short", max_tokens=24), device="cpu")
    long = " ".join(SENTENCES)
    embedder = Embedder(short)
    vectors = embedder.candidates([candidate(long, title=long), candidate(long), candidate("a key")])
    assert vectors.shape == (3, short.dimensions)
    np.testing.assert_allclose(vectors[2], short.encode_documents(["a key"])[0], atol=1e-5)
    assert embedder.queries([Example(long, "x"), Example(long, "x", instruction="Find it")]).shape[0] == 2
    asked = embedder.queries([Example("a key", "x"), Example("a key", "x", instruction="Find it")])
    np.testing.assert_allclose(asked[0], short.encode_queries(["a key"])[0], atol=1e-5)
    np.testing.assert_allclose(asked[1], short.encode_queries(["a key"], instruction="Find it")[0], atol=1e-5)
    items = list(mine([Example(long, long), Example("a key", A)], PassagePool([candidate(B)], embedder), encoder=short))
    assert len(items) == 2


def test_what_is_remembered_is_embedded_once_and_memory_is_bounded(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[Candidate] = []
    embedder = Embedder(encoder)
    plain = embedder.candidates
    monkeypatch.setattr(embedder, "candidates", lambda items: (embedded.extend(items), plain(items))[1])
    items = [candidate(text) for text in SENTENCES]
    first = embedder.remembered(items[:4])
    np.testing.assert_array_equal(embedder.remembered(items[:4][::-1])[::-1], first)
    assert len(embedded) == 4
    monkeypatch.setattr(embedder, "_room", 5)
    np.testing.assert_allclose(embedder.remembered(items), plain(items), atol=2e-3)
    assert len(embedded) == 14
    embedder.remembered(items[:2])  # more is remembered than there is room for, but nothing new is asked
    assert len(embedded) == 14


def test_negatives_from_a_store(encoder: Encoder, tiny_encoder_dir: Path, tmp_path: Path) -> None:
    write(tmp_path, {f"doc{number}.txt": sentence for number, sentence in enumerate(SENTENCES)})
    examples = [Example(" ".join(sentence.split()[3:8]), sentence) for sentence in SENTENCES]
    with open_index(tmp_path, tiny_encoder_dir) as index:
        index.add(tmp_path)
        for lexical in (True, False):
            options = MiningOptions(lexical=lexical, share=None, scores="dense")
            trusted = list(mine(examples, StorePassages(index, same_encoder=True), encoder=encoder, options=options))
            measured = list(mine(examples, StorePassages(index, same_encoder=False), encoder=encoder, options=options))
            for item, other, example in zip(trusted, measured, examples, strict=True):
                assert len(item.example.negatives) == 4
                assert example.positive not in item.example.negatives
                assert set(item.example.negatives) <= set(SENTENCES)
                assert other.example.negatives == item.example.negatives
                vector = encoder.encode_queries([example.query])[0]
                cosines = encoder.encode_documents([example.positive, *item.example.negatives]) @ vector
                np.testing.assert_allclose(item.example.scores, cosines, atol=3e-3)
                np.testing.assert_allclose(other.example.scores, cosines, atol=3e-3)


def test_passages_are_read_with_title_and_document(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    rows = [
        {"_id": "7", "title": "Keys", "text": "Rotate it."},
        {"text": " "},
        {"text": "b", "document": "d", "_id": 3},
    ]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    assert list(read_passages(file)) == [
        candidate("Rotate it.", title="Keys", document="7"),
        candidate("b", document="d"),
    ]
    for line in ('{"title": "a"}', '["text"]', "text", '{"text": 3}'):
        file.write_text(f'{{"text": "a"}}\n{line}\n', encoding="utf-8")
        with pytest.raises(TrainingError, match=r"corpus\.jsonl:2 "):
            list(read_passages(file))


@pytest.mark.parametrize(
    "options",
    [
        {"negatives": 0},
        {"depth": 0},
        {"skip": -1},
        {"skip": 5, "depth": 5},
        {"share": 1.5},
        {"share": -0.5},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"seed": -1},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        MiningOptions(**options)


def test_a_report_adds_up() -> None:
    report = MiningReport()
    for item in (
        Mined(Example("q", "p", ("a", "b")), 2, {"margin": 3}),
        Mined(Example("q", "p", ("c",)), 0, {"margin": 1, "guide": 2}),
        Mined(Example("q", "p"), 0),
    ):
        report = report.plus(item)
    assert report == MiningReport(3, 1, 2, 1, {"margin": 4, "guide": 2})


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["train", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.jsonl"
    write_examples(file, [Example(" ".join(sentence.split()[3:8]), sentence, source="tiny") for sentence in SENTENCES])
    return file


def test_the_command_writes_examples_and_says_how_many(pairs: Path, tiny_encoder_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / "mined.jsonl.gz"
    code, out, err = run("mine", pairs, "--output", output, "--encoder", tiny_encoder_dir, "--scores", "soft", "--json")
    assert (code, err) == (0, "")
    table = json.loads(out)
    found = list(read_examples(output))
    assert [example.query for example in found] == [example.query for example in read_examples(pairs)]
    assert all(len(example.scores) == 1 + len(example.negatives) for example in found)
    assert table == {
        "output": str(output),
        "examples": 10,
        "mined": sum(bool(example.negatives) for example in found),
        "negatives": sum(len(example.negatives) for example in found),
        "negatives_per_example": table["negatives_per_example"],
        "without": sum(not example.negatives for example in found),
        "dropped": table["dropped"],
    }
    assert table["dropped"].keys() == {"margin", "guide", "positive", "document"}
    assert table["mined"] > 0
    code, out, _ = run("mine", pairs, "--output", pairs, "--encoder", tiny_encoder_dir)  # in its own place
    assert code == 0
    assert out.startswith(f"{table['negatives']} negatives for {table['mined']} of 10 examples")
    assert "Dropped as false negatives: " in out
    assert list(read_examples(pairs)) == [
        Example(example.query, example.positive, example.negatives, source="tiny") for example in found
    ]


def test_the_command_takes_negatives_from_a_store_or_a_file(
    pairs: Path, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    others = [f"{sentence} And so it is written in the other book." for sentence in SENTENCES]
    write(tmp_path / "docs", {f"{number}.txt": text for number, text in enumerate(others)})
    with open_index(tmp_path / "docs", tiny_encoder_dir) as index:
        index.add(tmp_path / "docs")
    output = tmp_path / "mined.jsonl"
    store = tmp_path / "docs" / ".ragindex"
    assert run("mine", pairs, "--output", output, "--store", store, "--margin", 0)[0] == 0
    found = list(read_examples(output))
    assert {text for example in found for text in example.negatives} <= set(others)
    assert all(len(example.negatives) == 4 for example in found)
    passages = tmp_path / "passages.jsonl"
    passages.write_text("".join(json.dumps({"text": text}) + "\n" for text in others), encoding="utf-8")
    options = ["--encoder", tiny_encoder_dir, "--passages", passages, "--margin", 0]
    assert run("mine", pairs, "--output", output, *options)[0] == 0
    taken = {text for example in read_examples(output) for text in example.negatives}
    assert taken & set(others)
    assert taken & set(SENTENCES)
    code, _, err = run("mine", pairs, "--output", output, "--store", store, "--passages", passages)
    assert code == 2
    assert "not both" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--temperature", "2"], "--temperature belongs to --sample"),
        (["--guide-margin", "0.1"], "--guide-margin belongs to --guide"),
        (["--scores", "guide"], "need a guide"),
        (["--negatives", "0"], "at least 1 negative"),
        (["--encoder", "nowhere"], "no encoder 'nowhere'"),
        (["--guide", "nowhere"], "no encoder 'nowhere'"),
        (["--store", "nowhere"], "no store in"),
    ],
    ids=str,
)
def test_the_command_refuses_what_makes_no_sense(options: list[str], said: str, pairs: Path, tmp_path: Path) -> None:
    code, _, err = run("mine", pairs, "--output", tmp_path / "out.jsonl", *options)
    assert code == 2
    assert said in err
    assert not (tmp_path / "out.jsonl").exists()

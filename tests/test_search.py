"""Searching an index: modes, scores, filters, hostile queries, explanations, and why something is not found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from index_kit import answers, corpus, open_index, paths, prose, write
from tiny import SENTENCES, tiny_encoder

from ragindex.encoder import Prompts
from ragindex.errors import FilterSyntaxError, UsageError
from ragindex.types import Document

MODES = ("hybrid", "dense", "lexical")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    home = tmp_path_factory.mktemp("search") / "home"
    write(home, corpus(40))
    write(
        home,
        {
            "ops/keys.md": f"# Keys\n\n## Rotation\n\n{SENTENCES[0]} The kettle is far away.\n",
            "ops/long.txt": " ".join(f"The key {number} is of iron." for number in range(200)),
            "ops/kéttle naïve.txt": "L'été, la théière bout; 漢字テスト 🦓.\r\nSecond line.\r\n",
            "code/config.py": "def parse_config_file(path):\n    '''Read the file.'''\n    return open(path).read()\n",
        },
    )
    return home


@pytest.fixture(scope="module")
def index(folder, tiny_encoder_dir):
    with open_index(folder, tiny_encoder_dir) as opened:
        opened.add(folder)
        yield opened


@pytest.mark.parametrize("mode", MODES)
def test_scores_that_do_not_apply_are_none_and_the_others_mean_what_they_say(index, mode):
    hits = index.search("rotate the signing key", k=5, mode=mode)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    for hit in hits:
        scores = hit.scores
        present = {name for name in ("dense", "lexical", "fused") if getattr(scores, name) is not None}
        assert present == ({"dense", "lexical", "fused"} if mode == "hybrid" else {mode})
        assert hit.score == getattr(scores, "fused" if mode == "hybrid" else mode)
        assert scores.dense is None or -1.001 <= scores.dense <= 1.001
        assert scores.lexical is None or scores.lexical >= 0


def test_dense_score_is_the_cosine_with_the_stored_text(index):
    hit = index.search("rotate the signing key", k=1, mode="dense")[0]
    title = " > ".join(hit.heading) if hit.heading else hit.title
    cosine = (
        index.encoder.encode_queries(["rotate the signing key"])
        @ index.encoder.encode_documents([hit.text], titles=[title]).T
    )
    # Many texts are embedded in bfloat16 where the processor has it, a few always in float32.
    assert hit.scores.dense == pytest.approx(float(cosine[0, 0]), abs=1e-2)


def test_hybrid_completes_the_scores_of_what_only_one_list_found(index):
    every = {hit.chunk_id: hit for hit in index.search("parse_config_file", k=60)}
    dense = {hit.chunk_id: hit for hit in index.search("parse_config_file", k=60, mode="dense")}
    lexical = {hit.chunk_id: hit for hit in index.search("parse_config_file", k=60, mode="lexical")}
    assert next(iter(every.values())).path == "code/config.py"
    assert len(every) > len(lexical)
    for chunk_id, hit in every.items():
        if chunk_id in dense:
            assert hit.scores.dense == pytest.approx(dense[chunk_id].scores.dense, abs=1e-3)
        if not hit.explanation and chunk_id not in lexical:
            assert hit.scores.lexical >= 0


@pytest.mark.parametrize("mode", MODES)
def test_text_is_the_span_of_the_document_also_of_merged_hits(index, folder, mode):
    merged = 0
    for query in (*SENTENCES, "kettle theière second", "iron"):
        for hit in index.search(query, k=10, mode=mode, explain=True):
            text = (folder / hit.path).read_bytes().decode().replace("\r\n", "\n")
            assert hit.text == text[hit.char_start : hit.char_end]
            assert hit.line_start == 1 + text[: hit.char_start].count("\n")
            assert hit.line_end == 1 + text[: hit.char_end].count("\n", 0, hit.char_end - 1)
            merged += bool(hit.explanation.merged)
    assert merged


def test_same_question_same_answer(index):
    for mode in MODES:
        first = index.search("backup snapshot service", mode=mode)
        assert all(index.search("backup snapshot service", mode=mode) == first for _ in range(3))
    with open_index(index.base, index.encoder.name) as again:
        assert answers(again) == answers(index)


@pytest.mark.parametrize("mode", ["hybrid", "dense"])
@pytest.mark.parametrize("k", [1, 7, 20])
def test_filter_gives_k_results_whenever_k_exist(index, mode, k):
    # What the query is about lies outside of the filter.
    hits = index.search(SENTENCES[0], k=k, mode=mode, filter="path like 'doc0_1%' or path like 'doc0_2%'")
    assert len(hits) == min(k, 8)
    assert {hit.path[-5] for hit in hits} <= {"1", "2"}


def test_filters(index):
    assert set(paths(index.search("kettle", filter="path = 'ops/keys.md'", k=50))) == {"ops/keys.md"}
    assert set(paths(index.search("kettle", filter="language = 'python'", mode="dense", k=50))) == {"code/config.py"}
    assert index.search("kettle", filter="path = 'nothing'") == []
    assert all(hit.metadata["size"] < 100 for hit in index.search("kettle", filter="size < 100", k=50))
    with pytest.raises(FilterSyntaxError):
        index.search("kettle", filter="path ==== 'x'")


def test_k_distinct_hits_come_back_behind_hundreds_of_copies(tmp_path, tiny_encoder_dir):
    with open_index(tmp_path, tiny_encoder_dir) as index:
        copies = [Document(f"copy{number}", SENTENCES[0]) for number in range(450)]
        index.put([*copies, *(Document(f"other{number}", SENTENCES[number]) for number in range(1, 6))])
        for mode in ("hybrid", "dense"):
            hits = index.search(SENTENCES[0], k=5, mode=mode, explain=True)
            assert len(hits) == 5
            assert sum(hit.path.startswith("copy") for hit in hits) == 1


def test_diversity_brings_other_passages(index):
    plain = index.search("the signing key", k=4, mode="dense")
    varied = index.search("the signing key", k=4, mode="dense", diversity=0.8)
    assert plain[0].path == varied[0].path
    assert paths(plain) != paths(varied)
    assert [hit.rank for hit in varied] == [1, 2, 3, 4]
    assert paths(index.search("the signing key", k=4, mode="dense", diversity=0.0)) == paths(plain)
    assert len(index.search("signing", k=3, mode="lexical", diversity=0.5)) == 3


def test_instruction_changes_queries_and_never_documents(index):
    plain = index.search("backup", k=5, mode="dense", instruction="")
    told = index.search("backup", k=5, mode="dense", instruction="Retrieve passages about vaccines")
    assert [hit.score for hit in plain] != [hit.score for hit in told]
    assert index.search("backup", k=5, mode="dense", instruction="") == plain
    lexical = index.search("backup", k=5, mode="lexical")
    assert index.search("backup", k=5, mode="lexical", instruction="vaccine") == lexical


def test_default_instruction_is_the_encoders(tmp_path, tmp_path_factory):
    directory = tiny_encoder(tmp_path_factory.mktemp("told") / "tiny", prompts=Prompts(instruction="Find the rule"))
    write(tmp_path, corpus(5))
    with open_index(tmp_path, directory) as index:
        index.add(tmp_path)
        assert index.instruction() == "Find the rule"
        default = index.search("backup", mode="dense")
        assert default == index.search("backup", mode="dense", instruction="Find the rule")
        assert default != index.search("backup", mode="dense", instruction="")


@pytest.mark.parametrize("tokenizer", ["wordpiece", "bpe"])
def test_query_longer_than_the_encoder_reads(tmp_path, tmp_path_factory, tokenizer):
    directory = tiny_encoder(tmp_path_factory.mktemp("short") / "tiny", tokenizer=tokenizer, max_tokens=64)
    write(tmp_path, corpus(10))
    with open_index(tmp_path, directory) as index:
        index.add(tmp_path)
        long = " ".join([SENTENCES[5]] * 10 + [SENTENCES[1]] * 60)  # all of it counts, not only its beginning
        assert index.search(long, mode="dense")[0].path == "doc001.txt"
        for query in ("x" * 5000, "🦓" * 700, "a.b-c" * 400, "\n" * 500 + "key"):
            assert index.search(query)
        with pytest.raises(UsageError, match="instruction is too long"):
            index.search("short", instruction=long)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "query",
    [
        '"', "'", "*", "a AND OR NOT", "title:(x", "+-!(){}[]^\"~*?:\\/", "path:[* TO *]", "\0", "\udcff", "NULL; --",
        "🦓", "漢字", "%_", "…", "-", "\u202e\u200b", "a" * 10_000, "{{ '{0}' }} %s %n", "<script>", "the of and",
    ],
)  # fmt: skip
def test_no_query_is_hostile(index, mode, query):
    hits = index.search(query, mode=mode, k=3)
    assert len(hits) == 3 or mode == "lexical"
    assert index.search(query, mode=mode, k=3, explain=True)[:1] == hits[:1] or hits


@pytest.mark.parametrize("query", ["", "   ", "\n\t"])
def test_an_empty_query_is_an_error(index, query):
    with pytest.raises(UsageError, match="query is empty"):
        index.search(query)


@pytest.mark.parametrize("options", [{"k": 0}, {"k": -3}, {"mode": "both"}, {"diversity": 1.5}, {"diversity": -0.1}])
def test_bad_options_are_errors(index, options):
    with pytest.raises(UsageError):
        index.search("kettle", **options)


def test_words_in_other_scripts_identifiers_and_paths_are_found(index):
    for query, path in (
        ("漢字", "ops/kéttle naïve.txt"),
        ("théière", "ops/kéttle naïve.txt"),
        ("config file", "code/config.py"),
        ("parseConfigFile", "code/config.py"),
        ("ops keys", "ops/keys.md"),
    ):
        assert index.search(query, k=1, mode="lexical")[0].path == path


def test_explanation(index):
    hit = index.search("rotating keys kettle", k=1, explain=True, filter="path = 'ops/keys.md'")[0]
    why = hit.explanation
    assert why.dense_rank == why.lexical_rank == 1
    assert 0 <= why.dense_weight <= 1
    assert {"keys", "kettle"} <= set(why.terms) | {"key", "kettl"} | set(why.terms)
    assert why.terms
    assert index.search("kettle", k=1)[0].explanation is None
    dense = index.search("kettle", k=1, mode="dense", explain=True)[0].explanation
    assert (dense.lexical_rank, dense.dense_weight) == (None, None)


def test_context_of_hits(index):
    hits = index.search("signing key", k=5)
    block = index.context(hits, tokens=120)
    assert block.startswith(f"[1] {hits[0].citation}")
    assert index.encoder.tokenizer.count(block) <= 120


def test_documents_are_ranked_by_their_best_chunk_and_copies_count(index):
    ranked = index.rank_documents(SENTENCES[0], k=20)
    assert len(ranked) == len(set(ranked)) == 20
    assert {"doc000.txt", "doc010.txt", "doc020.txt", "doc030.txt"} <= set(ranked)


class TestWhyNot:
    """Where a passage was lost."""

    @pytest.fixture
    def home(self, tmp_path):
        home = tmp_path / "home"
        write(home, corpus(12))
        write(
            home, {"sub/secret.txt": "hidden", ".gitignore": "secret.txt\n", "image.png": b"\x89PNG", "empty.txt": ""}
        )
        write(home, {"broken.docx": b"no"})
        return home

    @pytest.fixture
    def index(self, home, tiny_encoder_dir):
        with open_index(home, tiny_encoder_dir) as opened:
            opened.add(home)
            yield opened

    def stage(self, index, query: str, expect: str | Path, **options: object) -> str:
        verdict = index.why_not(query, str(expect), **options)
        assert verdict.reason.endswith(".")
        assert ".." not in verdict.reason
        assert verdict.fix
        return verdict.stage

    def test_lost_before_the_index(self, index, home):
        write(home, {"new.txt": "new"})
        for path, stage in (
            ("nowhere.txt", "missing"),
            ("sub/secret.txt", "ignored"),
            ("image.png", "unsupported"),
            ("broken.docx", "failed"),
            ("new.txt", "not indexed"),
            ("empty.txt", "not indexed"),
        ):
            assert self.stage(index, "kettle", home / path) == stage, path
        assert "ragindex index" in index.why_not("kettle", str(home / "new.txt")).fix
        assert "secret.txt" in index.why_not("kettle", str(home / "sub/secret.txt")).reason

    def test_outside_of_every_root(self, index, tmp_path):
        write(tmp_path, {"outside.txt": "words"})
        verdict = index.why_not("words", str(tmp_path / "outside.txt"))
        assert (verdict.stage, "No indexed folder" in verdict.reason) == ("not indexed", True)

    def test_stale(self, index, home):
        write(home, {"doc000.txt": "other words"}, age=10)
        assert self.stage(index, "kettle", home / "doc000.txt") == "stale"
        (home / "doc001.txt").unlink()
        assert self.stage(index, "kettle", home / "doc001.txt") == "stale"

    def test_filtered(self, index, home):
        verdict = index.why_not("kettle", str(home / "doc001.txt"), filter="size > 100000")
        assert verdict.stage == "filtered"
        assert "size=" in verdict.fix

    def test_found_outranked_and_merged(self, index, home):
        assert self.stage(index, SENTENCES[1], home / "doc001.txt") == "found"
        assert self.stage(index, SENTENCES[1], home / "doc001.txt", k=5, mode="lexical") == "found"
        verdict = index.why_not(SENTENCES[1], str(home / "doc005.txt"), k=1)
        assert verdict.stage == "outranked"
        assert verdict.dense_rank > 1
        assert verdict.fused_rank > 1
        assert f"place {verdict.fused_rank} of 12" in verdict.reason
        shares_nothing = index.why_not("zebra", str(home / "doc005.txt"), mode="lexical")
        assert (shares_nothing.stage, shares_nothing.fused_rank) == ("outranked", None)
        write(home, {"copy.txt": (home / "doc001.txt").read_text()})
        index.add(home)
        stages = {self.stage(index, SENTENCES[1], home / name, k=3) for name in ("doc001.txt", "copy.txt")}
        assert stages == {"found", "merged"}

    def test_a_line(self, index, home):
        write(home, {"long.txt": prose(60)})
        index.add(home)
        assert self.stage(index, "Item 50", f"{home / 'long.txt'}:51", mode="lexical") == "found"
        verdict = index.why_not("Item 50", f"{home / 'long.txt'}:999")
        assert verdict.stage == "not indexed"
        assert "line 999" in verdict.reason

    def test_path_as_hits_print_it_from_anywhere(self, index, home, monkeypatch):
        monkeypatch.chdir(home / "sub")
        assert self.stage(index, SENTENCES[1], "doc001.txt") == "found"
        assert self.stage(index, SENTENCES[1], "../doc001.txt") == "found"

    def test_document_that_is_no_file(self, index):
        index.put([Document("https://example.org/a", "Zebras graze on the plain."), Document("void", "")])
        assert self.stage(index, "zebras graze", "https://example.org/a") == "found"
        assert self.stage(index, "zebras graze", "void") == "not indexed"
        assert self.stage(index, "kettle boils", "https://example.org/a", k=1) == "outranked"

    def test_name_that_is_no_utf8(self, index, home):
        name = os.fsencode(home) + b"/caf\xe9.txt"
        Path(os.fsdecode(name)).write_text("coffee is served")
        index.add(home)
        assert self.stage(index, "coffee served", os.fsdecode(name)) == "found"

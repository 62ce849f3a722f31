import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragindex.store.analysis import LONGEST_WORD, words
from ragindex.store.question import FUNCTION_WORDS, weighed_terms
from ragindex.store.rows import Mark
from ragindex.store.tantivy_index import TantivyIndex
from ragindex.store.text_index import MemoryTextIndex, TextEntry, TextIndex

NONE = np.empty(0, np.int64)


def entry(chunk_id, text, title="", heading=(), path="p"):
    return TextEntry(chunk_id, text, title, tuple(heading), path)


def index_of(*texts):
    index = TantivyIndex(None)
    index.add([entry(number, text) for number, text in enumerate(texts, 1)])
    return index


@pytest.fixture(scope="module")
def library():
    rng = np.random.default_rng(0)
    vocabulary = [f"{a}{b}" for a in ("al", "be", "ga", "de", "ep") for b in ("ko", "li", "mu", "no", "pa")]
    return index_of(*(" ".join(rng.choice(vocabulary, 30)) for _ in range(2_000)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", ["hello", "world"]),
        ("getUserName", ["getusername", "getusername", "get", "user", "name"]),
        ("get_user_name", ["getusername", "get", "user", "name"]),
        ("HTTPServer", ["httpserver", "http", "server"]),
        ("os.path.join", ["ospathjoin", "os", "path", "join"]),
        ("well-known", ["wellknown", "well", "known"]),
        ("utf8", ["utf8", "utf", "8"]),
        ("__init__", ["init"]),
        ("3.14 and 42", ["3.14", "3", "14", "and", "42"]),
        ("2024-01-15", ["2024-01-15", "2024", "01", "15"]),
        ("user's don't", ["user", "don"]),
        ("Café ÉTÉ Ångström Straße Łódź", ["cafe", "ete", "angstrom", "strasse", "lodz"]),
        ("東京都", ["東", "京", "都", "東京", "京都"]),
        ("猫", ["猫"]),
        ("Python入門", ["python", "入", "門", "入門"]),
        ("한국어", ["한", "국", "어", "한국", "국어"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("ﬁle ①", ["file", "1"]),
        ("", []),
        ("'\"():*~^\x00 \ufffd", []),
        ("end.", ["end"]),
    ],
)
def test_words(text, expected):
    found = words(text)
    assert found == expected or (found[0] == expected[0] and set(found) == set(expected))


def test_a_word_without_end_is_cut():
    assert {len(word) for word in words("x" * 5000 + " " + "aB1" * 2000)} == {LONGEST_WORD}


@given(st.text())
def test_words_of_anything(text):
    for word in words(text):
        assert word
        assert len(word) <= 3 * LONGEST_WORD
        assert not any(letter.isspace() for letter in word)


@given(st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=20))
def test_words_do_not_depend_on_case(word):
    assert words(word) == words(word.capitalize()) == words(word.upper())


def test_identifiers_are_found_by_themselves_and_by_their_parts():
    index = index_of("call getUserName here", "call set_user_name here", "nothing of that kind")
    assert index.search("getUserName", 1).ids.tolist() == [1]
    assert index.search("get_user_name", 1).ids.tolist() == [1]
    assert sorted(index.search("user", 5).ids.tolist()) == [1, 2]
    assert index.search("set_user_name", 1).ids.tolist() == [2]


def test_stems_accents_and_scripts():
    index = index_of("the keys were rotated", "un café noir", "東京タワーに行く", "ключ", "nothing")
    assert index.search("rotating key", 5).ids.tolist() == [1]
    assert index.search("cafe", 5).ids.tolist() == [2]
    assert index.search("東京", 5).ids.tolist() == [3]
    assert index.search("行", 5).ids.tolist() == [3]
    assert index.search("КЛЮЧ", 5).ids.tolist() == [4]


def test_a_query_of_stop_words_finds_nothing():
    assert index_of("the of and").search("the of and", 5).ids.tolist() == []


@pytest.mark.parametrize(
    "query",
    ['"unbalanced', "a:b", "(((", "x AND NOT", "*", "^2", "field:[a TO b]", "\\", "key~", "+ - && ||", "\x00", ""],
)
def test_hostile_queries(query):
    index_of("key one", "b two").search(query, 3)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200))
def test_no_query_raises(library, query):
    found = library.search(query, 5)
    assert len(found.ids) == len(set(found.ids.tolist())) <= 5


def test_a_very_long_query(library):
    assert len(library.search(" ".join(f"word{number}" for number in range(20_000)) + " alko", 5).ids) == 5


def test_repeated_words_count():
    index = index_of("apple apple cherry", "banana cherry cherry")
    assert index.search("apple banana banana banana", 2).ids.tolist() == [2, 1]
    assert index.search("apple apple apple banana", 2).ids.tolist() == [1, 2]


def test_the_words_of_a_question_count_less_than_those_of_its_subject():
    index = index_of("How can I do it? You should. How do you? What can you do?", "the badge is renewed", *["tide"] * 8)
    assert index.search("how can I renew my badge", 2).ids.tolist() == [2, 1]
    assert index.search("what should you do", 2).ids.tolist() == [1]
    assert weighed_terms("How do keys rotate? Rotate!", str.split) == {"keys": 1, "rotate": 2, "how": 0.4, "do": 0.4}


def test_what_a_question_could_reach_at_most_is_told_by_the_same_counts():
    index = index_of("badge", *["tide"] * 8)
    assert index.ceiling("how badge") == pytest.approx(index.ceiling("badge") + 0.4 * index.ceiling("whelk"))


def test_function_words_are_as_the_analysis_gives_them():
    assert [word for word in FUNCTION_WORDS if words(word) != [word]] == []
    assert {"don", "isn"} <= FUNCTION_WORDS
    assert words("don't isn't") == ["don", "isn"]


def test_an_acronym_is_no_function_word():
    assert weighed_terms("does the CAN bus do", str.split)["can"] == 1
    assert weighed_terms("DOES THE CAN BUS DO", str.split)["can"] == 0.4


def test_titles_headings_and_paths_help_a_little():
    index = TantivyIndex(None)
    index.add(
        [
            entry(1, "turn the wheel slowly", title="Rotation"),
            entry(2, "turn the wheel slowly", heading=("Guide", "Braking")),
            entry(3, "turn the wheel slowly", path="ops/steering-notes.md"),
            entry(4, "rotation rotation of the wheel"),
        ]
    )
    assert index.search("braking", 5).ids.tolist() == [2]
    assert index.search("steering notes", 5).ids.tolist() == [3]
    assert index.search("rotation", 5).ids.tolist() == [4, 1]


def test_ties_are_broken_by_id():
    index = TantivyIndex(None)
    index.add([entry(number, "same words") for number in range(300, 0, -1)])
    assert index.search("same", 4).ids.tolist() == [1, 2, 3, 4]
    index.remove(np.array([1, 3]))
    assert index.search("same", 4).ids.tolist() == [2, 4, 5, 6]


def test_adding_again_replaces():
    index = index_of("old words", "others")
    index.add([entry(1, "new words")])
    assert index.search("old", 5).ids.tolist() == []
    assert index.search("new", 5).ids.tolist() == [1]
    assert len(index) == 2


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9])
@pytest.mark.parametrize("cost", [1e-6, 2, 1e6])  # of narrowing the query: it is always done, where it pays, never
@pytest.mark.parametrize("run", [1, 10])  # one by one, or in documents of ten
def test_allowed_ids_at_every_selectivity(library, monkeypatch, share, cost, run):
    monkeypatch.setattr("ragindex.store.tantivy_index._LISTED", cost)
    chosen = np.random.default_rng(1).choice(2_000 // run, int(share * 2_000) // run, replace=False)
    allowed = np.sort((run * chosen[:, None] + np.arange(1, run + 1)).ravel())
    everything = library.search("alko bemu", 2_000)
    kept = np.isin(everything.ids, allowed)
    found = library.search("alko bemu", 10, allowed)
    assert found.ids.tolist() == everything.ids[kept][:10].tolist()
    np.testing.assert_allclose(found.scores, everything.scores[kept][:10], atol=1e-5)


@pytest.mark.parametrize("count", [20, 400])
def test_allowed_ids_at_the_end_of_the_ranking(library, count):
    everything = library.search("alko bemu", 2_000)
    last = everything.ids[-count:]
    found = library.search("alko bemu", 10, np.sort(last))
    assert found.ids.tolist() == last[:10].tolist()
    np.testing.assert_allclose(found.scores, everything.scores[-count:][:10], atol=1e-5)


def test_excluded_ids_do_not_cost_results(library):
    everything = library.search("alko", 60)
    found = library.search("alko", 10, excluded=everything.ids[:50])
    assert found.ids.tolist() == everything.ids[50:60].tolist()


def test_mark_and_contents_survive_reopening(tmp_path):
    index = TantivyIndex(tmp_path / "index")
    assert index.mark() is None
    index.add([entry(9, "nine")])
    assert index.mark() == Mark()
    index.remove(np.array([9]))
    index.apply(NONE, [[entry(1, "one")], [entry(2, "two")]], Mark(7, 8))
    index.apply(np.array([1]), [], Mark(9, 10))
    again = TantivyIndex(tmp_path / "index", create=False)
    assert (again.mark(), len(again)) == (Mark(9, 10), 1)
    assert again.search("two", 5).ids.tolist() == [2]
    assert again.damaged_files(tmp_path / "index") == []


def test_a_reader_sees_commits_after_reload(tmp_path):
    writer = TantivyIndex(tmp_path / "index")
    writer.apply(NONE, [[entry(1, "one")]], Mark(1, 1))
    reader = TantivyIndex(tmp_path / "index", create=False)
    writer.apply(NONE, [[entry(2, "two")]], Mark(2, 2))
    reader.reload()
    assert reader.search("two", 5).ids.tolist() == [2]


def test_an_index_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        TantivyIndex(tmp_path / "none", create=False)


def test_the_double_ranks_alike():
    texts = ["red apple pie", "red red apple", "green pear", "apple"]
    double = MemoryTextIndex(words)
    double.add([entry(number, text) for number, text in enumerate(texts, 1)])
    assert isinstance(double, TextIndex)
    assert isinstance(index_of("x"), TextIndex)
    for query in ("red apple", "apple", "pear", "zzz"):
        assert double.search(query, 4).ids.tolist() == index_of(*texts).search(query, 4).ids.tolist()
    double.remove(np.array([4]))
    assert double.search("apple", 4, np.array([2, 3, 4])).ids.tolist() == [2]

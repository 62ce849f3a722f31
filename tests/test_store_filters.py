from dataclasses import replace

import pytest
from store_kit import Store, write

from ragindex.filters import And, Eq, Exists, In, Like, Not, Or, Range, parse


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = Store(tmp_path_factory.mktemp("filters"))
    made.put(
        write("docs/a.md", "a", title="Keys", heading=("Guide", "Rotate"), lang="en", size=10, draft=True),
        write("docs/B.md", "b", title="", heading=("Guide",), lang="de", size=200, draft=False, note=None),
        write("src/c.py", "c", title="Code", page=3, lang="en", size="10", weight=1.5),
        write("src/d_e.py", "d", title="Other", page=7, **{"odd\"key'$.": "x", "a.b": 1}),
    )
    yield made
    made.catalog.close()


def paths(store, asked):
    ids = store.catalog.allowed(store.collection, parse(asked) if isinstance(asked, str) else asked)
    assert ids.tolist() == sorted(ids.tolist())
    return "".join(row.text for row in store.catalog.hits(ids))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("path = 'docs/a.md'", "a"),
        ("path like 'docs/%'", "ab"),
        ("path like 'DOCS/b%'", "b"),
        ("path like 'src/d_e.py'", "d"),
        ("title = 'Keys'", "a"),
        ("title is null", "b"),
        ("title like '%'", "acd"),
        ("lang = 'en'", "ac"),
        ("lang != 'en'", "bd"),
        ("lang in ('de', 'fr')", "b"),
        ("not lang in ('de', 'fr')", "acd"),
        ("size > 50", "b"),
        ("size >= 10", "ab"),
        ("size between 10 and 200", "ab"),
        ("size < '2'", "c"),
        ("size = 10", "a"),
        ("size = '10'", "c"),
        ("weight = 1.5", "c"),
        ("draft = true", "a"),
        ("draft = 1", ""),
        ("draft = false", "b"),
        ("note is null", "abcd"),
        ("note is not null", ""),
        ("lang is null", "d"),
        ("page > 3", "d"),
        ("page <= 3", "c"),
        ("not page > 3", "abc"),
        ("page is null", "ab"),
        ("page = '3'", ""),
        ("page in (3, 7, 9)", "cd"),
        ("heading = 'Guide'", "ab"),
        ("heading = 'Rotate'", "a"),
        ("heading like 'ro%'", "a"),
        ("heading is null", "cd"),
        ("heading != 'Rotate'", "bcd"),
        ("lang = 'en' and page = 3", "c"),
        ("lang = 'de' or page = 7", "bd"),
        ("not (lang = 'de' or page = 7)", "ac"),
        ("true", "abcd"),
        ("false", ""),
        (Eq("a.b", 1), "d"),
        (Eq("odd\"key'$.", "x"), "d"),
        (Eq("x' OR 1=1 --", "x"), ""),
        (Eq("path", "x' OR 1=1 --"), ""),
        (Eq("path", 5), ""),
        (In("lang", ()), ""),
        (In("lang", ("en", None)), "acd"),
        (In("size", (10, "10", True)), "ac"),
        (Like("size", "1%"), "c"),
        (Range("lang", low="e"), "ac"),
        (And(()), "abcd"),
        (Or(()), ""),
        (Not(Not(Exists("page"))), "cd"),
    ],
)
def test_filter(store, asked, expected):
    assert paths(store, asked) == expected


@pytest.fixture(scope="module")
def nested(tmp_path_factory):
    made = Store(tmp_path_factory.mktemp("nested"))
    values = {
        "a": {"tags": ["x", "Y", 3], "page": "100", "author": {"name": "Ada", "born": {"year": 1815}}},
        "b": {"tags": "Xylophone 50% off", "author": {"name": ["Ada", "Bob"]}, "path": "elsewhere"},
        "c": {"tags": [], "author.name": "Ada", "metadata.x": 1},
        "d": {"tags": [True, None, ["x"]], "page": 7},
    }
    for number, (text, metadata) in enumerate(values.items(), 1):
        made_of = write(str(number), text)
        made.put(replace(made_of, document=replace(made_of.document, metadata=metadata)))
    yield made
    made.catalog.close()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("tags contains 'x'", "a"),
        ("tags contains 'X'", "b"),
        ("tags contains 'Xylo'", "b"),
        ("tags contains 'xylo'", ""),
        ("tags contains 3", "a"),
        ("tags contains '3'", ""),
        ("tags contains true", "d"),
        ("not tags contains 'x'", "bcd"),
        ("path contains '1'", "a"),
        ("text contains 'b'", "b"),
        ("text in ('a', 'd') and not text = 'a'", "d"),
        ("text is null", ""),
        ("tags is empty", "c"),
        ("nothing is empty and tags is not empty", "abd"),
        ("title is empty and page is empty and heading is empty", "abcd"),
        ("path is empty or text is empty", ""),
        (Like.around("tags", "XYLOPHONE 50%"), "b"),
        (Like.around("tags", "5_%"), ""),
        ("page is not null", ""),
        ("metadata.page is not null", "ad"),
        ("metadata.page = '100'", "a"),
        ("metadata.page > 1", "d"),
        ("metadata.path = 'elsewhere'", "b"),
        ("metadata.metadata.x = 1", "c"),
        ("author.name = 'Ada'", "ac"),
        ("author.name contains 'Ada'", "abc"),
        ("author.born.year < 1900", "a"),
        ("author.born is not null", "a"),
        ("author.born.month is null", "abcd"),
        (Eq('author".name', "Ada"), ""),
        (Eq("author..name", "Ada"), ""),
        (Eq(".author.name", "Ada"), ""),
    ],
)
def test_lists_objects_and_shadowed_names(nested, asked, expected):
    assert paths(nested, asked) == expected


def test_not_is_the_exact_complement(store):
    leaves = [
        "lang = 'en'",
        "size > 50",
        "page > 3",
        "heading like 'ro%'",
        "title like 'k%'",
        "note = 1",
        "draft in (true)",
    ]
    for leaf in leaves:
        assert sorted(paths(store, leaf) + paths(store, f"not {leaf}")) == list("abcd"), leaf


def test_more_values_than_sqlite_has_parameters(store):
    assert paths(store, In("lang", (*(f"v{number}" for number in range(70_000)), "de"))) == "b"


def test_no_filter_means_everything(store):
    assert store.catalog.allowed(store.collection, None) is None


def test_other_collections_stay_out(store):
    other = store.catalog.collection("other", create=True)
    assert store.catalog.allowed(other, Like("path", "%")).tolist() == []

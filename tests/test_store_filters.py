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

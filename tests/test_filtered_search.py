"""Filtered search gives the same answers however the filter is applied, and k of them whenever k exist."""

import sqlite3
import threading
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_kit import DIMENSIONS, Store, vector, write

from ragindex.filters import And, Contains, Empty, Eq, Exists, In, Like, Not, Or, Range, parse
from ragindex.search.engine import Engine, Request
from ragindex.search.restricting import Restrictions
from ragindex.store import allowing
from ragindex.store.catalog import Batch, Catalog
from ragindex.store.snapshot import LiveIndexes
from ragindex.store.vector_index import MemoryVectorIndex

COUNT = 600
QUERY = np.asarray(vector("query"), np.float32)
WORDS = ("amber", "birch", "cedar", "dune")


def near(number):
    return float(np.asarray(vector(text(number)), np.float32) @ QUERY)


def text(number):
    return f"{WORDS[number % 4]} {WORDS[number % 3]} note {number}"


PLACES = {number: place for place, number in enumerate(sorted(range(COUNT), key=near, reverse=True))}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = Store(tmp_path_factory.mktemp("filtered"))
    made.put(*(write(f"{n}.txt", text(n), place=PLACES[n], parity=n % 2, half="ab"[n % 2]) for n in range(COUNT)))
    yield made
    made.catalog.close()


@pytest.fixture
def engine(store):
    with Catalog.open(store.folder) as catalog:
        yield fresh(store, catalog)


def fresh(store, catalog):
    """An engine that has met no filter yet."""
    live = LiveIndexes(catalog, store.folder, store.collection, store.encoder.id, DIMENSIONS)
    return Engine(
        catalog, live, store.collection, lambda: SimpleNamespace(config=SimpleNamespace(trust=1.0), reader=None)
    )


def found(engine, mode, asked, depth=5):
    request = Request("amber birch", 3, mode, filter=parse(asked), vector=QUERY)
    ranking = engine.rank(request, depth=depth)
    return list(zip(ranking.ids.tolist(), np.round(ranking.scores, 4).tolist(), strict=True))


FILTERS = (
    "true",
    "place >= 0",
    "place < 480",
    "half = 'a'",
    "half = 'a' or parity = 1",
    "place >= 200",  # the nearest are not allowed
    "place >= 590",
    "place = 3",
    "half in ('a', 'b', 'c') and parity = 0",
    "not half = 'a'",
    "false",
    "half = 'none such'",
)


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
@pytest.mark.parametrize("asked", FILTERS)
def test_asking_and_listing_say_the_same(store, engine, mode, asked):
    first = found(engine, mode, asked)
    listed = store.catalog.allowed(store.collection, parse(asked))
    assert {number for number, _ in first} <= set(listed.tolist())
    for _ in range(6):
        assert found(engine, mode, asked) == first
    assert engine._catalog.known_allowed(store.collection, parse(asked)) is not None


@pytest.mark.parametrize("asked", FILTERS)
def test_dense_search_is_exact_under_any_filter(store, engine, asked):
    rows = list(store.catalog.iter_vectors(store.collection, store.encoder.id))
    reference = MemoryVectorIndex(DIMENSIONS)
    for batch in rows:
        reference.add(batch.ids, batch.vectors)
    listed = store.catalog.allowed(store.collection, parse(asked))
    expected = reference.search(QUERY, 20, listed)
    assert [number for number, _ in found(engine, "dense", asked, 20)] == expected.ids.tolist()
    assert len(expected.ids) == min(20, len(listed))


def test_what_lets_much_through_is_asked_about_and_after_some_uses_listed(store):
    with Catalog.open(store.folder) as catalog:
        restrictions = Restrictions(catalog, store.collection)
        wide, narrow = parse("half in ('a', 'b')"), parse("place < 30")
        assert restrictions.choose(narrow, 5).ids.tolist() == catalog.allowed(store.collection, narrow).tolist()
        choices = [restrictions.choose(wide, 5) for _ in range(6)]
        assert choices[0].ids is None
        assert choices[0].share == pytest.approx(1.0)
        assert len(choices[-1].ids) == COUNT
        assert restrictions.choose(None, 5).ids is None
        # Deep searches would ask about nearly everything.
        assert restrictions.choose(parse("parity in (0, 1)"), COUNT).ids is not None


def test_a_guess_is_near_the_share_and_looks_at_its_own_collection(store):
    guess = store.catalog.guessed(store.collection, parse("place < 300"))
    assert guess.share == pytest.approx(0.5, abs=0.2)
    assert guess.total == COUNT
    other = store.catalog.collection("other", create=True)
    assert store.catalog.guessed(other, parse("true")) is None


@pytest.fixture
def small(tmp_path):
    made = Store(tmp_path)
    made.put(*(write(f"{n}.txt", f"text {n}", state="old") for n in range(4)))
    yield made
    made.catalog.close()


def texts(catalog, collection, asked):
    return [row.text for row in catalog.hits(catalog.allowed(collection, parse(asked)))]


def test_a_list_is_kept_until_somebody_commits(small):
    catalog, collection = small.catalog, small.collection
    asked = parse("state = 'new'")
    assert catalog.allowed(collection, asked) is catalog.allowed(collection, asked)
    assert not catalog.allowed(collection, asked).flags.writeable
    # Changed metadata alone do not move the collection's mark.
    before = catalog.mark(collection)
    small.commit(Batch(metadata={"1.txt": {"state": "new"}}))
    assert catalog.mark(collection) == before
    assert texts(catalog, collection, "state = 'new'") == ["text 1"]
    with Catalog.open(small.folder) as other:
        other.commit(collection, Batch(metadata={"2.txt": {"state": "new"}}))
    assert texts(catalog, collection, "state = 'new'") == ["text 1", "text 2"]
    with closing(sqlite3.connect(small.folder / "catalog.sqlite")) as stranger:
        stranger.execute("UPDATE documents SET metadata = '{\"state\": \"new\"}' WHERE path = '3.txt'")
        stranger.commit()
    assert texts(catalog, collection, "state = 'new'") == ["text 1", "text 2", "text 3"]
    small.commit(Batch(removes=["1.txt"]))
    assert texts(catalog, collection, "state = 'new'") == ["text 2", "text 3"]


def test_equal_to_python_is_not_equal_to_a_filter(small):
    small.commit(Batch(metadata={"0.txt": {"x": True}, "1.txt": {"x": 1}, "2.txt": {"x": "1"}}))
    for _ in range(2):
        assert texts(small.catalog, small.collection, "x = true") == ["text 0"]
        assert texts(small.catalog, small.collection, "x = 1") == ["text 1"]
        assert texts(small.catalog, small.collection, "x in (true)") == ["text 0"]
        assert texts(small.catalog, small.collection, "x in (1)") == ["text 1"]


def test_lists_do_not_pile_up(small, monkeypatch):
    monkeypatch.setattr(allowing, "_KEPT_BYTES", 5 * (4 * 8 + allowing._ENTRY_BYTES))
    filters = [parse(f"state = 'old' and not n = {number}") for number in range(9)]
    for asked in filters:
        small.catalog.allowed(small.collection, asked)
    known = [small.catalog.known_allowed(small.collection, asked) is not None for asked in filters]
    assert known == [False] * 4 + [True] * 5


def test_a_store_that_cannot_be_written_is_listed_anew_each_time(small, monkeypatch):
    monkeypatch.setattr(type(small.catalog._database), "revision", lambda self: None)
    for _ in range(2):
        assert len(small.catalog.allowed(small.collection, parse("state = 'old'"))) == 4
    assert small.catalog.known_allowed(small.collection, parse("state = 'old'")) is None


def test_no_reader_is_told_what_was_true_before_the_last_commit(small):
    """Four readers through one catalogue, while another one changes metadata."""
    stop, wrong = threading.Event(), []
    committed = [0]

    def read():
        while not stop.is_set():
            least = committed[0]
            said = texts(small.catalog, small.collection, f"turn >= {least}")
            if len(said) != 4:
                wrong.append((least, said))

    small.commit(Batch(metadata={f"{n}.txt": {"turn": 0} for n in range(4)}))
    readers = [threading.Thread(target=read) for _ in range(4)]
    with Catalog.open(small.folder) as writer:
        for thread in readers:
            thread.start()
        for turn in range(1, 40):
            writer.commit(small.collection, Batch(metadata={f"{n}.txt": {"turn": turn} for n in range(4)}))
            committed[0] = turn
        stop.set()
        for thread in readers:
            thread.join()
    assert wrong == []


VALUES = {
    "a": {"s": "x", "n": 1, "f": 1.0, "b": True, "z": None, "l": ["x", 1, None], "o": {"s": "x", "k.l": 2}},
    "b": {"s": "X", "n": -2.5, "f": 1e300, "b": False, "l": [], "o": {"s": "y", "p": {"s": "x"}}, "e": ""},
    "c": {"s": "x" * 201, "n": "1", "l": ["x" * 300], "o.s": "x", "e": [], "b": 1},
    "d": {"s": "x" * 200, "l": [f"{n}" for n in range(400)], "o": ["x"], "e": {}, "f": 2**62},
    "e": {"s": ["x"], "l": "x,y", "o": "x", 'q"': "x", "é.ü": "ß", "n": True, "f": "x" * 500 + "z"},
    "f": {},
}
LEAVES = ("s", "n", "f", "b", "z", "l", "o", "o.s", "o.k.l", "o.p.s", "e", 'q"', "é.ü", "metadata.s", "path", "none")
WANTED = (
    "x",
    "X",
    "",
    "1",
    "x" * 200,
    "x" * 201,
    "x" * 300,
    "x" * 500 + "z",
    1,
    1.0,
    0,
    -2.5,
    2**62,
    1e300,
    True,
    False,
)


@pytest.fixture(scope="module")
def various(tmp_path_factory):
    made = Store(tmp_path_factory.mktemp("various"))
    for name, metadata in VALUES.items():
        made.put(write(f"{name}.txt", name))
        made.commit(Batch(metadata={f"{name}.txt": metadata}))
    yield made
    made.catalog.close()


_field, _value = st.sampled_from(LEAVES), st.sampled_from(WANTED)
_bound = st.one_of(st.none(), st.sampled_from([one for one in WANTED if not isinstance(one, bool)]))
_leaf = st.one_of(
    st.builds(Eq, _field, st.one_of(st.none(), _value)),
    st.builds(In, _field, st.lists(st.one_of(st.none(), _value), max_size=4).map(tuple)),
    st.builds(Contains, _field, _value),
    st.builds(Like, _field, st.sampled_from(["x%", "%", "_", "%z", "X"])),
    st.builds(Exists, _field),
    st.builds(Empty, _field),
    st.tuples(_field, _bound, _bound, st.booleans(), st.booleans())
    .filter(lambda given: given[1] is not None or given[2] is not None)
    .map(lambda given: Range(*given)),
)
_filter = st.recursive(
    _leaf,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, max_size=3).map(tuple)),
    ),
    max_leaves=5,
)


@given(asked=_filter)
@settings(max_examples=300, deadline=None)
def test_looking_up_and_reading_agree(various, asked):
    catalog, collection = various.catalog, various.collection
    everything = catalog.allowed(collection, And(()))
    looked_up = catalog.allowed(collection, asked)
    assert catalog.permitted(collection, asked, everything).tolist() == looked_up.tolist()
    assert catalog.count(collection, asked) == len(looked_up)
    assert [row.chunk_id for row in catalog.find(collection, asked)] == looked_up.tolist()
    assert [row.chunk_id for row in catalog.find(collection, asked, offset=1, limit=2)] == looked_up.tolist()[1:3]


def test_listed_values_follow_every_change(various):
    """What stands in `document_fields` is what would be put there now, and nothing of what is gone."""
    store = various
    store.put(write("g.txt", "g", s="x"))
    store.put(write("g.txt", "g again", s="y"))
    store.put(write("h.txt", "h", s="x"))
    store.commit(Batch(removes=["h.txt"]))
    with closing(sqlite3.connect(store.folder / "catalog.sqlite", isolation_level=None)) as connection:
        rows = "SELECT * FROM document_fields ORDER BY 1, 2, 3, 4"
        kept = connection.execute(rows).fetchall()
        connection.execute("UPDATE documents SET metadata = metadata")  # the trigger makes them anew
        assert connection.execute(rows).fetchall() == kept
        orphans = "SELECT count(*) FROM document_fields WHERE document_id NOT IN (SELECT id FROM documents)"
        assert connection.execute(orphans).fetchone() == (0,)
        own = connection.execute("SELECT value FROM document_fields WHERE key = 's' AND value = 'y'").fetchall()
    assert own == [("y",)]

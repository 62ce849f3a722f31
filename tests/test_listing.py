"""The list of documents, whole, by page, by folder and by a part of the name."""

import pytest
from index_kit import open_index, write
from store_kit import Store
from store_kit import write as document

from ragindex.store.catalog import Batch

PATHS = ["a/1.txt", "a/2.txt", "a0.txt", "b/x.txt", "b/ÜBER.txt", "b/über 50%.txt"]  # in the order of their bytes


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = Store(tmp_path_factory.mktemp("listing"))
    made.put(*(document(path, *["text"] * number, title="Straße" * (number == 4)) for number, path in enumerate(PATHS)))
    other = made.catalog.collection("other", create=True)
    made.catalog.commit(other, Batch(writes=[document("a/3.txt", "text")]))
    yield made
    made.catalog.close()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, PATHS),
        ({"limit": 2}, PATHS[:2]),
        ({"limit": 2, "offset": 4}, PATHS[4:]),
        ({"offset": 5}, PATHS[5:]),
        ({"offset": 6}, []),
        ({"limit": 0}, []),
        ({"prefix": "a"}, PATHS[:2]),
        ({"prefix": "a/"}, PATHS[:2]),
        ({"prefix": "a0.txt"}, ["a0.txt"]),
        ({"prefix": "b", "limit": 1, "offset": 2}, ["b/über 50%.txt"]),
        ({"contains": "über"}, PATHS[4:]),
        ({"contains": "Über 50%"}, ["b/über 50%.txt"]),
        ({"contains": "%"}, ["b/über 50%.txt"]),
        ({"contains": "STRASSE"}, ["b/ÜBER.txt"]),
        ({"contains": "x", "prefix": "b", "limit": 9}, PATHS[3:]),
        ({"contains": "nothing of the kind"}, []),
    ],
)
def test_pages(store, asked, expected):
    rows = store.catalog.documents(store.collection, **asked)
    assert [row.path for row in rows] == expected
    scope = {name: value for name, value in asked.items() if name in ("prefix", "contains")}
    total = store.catalog.document_count(store.collection, **scope)
    assert total == len(store.catalog.documents(store.collection, **scope))


def test_counts_are_those_of_the_document(store):
    for number, row in enumerate(store.catalog.documents(store.collection)):
        assert (row.path, row.chunks, row.tokens) == (PATHS[number], number, 5 * number)
        assert row.length == len("\n".join(["text"] * number))


def test_an_index_lists_in_pages(tmp_path, tiny_encoder_dir):
    write(tmp_path, {"a/one.txt": "One note.\n", "a/two.txt": "Another note.\n", "b.txt": "A third note.\n"})
    with open_index(tmp_path, tiny_encoder_dir) as index:
        index.add(tmp_path)
        everything = index.documents()
        assert [row["path"] for row in everything] == ["a/one.txt", "a/two.txt", "b.txt"]
        assert index.documents(prefix="a", limit=1, offset=1) == everything[1:2]
        assert index.document_count(prefix="a") == 2
        assert index.document_count(contains="TWO") == 1
        # A backup beside the catalogue is no part of it.
        size = index.status()["bytes"]["catalog"]
        (index.store / "catalog.sqlite.bak-0001").write_bytes(bytes(10_000_000))
        assert index.status()["bytes"]["catalog"] == size

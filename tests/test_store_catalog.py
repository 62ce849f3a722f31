import dataclasses
import sqlite3
import threading

import numpy as np
import pytest
from store_kit import DIMENSIONS, Store, key, state, vector, write

from ragindex.errors import CorruptionError, UsageError
from ragindex.store.catalog import Batch, Catalog, FailureWrite, Mark, Move


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path)
    yield made
    made.catalog.close()


def vectors_stored(store):
    connection = sqlite3.connect(store.folder / "catalog.sqlite")
    count = connection.execute("SELECT count(*) FROM vectors").fetchone()[0]
    connection.close()
    return count


def test_a_document_comes_back_as_it_went_in(store):
    store.put(write("docs/a.md", "alpha ünï", "beta 東京", title="T", heading=("H1", "H2"), page=3, lang="en", n=1.5))
    first, second = store.catalog.chunks_of(store.collection, "docs/a.md")
    assert (first.text, second.text) == ("alpha ünï", "beta 東京")
    assert (first.path, first.title, first.heading, first.page) == ("docs/a.md", "T", ("H1", "H2"), 3)
    assert (second.ordinal, second.start, second.end, second.line_start, second.tokens) == (1, 10, 17, 2, 5)
    assert first.metadata == {"lang": "en", "n": 1.5}
    text = store.catalog.document_text(store.collection, "docs/a.md")
    assert text[second.start : second.end] == second.text
    assert store.catalog.file_states(store.collection) == {"docs/a.md": state("docs/a.md")}
    assert store.catalog.integrity() == []


def test_hits_keep_the_order_and_skip_the_vanished(store):
    store.put(write("a", "one", "two", "three"))
    ids = store.ids("a")
    rows = store.catalog.hits([ids[2], 999, ids[0]])
    assert [row.text for row in rows] == ["three", "one"]
    assert store.catalog.hits([]) == []


def test_replacing_logs_the_old_chunks_and_never_reuses_ids(store):
    store.put(write("a", "one", "two"))
    mark, old = store.catalog.mark(store.collection), store.ids("a")
    store.put(write("a", "one", "three"))
    changes = store.catalog.changes_since(store.collection, mark)
    assert changes.removed.tolist() == old
    assert changes.added.tolist() == store.ids("a")
    assert not set(old) & set(store.ids("a"))
    assert store.catalog.document_text(store.collection, "a") == "one\nthree"


def test_the_same_text_has_one_vector(store):
    first = write("a", "same", "other")
    store.put(first)
    missing = store.catalog.missing_keys(store.encoder.id, [key("same"), key("new")])
    assert missing == {key("new")}
    again = dataclasses.replace(write("b", "same"), vectors={})
    store.put(again)
    assert vectors_stored(store) == 2
    assert store.catalog.counts(store.collection).vectors == 2
    pair = store.catalog.vectors(store.encoder.id, [store.ids("b")[0], store.ids("a")[0]])
    np.testing.assert_array_equal(pair[0], pair[1])
    assert [row.path for row in store.catalog.documents(store.collection)] == ["a", "b"]


def test_missing_keys_of_many(store):
    store.put(write("a", *(f"t{number}" for number in range(700))))
    asked = [key(f"t{number}") for number in range(1400)]
    assert store.catalog.missing_keys(store.encoder.id, asked) == {key(f"t{number}") for number in range(700, 1400)}


def test_a_chunk_without_its_vector_is_refused_and_nothing_is_stored(store):
    with pytest.raises(CorruptionError, match="without its vector"):
        store.put(write("a", "one"), dataclasses.replace(write("b", "two"), vectors={}))
    assert store.catalog.file_states(store.collection) == {}
    assert store.catalog.generation(store.collection) == 0


@pytest.mark.parametrize("bad", [np.full(DIMENSIONS, np.nan, np.float16), np.ones(DIMENSIONS - 1, np.float16)])
def test_a_bad_vector_is_refused(store, bad):
    with pytest.raises(CorruptionError, match="finite"):
        store.put(dataclasses.replace(write("a", "one"), vectors={key("one"): bad}))


def test_contradicting_batches_are_refused(store):
    with pytest.raises(UsageError, match="twice"):
        store.put(write("a", "x"), write("a", "y"))
    with pytest.raises(UsageError, match="failure"):
        store.commit(Batch(writes=[write("a", "x")], failures=[FailureWrite("a", "broken")]))
    with pytest.raises(UsageError, match="keys"):
        store.put(dataclasses.replace(write("a", "x"), keys=[]))


def test_text_that_is_not_unicode_is_refused(store):
    with pytest.raises(UsageError, match="Unicode"):
        store.commit(Batch(writes=[dataclasses.replace(write("a", "x"), document=write("\udcff", "x").document)]))


def test_moves_keep_chunk_ids_and_log_them_again(store):
    store.put(write("a", "one"), write("b", "two"))
    mark, ids = store.catalog.mark(store.collection), store.ids("a")
    store.commit(Batch(moves=[Move("a", "z/a", state("z/a", mtime_ns=9))]))
    assert store.ids("z/a") == ids
    assert store.ids("a") == []
    changes = store.catalog.changes_since(store.collection, mark)
    assert (changes.added.tolist(), changes.removed.tolist()) == (ids, [])
    assert store.catalog.file_states(store.collection)["z/a"].mtime_ns == 9


def test_swapped_and_chained_moves(store):
    store.put(write("a", "one"), write("b", "two"), write("c", "three"))
    ids = {name: store.ids(name) for name in "abc"}
    moves = [Move("a", "b", state("b")), Move("b", "a", state("a")), Move("c", "d", state("d"))]
    store.commit(Batch(moves=moves))
    assert (store.ids("a"), store.ids("b"), store.ids("d")) == (ids["b"], ids["a"], ids["c"])


def test_a_move_onto_a_document_replaces_it(store):
    store.put(write("a", "one"), write("b", "two"))
    a, b = store.ids("a"), store.ids("b")
    mark = store.catalog.mark(store.collection)
    store.commit(Batch(moves=[Move("a", "b", state("b"))]))
    assert store.ids("b") == a
    assert store.catalog.changes_since(store.collection, mark).removed.tolist() == b
    with pytest.raises(UsageError, match="not indexed"):
        store.commit(Batch(moves=[Move("nowhere", "x", state("x"))]))


def test_touches_and_metadata_change_no_chunk(store):
    generation = store.put(write("a", "one", kind="x"))
    touched = state("a", mtime_ns=77, size=5)
    assert store.commit(Batch(touches=[touched], metadata={"a": {"kind": "y", "score": float("nan")}})) == generation
    assert store.catalog.file_states(store.collection)["a"] == touched
    assert store.catalog.chunks_of(store.collection, "a")[0].metadata == {"kind": "y", "score": None}


def test_a_failure_takes_the_document_along_and_a_success_clears_it(store):
    store.put(write("a", "one"))
    store.commit(Batch(failures=[FailureWrite("a", "no text layer", size=4, mtime_ns=5, sha256="bb")]))
    assert store.ids("a") == []
    remembered = store.catalog.failure_states(store.collection)["a"]
    assert (remembered.size, remembered.mtime_ns, remembered.sha256) == (4, 5, "bb")
    store.commit(Batch(failures=[FailureWrite("a", "another reason")]))
    assert [(row.path, row.reason) for row in store.catalog.failures(store.collection)] == [("a", "another reason")]
    store.put(write("a", "one"))
    assert store.catalog.failures(store.collection) == []
    store.commit(Batch(failures=[FailureWrite("c", "gone")]))
    store.commit(Batch(cleared_failures=["c"]))
    assert store.catalog.failures(store.collection) == []


def test_states_below_a_folder(store):
    store.put(*(write(path, "x") for path in ("docs/a", "docs/b/c", "docs-old/a", "docs0", "other")))
    assert set(store.catalog.file_states(store.collection, "docs")) == {"docs/a", "docs/b/c"}
    assert set(store.catalog.file_states(store.collection, "docs/a")) == {"docs/a"}
    assert len(store.catalog.file_states(store.collection, ".")) == 5


def test_neighbours_stay_in_the_document(store):
    store.put(write("a", *"abcdef"), write("b", "x"))
    ids = store.ids("a")
    assert [row.text for row in store.catalog.neighbours(ids[1], 3, 2)] == ["a", "b", "c", "d"]
    assert store.catalog.neighbours(12345, 1, 1) == []


def test_vectors_come_in_the_order_asked(store):
    store.put(write("a", "one", "two"))
    one, two = store.ids("a")
    got = store.catalog.vectors(store.encoder.id, np.array([two, one]))
    np.testing.assert_array_equal(got, np.stack([vector("two"), vector("one")]).astype(np.float32))
    with pytest.raises(CorruptionError, match="no vector"):
        store.catalog.vectors(store.encoder.id, [one, 4711])
    assert store.catalog.present_vectors(store.encoder.id, [4711, one]).ids.tolist() == [one]


def test_bulk_reads_cover_everything_once(store):
    store.put(write("a", *(f"t{number}" for number in range(25))))
    batches = list(store.catalog.iter_vectors(store.collection, store.encoder.id, batch=10))
    assert [len(batch.ids) for batch in batches] == [10, 10, 5]
    assert np.concatenate([batch.ids for batch in batches]).tolist() == store.ids("a")
    entries = [entry for some in store.catalog.iter_texts(store.collection, batch=10) for entry in some]
    assert [entry.text for entry in entries] == [f"t{number}" for number in range(25)]


def test_sweep_deletes_only_unused_vectors(store):
    store.put(write("a", "one", "two"), write("b", "two", "three"))
    store.commit(Batch(removes=["a"]))
    assert store.catalog.sweep_vectors() == 1
    assert store.catalog.missing_keys(store.encoder.id, map(key, ["one", "two", "three"])) == {key("one")}
    store.catalog.vacuum()
    assert store.catalog.integrity() == []


def test_collections_are_apart(store):
    other = store.catalog.collection("other", create=True)
    store.put(write("a", "one"))
    store.catalog.commit(other, Batch(writes=[write("a", "two")]))
    assert store.catalog.document_text(other, "a") == "two"
    assert store.catalog.document_text(store.collection, "a") == "one"
    assert store.catalog.counts(other).chunks == 1
    with pytest.raises(UsageError, match="existing: default, other"):
        store.catalog.collection("ohter")
    with pytest.raises(UsageError, match="not indexed"):
        store.catalog.document_text(other, "b")


def test_settings_encoders_roots(store):
    store.catalog.set_setting("chunking", {"tokens": 256})
    store.catalog.set_setting("chunking", {"tokens": 128})
    assert store.catalog.setting("chunking") == {"tokens": 128}
    assert store.catalog.setting("nothing", 5) == 5
    again = store.catalog.register_encoder("test-encoder", "elsewhere", DIMENSIONS, {})
    assert (again.id, again.locator) == (store.encoder.id, "elsewhere")
    assert store.catalog.encoder() == again
    with pytest.raises(UsageError, match="no encoder"):
        store.catalog.activate_encoder("unknown")
    for root in ("docs", "src", "docs"):
        store.catalog.add_root(store.collection, root)
    assert store.catalog.roots(store.collection) == ["docs", "src"]


def test_a_second_encoder_is_prepared_and_then_activated(store):
    store.put(write("a", "one"))
    new = store.catalog.register_encoder("new", "dir", 4, {})
    assert store.catalog.missing_keys(new.id, [key("one")]) == {key("one")}
    store.catalog.add_vectors(new.id, {key("one"): vector("one", 4)})
    assert store.catalog.encoder() == store.encoder
    store.catalog.activate_encoder("new")
    assert store.catalog.integrity() == []
    assert store.catalog.vectors(new.id, store.ids("a")).shape == (1, 4)


def test_a_reader_sees_each_commit_without_reopening(store):
    with Catalog.open(store.folder, create=False) as reader:
        before = reader.generation(store.collection)
        store.put(write("a", "one"))
        assert reader.generation(store.collection) > before
        assert reader.document_text(store.collection, "a") == "one"


def test_threads_read_while_another_writes(store):
    store.put(write("a", "one"))
    errors = []

    def read():
        try:
            for _ in range(30):
                counts = store.catalog.counts(store.collection)
                assert counts.documents == counts.chunks
        except Exception as error:  # noqa: BLE001 - carried to the main thread
            errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
    for number in range(15):
        store.put(write(f"d{number}", f"text {number}"))
    for thread in readers:
        thread.join()
    assert errors == []


def test_the_log_is_cut_and_old_marks_are_refused(store):
    store.put(write("a", "one"))
    old = store.catalog.mark(store.collection)
    store.put(write("b", "two"))
    middle = store.catalog.mark(store.collection)
    store.put(write("c", "three"))
    store.catalog.trim_changes(store.collection, middle.generation)
    assert store.catalog.changes_since(store.collection, old) is None
    assert store.catalog.changes_since(store.collection, Mark()) is None
    assert store.catalog.changes_since(store.collection, middle).added.tolist() == store.ids("c")
    now = store.catalog.mark(store.collection)
    store.catalog.trim_changes(store.collection, now.generation)
    assert store.catalog.mark(store.collection) == now
    assert store.catalog.changes_since(store.collection, now).added.tolist() == []


def test_a_mark_of_another_history_is_refused(store):
    store.put(write("a", "one"))
    now = store.catalog.mark(store.collection)
    store.put(write("b", "two"))
    assert store.catalog.changes_since(store.collection, Mark(now.generation, now.token + 1)) is None
    assert store.catalog.changes_since(store.collection, Mark(10**9, 1)) is None


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("UPDATE chunks SET text = 'else' WHERE ordinal = 1", "does not equal the text"),
        ("UPDATE chunks SET ordinal = 7 WHERE ordinal = 1", "not numbered in sequence"),
        ("UPDATE vectors SET data = zeroblob(16)", "instead of 1"),
        ("UPDATE vectors SET data = x'00'", "bytes instead of 16"),
        ("DELETE FROM vectors", "has no vector"),
        ("UPDATE document_texts SET text = x'00'", "missing or damaged"),
        ("UPDATE chunks SET collection_id = 99", "missing row of collections"),
    ],
)
def test_integrity_finds(store, damage, sentence):
    store.put(write("a", "one", "two"))
    connection = sqlite3.connect(store.folder / "catalog.sqlite")
    connection.execute(damage)
    connection.commit()
    connection.close()
    assert any(sentence in problem for problem in store.catalog.integrity())

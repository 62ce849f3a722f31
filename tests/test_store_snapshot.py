import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from store_kit import DIMENSIONS, FINGERPRINT, Store, state, vector, write

from ragindex.errors import UsageError
from ragindex.store import live_dense, live_text
from ragindex.store.catalog import Batch, Catalog, Move
from ragindex.store.lease import WriterLease
from ragindex.store.snapshot import LiveIndexes

QUERY = vector("question").astype(np.float32)
WORDS = "shared text wadx warx wbox"


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path)
    made.put(
        *(
            write(
                f"d{number}.txt",
                f"shared text w{chr(97 + number // 26)}{chr(97 + number % 26)}x",
                f"other words {number}",
            )
            for number in range(60)
        )
    )
    yield made
    made.catalog.close()


def live(store, catalog=None):
    return LiveIndexes(catalog or store.catalog, store.folder, store.collection, store.encoder.id, DIMENSIONS)


def answers(indexes, k=15):
    dense, lexical = indexes.dense().search(QUERY, k), indexes.lexical().search(WORDS, k)
    return [dense.ids.tolist(), dense.scores.tolist(), lexical.ids.tolist(), np.round(lexical.scores, 4).tolist()]


def folder(store):
    return store.folder / "snapshots" / str(store.collection)


def dense_folder(store):
    return folder(store) / f"dense-{FINGERPRINT[:12]}"


def published(store):
    indexes = live(store)
    with WriterLease(store.folder, command="test"):
        indexes.publish(force=True)
    return indexes


def fresh_answers(store, tmp_path):
    """What a store that never had a snapshot says."""
    elsewhere = tmp_path / "elsewhere"
    return answers(LiveIndexes(store.catalog, elsewhere, store.collection, store.encoder.id, DIMENSIONS))


def test_everything_answers_before_anything_is_published(store):
    indexes = live(store)
    assert len(indexes.dense()) == len(indexes.lexical()) == 120
    assert indexes.status().dense_generation is None
    assert len(answers(indexes)[0]) == 15


def test_publishing_changes_no_answer(store):
    before = answers(live(store))
    indexes = published(store)
    status = indexes.status()
    assert status.generation == status.dense_generation == status.lexical_generation
    assert (status.factory, status.pending) == ("Flat", 0)
    assert status.dense_bytes > 0 < status.lexical_bytes
    assert answers(indexes) == before
    assert answers(live(store)) == before
    assert indexes.problems() == []


def test_deleting_the_snapshots_changes_no_answer(store):
    expected = answers(published(store))
    shutil.rmtree(store.folder / "snapshots")
    assert answers(live(store)) == expected


def test_a_new_commit_is_seen_at_once(store):
    indexes = published(store)
    store.put(write("new.txt", "question"))
    new = store.ids("new.txt")
    assert indexes.dense().search(QUERY, 1).ids.tolist() == new
    assert indexes.lexical().search("question", 3).ids.tolist() == new
    store.commit(Batch(removes=["new.txt"]))
    assert indexes.dense().search(QUERY, 1).ids.tolist() != new
    assert indexes.lexical().search("question", 3).ids.tolist() == []


def test_a_crash_between_commit_and_publishing_is_made_good(store, tmp_path):
    published(store)
    store.put(write("d3.txt", "question wadx"), write("late.txt", "question"))
    store.commit(Batch(removes=["d17.txt"]))
    indexes = live(store)
    assert answers(indexes)[:2] == fresh_answers(store, tmp_path)[:2]
    assert set(indexes.lexical().search("question", 5).ids.tolist()) == {*store.ids("d3.txt"), *store.ids("late.txt")}
    assert indexes.lexical().search("warx", 5).ids.tolist() == []
    assert len(indexes.lexical()) == len(indexes.dense()) == store.catalog.counts(store.collection).chunks
    assert indexes.status().lexical_generation == store.catalog.generation(store.collection)


def test_a_reader_beside_a_writer_lays_the_new_rows_over(store):
    published(store)
    with Catalog.open(store.folder, create=False) as catalog, WriterLease(store.folder, command="test"):
        reader = live(store, catalog)
        store.put(write("late.txt", "question alpha"))
        assert reader.lexical().search("question", 5).ids.tolist() == store.ids("late.txt")
        store.commit(Batch(removes=["d3.txt"], moves=[Move("d4.txt", "zebra.txt", state("zebra.txt"))]))
        assert reader.lexical().search("wadx", 5).ids.tolist() == []
        assert set(reader.lexical().search("zebra", 5).ids.tolist()) == set(store.ids("zebra.txt"))
        store.put(write("late.txt", "answer beta"))
        assert reader.lexical().search("question", 5).ids.tolist() == []
        assert reader.lexical().search("answer", 5).ids.tolist() == store.ids("late.txt")
        assert len(reader.lexical()) == store.catalog.counts(store.collection).chunks
        assert reader.status().lexical_generation < store.catalog.generation(store.collection)
        # The writer publishes; the reader returns to the index on disk.
        live(store).publish()
        store.put(write("last.txt", "omega"))
        assert reader.lexical().search("omega", 5).ids.tolist() == store.ids("last.txt")
        assert reader.lexical().search("answer", 5).ids.tolist() == store.ids("late.txt")


def test_a_read_only_store_without_snapshots_answers(store, tmp_path, monkeypatch):
    expected = answers(live(store))
    shutil.rmtree(store.folder / "snapshots")
    monkeypatch.setattr(type(store.catalog), "read_only", True)
    assert answers(live(store)) == expected
    assert not (store.folder / "snapshots").exists()


def test_a_move_is_searchable_by_its_new_name(store):
    indexes = published(store)
    dense = answers(indexes)[:2]
    store.commit(Batch(moves=[Move("d5.txt", "crocodile.txt", state("crocodile.txt"))]))
    assert indexes.lexical().search("crocodile", 5).ids.tolist() == store.ids("crocodile.txt")
    assert answers(indexes)[:2] == dense
    assert indexes.dense().pending == 0


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_flipped_bit_in_the_dense_snapshot_is_noticed(store, place):
    expected = answers(published(store))
    file = next(dense_folder(store).glob("dense.*.faiss"))
    data = bytearray(file.read_bytes())
    data[place] ^= 4
    file.write_bytes(data)
    indexes = live(store)
    assert answers(indexes) == expected
    assert any("dense snapshot" in problem for problem in indexes.problems())
    with WriterLease(store.folder, command="test"):
        indexes.rebuild()
    assert live(store).problems() == []


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"{", b'{"format": 99}', None])
def test_a_broken_manifest_counts_as_none(store, content):
    expected = answers(published(store))
    manifest = dense_folder(store) / "dense.json"
    manifest.unlink() if content is None else manifest.write_bytes(content)
    indexes = live(store)
    assert answers(indexes) == expected
    with WriterLease(store.folder, command="test"):
        indexes.publish(force=True)
    assert live(store).status().dense_generation == store.catalog.generation(store.collection)


def test_a_manifest_cannot_lead_out_of_its_folder(store, tmp_path):
    expected = answers(published(store))
    manifest = dense_folder(store) / "dense.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"file": "../../../etc/passwd"}))
    assert answers(live(store)) == expected


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_lexical_index_falsifies_nothing(store, seed):
    expected = answers(published(store))
    rng = np.random.default_rng(seed)
    files = sorted((folder(store) / "lexical").glob("*.*"))
    file = [path for path in files if path.suffix in {".term", ".idx", ".fast", ".json"}][seed % 4]
    data = bytearray(file.read_bytes())
    for place in rng.integers(0, len(data), 200):
        data[place] = 255
    file.write_bytes(data)
    assert live(store).problems()
    with WriterLease(store.folder, command="test"):
        assert answers(live(store)) == expected
    assert live(store).problems()
    assert answers(live(store)) == expected
    assert live(store).problems() == []


def test_one_flipped_bit_in_the_postings_is_noticed(store):
    expected = answers(published(store))
    for file in sorted((folder(store) / "lexical").glob("*.idx")):
        data = bytearray(file.read_bytes())
        data[len(data) // 3] ^= 1
        file.write_bytes(data)
    assert answers(live(store)) == expected
    assert live(store).problems() == []


def test_changes_are_replayed_not_rebuilt(store, monkeypatch):
    published(store)
    store.commit(Batch(removes=["d3.txt"], writes=[write("d4.txt", "question")]))
    monkeypatch.setattr(live_dense.LiveDense, "_rebuilt", None)
    monkeypatch.setattr(live_text.LiveText, "_rebuild_on_disk", None)
    indexes = live(store)
    assert indexes.dense().search(QUERY, 1).ids.tolist() == store.ids("d4.txt")
    assert indexes.lexical().search("question", 5).ids.tolist() == store.ids("d4.txt")
    assert len(indexes.dense()) == len(indexes.lexical()) == 117


def test_missing_lexical_files_are_made_again(store):
    expected = answers(published(store))
    for file in (folder(store) / "lexical").glob("*.term"):
        file.unlink()
    assert answers(live(store)) == expected


def test_a_snapshot_of_another_encoder_is_not_used(store):
    published(store)
    new = store.catalog.register_encoder("new", "dir", DIMENSIONS, {})
    rows = [row for document in store.catalog.documents(store.collection) for row in _chunks(store, document.path)]
    from store_kit import key

    store.catalog.add_vectors(new.id, {key(row.text): -vector(row.text) for row in rows})
    store.catalog.activate_encoder("new")
    swapped = LiveIndexes(store.catalog, store.folder, store.collection, new.id, DIMENSIONS)
    old = live(store).dense().search(QUERY, 3)
    assert swapped.dense().search(-QUERY, 3).ids.tolist() == old.ids.tolist()
    with WriterLease(store.folder, command="test"):
        swapped.publish(force=True)
    assert swapped.status().dense_generation == store.catalog.generation(store.collection)


def _chunks(store, path):
    return store.catalog.chunks_of(store.collection, path)


def test_a_restored_catalogue_does_not_trust_newer_snapshots(store, tmp_path):
    from ragindex.store import migrate

    copy = migrate.backup(store.folder, tmp_path / "backup")
    store.put(write("x.txt", "lost later"))
    published(store)
    store.catalog.close()
    for file in store.folder.glob("catalog.sqlite*"):
        file.unlink()
    copy.replace(store.folder / "catalog.sqlite")
    restored = Store(store.folder)
    restored.put(write("y.txt", "came instead"))
    indexes = live(restored)
    assert indexes.lexical().search("lost later", 5).ids.tolist() == []
    assert indexes.lexical().search("instead", 5).ids.tolist() == restored.ids("y.txt")
    near = indexes.dense().search(vector("came instead").astype(np.float32), 1)
    assert near.ids.tolist() == restored.ids("y.txt")
    restored.catalog.close()


def test_the_log_is_cut_after_publishing_and_old_readers_recover(store):
    reader = live(store)
    answers(reader)
    store.put(write("a.txt", "question"))
    published(store)
    store.put(write("b.txt", "later question"))
    published(store)
    assert reader.dense().search(QUERY, 1).ids.tolist() == store.ids("a.txt")
    assert len(reader.dense()) == len(reader.lexical()) == 122


def test_small_changes_are_not_published_until_forced(store, monkeypatch):
    monkeypatch.setattr(live_dense, "_FEW", 10)
    indexes = published(store)
    first = indexes.status().dense_generation
    with WriterLease(store.folder, command="test"):
        store.put(write("a.txt", "one"))
        indexes.publish()
        assert (indexes.status().dense_generation, indexes.status().pending) == (first, 1)
        store.put(*(write(f"n{number}.txt", f"new {number}") for number in range(20)))
        indexes.publish()
        assert indexes.status().pending == 0
    assert len(list(dense_folder(store).glob("dense.*.faiss"))) == 1


def test_lexical_queries_do_not_load_faiss(store):
    published(store)
    code = (
        "import sys, pathlib\n"
        "from ragindex.store.catalog import Catalog\n"
        "from ragindex.store.snapshot import LiveIndexes\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "indexes = LiveIndexes(Catalog.open(folder), folder, 1, 1, 8)\n"
        "assert len(indexes.lexical().search('wadx', 5).ids) == 1\n"
        "print('faiss' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store.folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_an_encoder_there_is_a_lexical_side_only(tmp_path):
    store = Store(tmp_path)
    store.put(write("a.txt", "alpha"))
    indexes = LiveIndexes(store.catalog, store.folder, store.collection, None, None)
    with WriterLease(store.folder, command="test"):
        indexes.publish(force=True)
    assert indexes.lexical().search("alpha", 1).ids.tolist() == store.ids("a.txt")
    with pytest.raises(UsageError, match="no encoder"):
        indexes.dense()
    store.catalog.close()


def test_an_empty_collection(tmp_path):
    store = Store(tmp_path)
    indexes = live(store)
    assert answers(indexes) == [[], [], [], []]
    with WriterLease(store.folder, command="test"):
        indexes.publish(force=True)
    assert answers(live(store)) == [[], [], [], []]
    store.put(write("a.txt", "question"))
    assert indexes.dense().search(QUERY, 3).ids.tolist() == store.ids("a.txt")
    store.catalog.close()


def test_settled_means_that_a_forced_publish_has_nothing_to_do(store):
    assert not live(store).settled()
    published(store)
    assert live(store).settled()
    store.commit(Batch(removes=["d1.txt"]))
    assert not live(store).settled()
    published(store)
    assert live(store).settled()


@pytest.mark.parametrize("lost", ["dense-*/dense.json", "dense-*/dense.*.faiss", "lexical/meta.json"])
def test_a_store_that_lost_a_file_is_not_settled(store, lost):
    published(store)
    for file in folder(store).glob(lost):
        file.unlink()
    assert not live(store).settled()


def test_deletions_that_still_count_in_scores_are_not_settled(store):
    indexes = published(store)
    store.commit(Batch(removes=["d1.txt", "d2.txt"]))
    with WriterLease(store.folder, command="test"):
        indexes._text_side().publish()  # as after a commit in the middle of a run
        indexes._dense_side().publish(force=True)
    assert not live(store).settled()
    published(store)
    assert live(store).settled()
    assert answers(live(store)) == answers(indexes)


@pytest.mark.parametrize("step", ["replace", "rmtree"])
def test_killed_while_the_lexical_index_is_exchanged(store, monkeypatch, step):
    """At no step of it does half an index lie where a whole one is looked for."""
    indexes, expected = published(store), answers(live(store))
    seen = []
    real_replace, real_rmtree = Path.replace, shutil.rmtree

    def looked(*_):
        seen.append((folder(store) / "lexical").exists())
        assert live(store).problems() == []

    def replace(path, target):
        looked()
        return real_replace(path, target)

    def rmtree(path, **options):
        for file in path.glob("meta.json"):
            file.unlink()  # half-way
        looked()
        return real_rmtree(path, **options)

    if step == "replace":
        monkeypatch.setattr(Path, "replace", replace)
    else:
        monkeypatch.setattr(live_text.shutil, "rmtree", rmtree)
    with WriterLease(store.folder, command="test"):
        indexes.rebuild()
    monkeypatch.undo()
    assert seen
    assert answers(live(store)) == expected
    assert not list(folder(store).glob("lexical.*"))

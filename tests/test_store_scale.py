"""What keeps a large store quick: small changes stay small, and many of them leave nothing behind."""

import json
import shutil
import threading

import numpy as np
import pytest
import tantivy
from store_kit import DIMENSIONS, FINGERPRINT, Store, vector, write

from ragindex.store import dense_files
from ragindex.store.analysis import words
from ragindex.store.catalog import Batch
from ragindex.store.lease import WriterLease
from ragindex.store.rows import Mark, TextEntry
from ragindex.store.snapshot import LiveIndexes
from ragindex.store.tantivy_index import TantivyIndex

NONE = np.empty(0, np.int64)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A hundred chunks, published, where that counts as many and changes of a tenth are left to be replayed."""
    monkeypatch.setattr(dense_files, "_REWRITTEN_UP_TO", 50)
    monkeypatch.setattr(dense_files, "_LEFT", 0.1)
    made = Store(tmp_path)
    made.put(*(write(f"d{number}.txt", f"text {number}") for number in range(100)))
    publish(made)
    yield made
    made.catalog.close()


def live(store):
    return LiveIndexes(store.catalog, store.folder, store.collection, store.encoder.id, DIMENSIONS)


def publish(store):
    with WriterLease(store.folder, command="test"):
        live(store).publish(force=True)


def manifest_file(store):
    return store.folder / "snapshots" / str(store.collection) / f"dense-{FINGERPRINT[:12]}" / "dense.json"


def nearest(store, text, k=1):
    found = live(store).dense().search(vector(text).astype(np.float32), k)
    return found.ids.tolist()


def test_a_few_changes_do_not_write_the_snapshot_again(store):
    before = manifest_file(store).read_bytes()
    store.put(write("new.txt", "question"))
    store.commit(Batch(removes=["d7.txt"]))
    publish(store)
    assert manifest_file(store).read_bytes() == before
    assert nearest(store, "question") == store.ids("new.txt")
    assert len(live(store).dense()) == len(live(store).lexical()) == 100
    assert live(store).lexical().search("question", 5).ids.tolist() == store.ids("new.txt")
    assert live(store).status().pending == 2
    assert live(store).problems() == []


def test_more_changes_do(store):
    store.put(*(write(f"new{number}.txt", f"question {number}") for number in range(11)))
    publish(store)
    assert live(store).status().pending == 0
    assert nearest(store, "question 3") == store.ids("new3.txt")


def test_a_small_store_is_written_again_at_any_change(store, monkeypatch):
    monkeypatch.setattr(dense_files, "_REWRITTEN_UP_TO", 100)
    store.put(write("new.txt", "question"))
    publish(store)
    assert live(store).status().pending == 0


def test_a_snapshot_of_another_history_is_never_left(store):
    values = json.loads(manifest_file(store).read_text())
    manifest_file(store).write_text(json.dumps({**values, "token": values["token"] + 1}))
    store.put(write("new.txt", "question"))
    publish(store)
    assert live(store).status().pending == 0
    assert nearest(store, "question") == store.ids("new.txt")


def test_what_is_left_to_be_replayed_is_settled_once_the_words_are_there(store):
    store.put(write("new.txt", "question"))
    assert not live(store).settled()
    publish(store)
    assert live(store).settled()


@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.999])
def test_damage_anywhere_in_a_large_snapshot_is_noticed(store, monkeypatch, place):
    monkeypatch.setattr(dense_files, "_BLOCK", 100)
    publish_again(store)
    file = next(manifest_file(store).parent.glob("dense.*.faiss"))
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 4
    file.write_bytes(data)
    assert dense_files.read_snapshot(file.parent) is None
    assert nearest(store, "text 3") == store.ids("d3.txt")


def publish_again(store):
    with WriterLease(store.folder, command="test"):
        live(store).rebuild()


def entry(number, text):
    return TextEntry(number, text, "", (), f"{number}.txt")


def test_many_small_commits_leave_few_segments_and_no_waste(tmp_path):
    grown, whole = TantivyIndex(tmp_path / "grown"), TantivyIndex(tmp_path / "whole")
    texts = [f"{' '.join(f'word{number * place % 97}' for place in range(60))} end{number}" for number in range(60)]
    for number, text in enumerate(texts, 1):
        grown.apply(NONE, [[entry(number, text)]], Mark(number, 1))
    whole.apply(NONE, [[entry(number, text) for number, text in enumerate(texts, 1)]], Mark(60, 1))
    segments = json.loads((tmp_path / "grown" / "meta.json").read_text())["segments"]
    assert len(segments) < 16
    files = {file.name.split(".")[0] for file in (tmp_path / "grown").iterdir() if file.stem[0] != "."}
    assert files == {"meta", *(segment["segment_id"].replace("-", "") for segment in segments)}
    for question in ("word3 word5", "end17", "word96 end59 word1"):
        assert grown.search(question, 10).ids.tolist() == whole.search(question, 10).ids.tolist()


def test_searches_go_on_while_commits_come_in(tmp_path):
    writer = TantivyIndex(tmp_path / "index")
    writer.apply(NONE, [[entry(1, "shared one")]], Mark(1, 1))
    reader, done, seen = TantivyIndex(tmp_path / "index", create=False), threading.Event(), []

    def read():
        while not done.is_set():
            reader.reload()
            seen.append((reader.mark().generation, len(reader.search("shared", 100).ids)))

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(2, 40):
        writer.apply(NONE, [[entry(number, f"shared {number}")]], Mark(number, 1))
    done.set()
    thread.join()
    reader.reload()
    assert (reader.mark().generation, len(reader.search("shared", 100).ids)) == (39, 39)
    assert seen == sorted(seen)  # no search saw less than the one before


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("snake case", "call snake_case_name here"),
        ("snake_case_name", "call snake_case_name here"),
        ("case", "the camelCaseName of it"),
        ("camelCaseName", "the camelCaseName of it"),
        ("camel_case_name", "the camelCaseName of it"),
        ("ragindex.store.analysis", "import ragindex.store.analysis as one"),
        ("store analysis", "import ragindex.store.analysis as one"),
        ("東京", "私は東京に住んでいます"),
        ("检索", "向量检索系统"),
        ("검색", "벡터검색을 한다"),
    ],
)
def test_identifiers_and_scripts_without_spaces_are_found(tmp_path, question, text):
    index = TantivyIndex(None)
    index.add([entry(1, "nothing of the kind"), entry(2, text), entry(3, "something else")])
    assert index.search(question, 1).ids.tolist() == [2], (words(question), words(text))


def test_a_lexical_index_of_another_layout_is_made_again(store):
    path = store.folder / "snapshots" / str(store.collection) / "lexical"
    shutil.rmtree(path)
    path.mkdir()
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("id", indexed=True, fast=True)
    tantivy.Index(builder.build(), str(path))
    with pytest.raises(ValueError, match=r"[Ss]chema"):
        TantivyIndex(path, create=False)
    assert live(store).lexical().search("17", 5).ids.tolist() == store.ids("d17.txt")

"""Schemes in a store: snapshots in every one of them, the user's choice, and what the command line says of it."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from index_kit import SMALL, corpus
from index_kit import write as write_files
from store_kit import DIMENSIONS, FINGERPRINT, Store, vector, write
from tiny import SENTENCES

from ragindex import Index
from ragindex.cli import main
from ragindex.config import DENSE_INDEXES, Settings, Storage, load_settings
from ragindex.errors import UsageError
from ragindex.store import live_dense
from ragindex.store.catalog import Batch, Catalog
from ragindex.store.lease import WriterLease
from ragindex.store.schemes import SCHEMES, Plan, read_plan, write_plan
from ragindex.store.snapshot import LiveIndexes

QUERY = vector("question").astype(np.float32)
NAMES = tuple(SCHEMES)
RESCORED = tuple(name for name, scheme in SCHEMES.items() if scheme.rescored)


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store")
    made.put(*(write(f"d{number}.txt", f"text {number}", f"other {number}") for number in range(60)))
    yield made
    made.catalog.close()


def live(store, catalog=None):
    return LiveIndexes(catalog or store.catalog, store.folder, store.collection, store.encoder.id, DIMENSIONS)


def publish(store, scheme=None):
    indexes = live(store)
    with WriterLease(store.folder, command="test"):
        if scheme is not None:
            write_plan(store.catalog, store.collection, Plan(scheme))
        indexes.publish(force=True)
    return indexes


def answer(indexes, k=15):
    found = indexes.dense().search(QUERY, k)
    return [found.ids.tolist(), found.scores.tolist()]


def expected(store, tmp_path):
    """What an exact index says that never had a snapshot."""
    write_plan(store.catalog, store.collection, Plan("flat"))
    return answer(LiveIndexes(store.catalog, tmp_path / "elsewhere", store.collection, store.encoder.id, DIMENSIONS))


def files(store):
    return sorted((store.folder / "snapshots" / str(store.collection) / f"dense-{FINGERPRINT[:12]}").glob("dense*"))


@pytest.mark.parametrize("scheme", NAMES)
def test_no_scheme_changes_an_answer(store, tmp_path, scheme):
    exact = expected(store, tmp_path)
    indexes = publish(store, scheme)
    assert indexes.status().scheme == scheme
    assert answer(indexes) == exact
    assert answer(live(store)) == exact
    assert indexes.problems() == []
    assert len(files(store)) == (3 if scheme in RESCORED else 2)
    store.put(write("new.txt", "question"))
    store.commit(Batch(removes=["d7.txt", "d8.txt"]))
    assert answer(live(store), 1)[0] == store.ids("new.txt")
    grown = answer(live(store))
    assert answer(publish(store)) == grown
    assert answer(live(store)) == grown
    shutil.rmtree(store.folder / "snapshots")
    assert answer(live(store)) == grown


@pytest.mark.parametrize("scheme", NAMES)
def test_a_reader_follows_a_writer(store, scheme):
    publish(store, scheme)
    with Catalog.open(store.folder, create=False) as catalog:
        reader = live(store, catalog)
        before = answer(reader)
        store.put(write("late.txt", "question"))
        assert answer(reader, 1)[0] == store.ids("late.txt")
        publish(store)  # takes the files away that the reader has mapped
        store.commit(Batch(removes=["late.txt"]))
        assert answer(reader) == before


@pytest.mark.parametrize("scheme", NAMES)
def test_a_reader_that_lives_long_folds_its_changes_in(store, monkeypatch, scheme):
    publish(store, scheme)
    monkeypatch.setattr(live_dense, "_FEW", 2)
    monkeypatch.setattr(live_dense, "_SHARE", 0.01)
    reader = live(store)
    answer(reader)
    store.put(*(write(f"n{number}.txt", f"new {number}") for number in range(60)), write("q.txt", "question"))
    assert answer(reader, 1)[0] == store.ids("q.txt")
    assert reader.dense().pending == 0
    assert len(reader.dense()) == 181


@pytest.mark.parametrize("place", [0, 40, -1])
@pytest.mark.parametrize("scheme", NAMES)
def test_a_flipped_bit_falsifies_nothing(store, scheme, place):
    exact = answer(publish(store, scheme))
    for file in files(store):
        if file.suffix == ".json":
            continue
        sound = file.read_bytes()
        data = bytearray(sound)
        data[place] ^= 4
        file.write_bytes(data)
        indexes = live(store)
        assert answer(indexes, 15) == exact
        assert any("damaged" in problem for problem in indexes.problems())
        file.write_bytes(sound)
        assert live(store).problems() == []


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_vectors_that_are_gone_come_from_the_catalogue(store, damage):
    exact = answer(publish(store, "binary"))
    file = next(file for file in files(store) if file.suffix == ".vectors")
    file.unlink() if damage == "gone" else file.write_bytes(file.read_bytes()[:-1])
    assert answer(live(store)) == exact
    if damage == "short":
        assert any("Vectors beside" in problem for problem in live(store).problems())
    assert not live(store).settled() or damage == "short"
    with WriterLease(store.folder, command="test"):
        live(store).rebuild()
    assert live(store).problems() == []


def test_a_change_of_plan_is_published_and_then_settled(store):
    publish(store, "flat")
    assert live(store).settled()
    write_plan(store.catalog, store.collection, Plan("rabitq"))
    indexes = live(store)
    assert not indexes.settled()
    assert (indexes.status().scheme, indexes.status().choice.scheme.name) == ("flat", "rabitq")
    with WriterLease(store.folder, command="test"):
        indexes.publish()  # a change of plan alone is no reason to hurry
        assert live(store).status().scheme == "flat"
        indexes.publish(force=True)
    assert live(store).settled()
    assert live(store).status().scheme == "rabitq"


def test_a_check_of_the_snapshot_takes_nothing_from_a_reader(store):
    publish(store)
    with Catalog.open(store.folder, create=False) as catalog:
        reader = live(store, catalog)
        answer(reader)
        store.put(write("late.txt", "question"))
        publish(store)
        assert reader.problems() == []
        assert answer(reader, 1)[0] == store.ids("late.txt")


def test_a_collection_remembers_its_own_plan(store):
    other = store.catalog.collection("other", create=True)
    write_plan(store.catalog, other, Plan("hnsw", 7))
    assert read_plan(store.catalog, other) == Plan("hnsw", 7)
    assert read_plan(store.catalog, store.collection) == Plan()
    store.catalog.set_setting(f"dense/{other}", {"index": "of a later version", "memory_mb": "much"})
    assert read_plan(store.catalog, other) == Plan()


def test_an_empty_collection_in_every_scheme(tmp_path):
    store = Store(tmp_path)
    for scheme in NAMES:
        indexes = publish(store, scheme)
        assert answer(indexes) == answer(live(store)) == [[], []]
        assert indexes.status().scheme == scheme
    store.put(write("a.txt", "question"))
    assert answer(indexes)[0] == store.ids("a.txt")
    store.catalog.close()


@pytest.fixture
def index(tmp_path, tiny_encoder_dir):
    write_files(tmp_path, corpus(12))
    with Index.open(tmp_path / ".ragindex", encoder=str(tiny_encoder_dir), settings=SMALL) as opened:
        opened.add(tmp_path)
        yield opened


def hits(index, filter_text=None):
    found = [index.search(query, k=5, mode="dense", filter=filter_text) for query in SENTENCES]
    # Scores are rounded to 1e-6 where they are made.
    return [[(hit.path, pytest.approx(hit.scores.dense, abs=3e-6)) for hit in some] for some in found]


@pytest.mark.parametrize("scheme", NAMES)
def test_compact_switches_without_embedding(index, scheme):
    before, filtered = hits(index), hits(index, "path like 'doc00%'")
    vectors = index.status()["vectors"]
    result = index.compact(dense=scheme)
    assert (result["dense"]["scheme"], result["dense"]["snapshot"]) == (scheme, scheme)
    assert index.status()["vectors"] == vectors
    assert hits(index) == before
    assert hits(index, "path like 'doc00%'") == filtered
    assert index.verify().ok


def test_later_runs_keep_the_scheme(index, tmp_path):
    index.compact(dense="binary")
    with Index.open(tmp_path / ".ragindex", settings=SMALL) as again:
        write_files(tmp_path, {"more.txt": "One more sentence about nothing.\n"})
        again.add(tmp_path)
        assert again.status()["dense"]["snapshot"] == "binary"
        again.compact()
        assert again.status()["dense"]["asked"] == "binary"
        again.compact(dense="auto")
        assert again.status()["dense"]["snapshot"] == "flat"


def test_settings_decide_at_the_next_run(index, tmp_path):
    chosen = Settings(chunk_tokens=64, overlap=8, index=Storage("ivf-sq8", 5))
    with Index.open(tmp_path / ".ragindex", settings=chosen) as again:
        assert again.status()["dense"]["snapshot"] == "flat"
        again.add(tmp_path)
        found = again.status()["dense"]
        assert (found["asked"], found["snapshot"], found["memory_mb"]) == ("ivf-sq8", "ivf-sq8", 5)
        with pytest.raises(UsageError, match=r"settings .* keep the dense index 'ivf-sq8'"):
            again.compact(dense="flat")
        assert again.status()["dense"]["snapshot"] == "ivf-sq8"
    with pytest.raises(UsageError, match="no dense index 'lsh'"):
        index.compact(dense="lsh")


def test_settings_are_read_from_file_and_environment(tmp_path):
    (tmp_path / "ragindex.toml").write_text('[index]\ndense = "hnsw"\nmemory_mb = 64\n')
    assert load_settings(tmp_path, {}).index == Storage("hnsw", 64)
    assert load_settings(tmp_path, {"RAGINDEX_INDEX_DENSE": "binary"}).index == Storage("binary", 64)
    assert load_settings(tmp_path, {"RAGINDEX_INDEX_MEMORY_MB": "0"}).index == Storage("hnsw", 0)
    for text, said in (
        ('[index]\ndense = "lsh"', "no dense index 'lsh'; choose one of auto"),
        ("[index]\nmemory_mb = -1", "must not be negative"),
        ("[index]\nmemory = 1", "unknown key 'memory'; known keys are dense, memory_mb, search_on"),
        ("index = 3", "must be a table"),
        ("[index]\ndense = 3", "dense must be a string"),
    ):
        (tmp_path / "ragindex.toml").write_text(text)
        with pytest.raises(UsageError, match=said):
            load_settings(tmp_path, {})


@pytest.fixture
def here(index, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("RAGINDEX_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(main, arguments)


def test_the_command_line_switches_and_shows(here):
    done = run("compact", "--index", "rabitq")
    assert done.exit_code == 0
    assert "rabitq was asked for: 2-bit codes in inverted lists" in done.stdout
    shown = " ".join(run("status").stdout.split())
    assert "IVF1,RaBitQ2: rabitq was asked for: 2-bit codes in inverted lists" in shown
    value = json.loads(run("status", "--json").stdout)
    assert value["index"] == "IVF1,RaBitQ2"
    assert value["dense"]["asked"] == value["dense"]["scheme"] == value["dense"]["snapshot"] == "rabitq"
    assert value["dense"]["disk_bytes"] > 0
    (here / "ragindex.toml").write_text('[index]\ndense = "flat"\n')
    refused = run("compact", "--index", "auto")
    assert refused.exit_code == 2
    assert "keep the dense index 'flat'" in refused.stderr
    assert run("compact").exit_code == 0
    assert json.loads(run("status", "--json").stdout)["dense"]["snapshot"] == "flat"


def test_a_scheme_that_the_command_line_does_not_know(here):
    refused = run("compact", "--index", "lsh")
    assert refused.exit_code == 2
    assert all(name in refused.stderr for name in DENSE_INDEXES)

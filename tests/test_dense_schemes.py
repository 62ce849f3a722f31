"""What every scheme must do, whatever it keeps of the vectors."""

import numpy as np
import pytest
from dense_kit import D, World, assert_equal, recall

from ragindex.config import DENSE_INDEXES
from ragindex.errors import UsageError
from ragindex.store import codecs, dense_probing
from ragindex.store.dense_base import Source
from ragindex.store.dense_lists import ListsDraft
from ragindex.store.faiss_index import FaissIndex
from ragindex.store.rows import VectorBatch
from ragindex.store.schemes import SCHEMES, Plan, choose
from ragindex.store.tuning import Truth, Tuning, imitated, tuning_of
from ragindex.store.vector_file import VectorFile, write_vectors

NAMES = tuple(SCHEMES)
RESCORED = tuple(name for name, scheme in SCHEMES.items() if scheme.rescored)
LISTS = tuple(name for name, scheme in SCHEMES.items() if scheme.kind == "lists")


def reopened(index, path, fetch):
    """The index as another process finds it."""
    index.save(path)
    data = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
    return FaissIndex.read(D, fetch, index.scheme, data=np.asarray(data), tuning=index.tuning)


def changed(world, upto, scheme):
    """An index and the reference after adds and removes."""
    index, reference = world.build(upto, scheme)
    for target in (index, reference):
        target.add(world.ids[upto:], world.vectors[upto:])
        target.remove(world.ids[::7])
    return index, reference


def test_settings_and_schemes_know_the_same_names():
    assert set(DENSE_INDEXES) == {"auto", *NAMES}


@pytest.mark.parametrize("scheme", NAMES)
def test_finds_what_is_near_through_adds_removes_and_folding(scheme):
    world = World(2_400)
    index, reference = changed(world, 2_000, scheme)
    assert index.tuning.recall >= 0.98
    assert recall(index, reference, world) >= 0.97
    assert recall(index, reference, world, k=150, queries=5) >= 0.9
    folded = index.compacted()
    assert (len(folded), folded.pending, folded.factory) == (len(index), 0, index.factory)
    assert recall(folded, reference, world) >= 0.97
    assert len(index) == len(reference)


@pytest.mark.parametrize("share", [0.9, 0.3, 0.02, 0.004])
@pytest.mark.parametrize("scheme", NAMES)
def test_k_results_at_every_selectivity(scheme, share):
    world = World(2_000)
    index, reference = changed(world, 1_700, scheme)
    allowed = np.sort(world.rng.choice(world.ids, int(share * len(world.ids)), replace=False))
    assert recall(index, reference, world, allowed=allowed, queries=8) >= 0.95


@pytest.mark.parametrize("scheme", NAMES)
def test_what_lies_in_one_far_corner_is_found_as_often_as_asked(scheme):
    world = World(2_000)
    index, _ = world.build(scheme=scheme)
    query = world.query()
    far = np.sort(world.ids[np.argsort(world.vectors @ query)[:1_200]])
    found = index.search(query, 1_100, far).ids
    assert len(found) == 1_100
    assert set(found.tolist()) <= set(far.tolist())


@pytest.mark.parametrize("scheme", LISTS)
def test_the_search_visits_more_lists_until_k_are_found(scheme):
    world = World(2_000)
    index, _ = world.build(scheme=scheme)
    index._state.base._index.nprobe = 1
    assert len(index.search(world.query(), 1_500).ids) == 1_500


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize("scheme", ["ivf-fp16", "ivf-sq8"])  # shorter codes blur what lies far off
def test_a_filter_that_goes_with_or_against_the_query(scheme, share, side, monkeypatch):
    """Enough allowed vectors are met, not enough lists visited: those around the query may hold none of them."""
    monkeypatch.setattr(dense_probing, "_ANYWAY", 20)
    world = World(4_000)
    index, reference = world.build(scheme=scheme)
    index._state.base._index.nprobe = max(1, index._state.base._index.nlist // 8)
    found = []
    for _ in range(12):
        query = world.query()
        order = np.argsort(-side * (world.vectors @ query))
        allowed = np.sort(world.ids[order[: int(share * len(order))]])
        exact = reference.search(query, 10, allowed)
        for _ in range(2):  # the second time what is known of the allowed is used again
            scores = index.search(query, 10, allowed).scores
        found.append(np.mean(scores >= exact.scores[-1] - 2e-6))
    assert np.mean(found) >= 0.9


@pytest.mark.parametrize("scheme", LISTS)
def test_ids_that_are_far_between_and_strangers_among_the_allowed(scheme):
    world = World(600)
    world.ids = world.ids * 1_000_003
    world.fetch = lambda ids: VectorBatch(ids, world.vectors[(ids // 1_000_003 - 5) // 3])
    index, reference = world.build(scheme=scheme)
    allowed = np.sort(np.concatenate([world.ids[::2], [1, 2, 3, world.ids[-1] + 7]]))
    query = world.query()
    assert_equal(index.search(query, 5, allowed), reference.search(query, 5, allowed))
    assert len(index.search(query, 5, np.array([1, 2, 3])).ids) == 0


@pytest.mark.parametrize("count", [0, 1, 12, 700])
@pytest.mark.parametrize("scheme", NAMES)
def test_saved_and_mapped(scheme, count, tmp_path):
    world = World(max(count, 1))
    index, reference = world.build(count, scheme)
    loaded = reopened(index, tmp_path / "file", world.fetch)
    assert len(loaded) == len(index) == count
    query = world.query()
    assert_equal(loaded.search(query, 10), index.search(query, 10))
    assert loaded.missing(world.ids).tolist() == index.missing(world.ids).tolist()
    # What lies in a file can be changed and folded too, and leaves the file alone.
    before = (tmp_path / "file").read_bytes()
    for target in (loaded, reference):
        target.remove(world.ids[:count:10])
        target.add(np.array([1, 2]), world.vectors[[0, 0]])
    world.fetch = lambda ids: reference.contents()  # not asked by what is exact
    folded = loaded.compacted()
    if folded is not None:
        assert len(folded) == len(reference)
        assert folded.missing(np.array([1, 2])).tolist() == []
    assert (tmp_path / "file").read_bytes() == before


@pytest.mark.parametrize("scheme", NAMES)
def test_bytes_that_are_no_index(scheme):
    for data in (b"nothing of the kind", b"ragindex arrays\n"):
        with pytest.raises(ValueError, match=r"not|no "):
            FaissIndex.read(D, None, SCHEMES[scheme], data=np.frombuffer(data, np.uint8), tuning=Tuning())


@pytest.mark.parametrize("scheme", NAMES)
def test_another_number_of_dimensions_or_another_scheme(scheme, tmp_path):
    world = World(60)
    world.build(scheme=scheme)[0].save(tmp_path / "file")
    data = np.fromfile(tmp_path / "file", np.uint8)
    with pytest.raises(ValueError, match="16 dimensions instead of 8"):
        FaissIndex.read(8, world.fetch, SCHEMES[scheme], data=data, tuning=Tuning())
    kind = SCHEMES[scheme].kind
    for other in (other for other in SCHEMES.values() if other.kind != kind):
        with pytest.raises(ValueError, match="not "):
            FaissIndex.read(D, world.fetch, other, data=data, tuning=Tuning())


@pytest.mark.parametrize("scheme", RESCORED)
def test_candidates_are_rescored_from_the_file_beside(scheme, tmp_path):
    world = World(1_500)
    index, reference = world.build(scheme=scheme)
    assert write_vectors(tmp_path / "rows", world.ids, world.source().batches())
    index.attach(VectorFile(tmp_path / "rows", index.ids, D))
    assert recall(index, reference, world) >= 0.97
    assert world.fetched == 0
    index.attach(None)
    assert recall(index, reference, world) >= 0.97
    assert world.fetched > 0


def test_a_damaged_row_is_read_from_the_catalogue(tmp_path):
    world = World(400)
    index, reference = world.build(scheme="binary")
    file = tmp_path / "rows"
    write_vectors(file, world.ids, world.source().batches())
    data = bytearray(file.read_bytes())
    data[7 * 2 * D + 3] ^= 1
    for start, size in ((0, 2 * D), (400 * 2 * D, 4)):  # two rows change places, and their checksums with them
        first, second = (slice(start + n * size, start + (n + 1) * size) for n in (9, 10))
        data[first], data[second] = data[second], data[first]
    file.write_bytes(data)
    rows = VectorFile(file, index.ids, D)
    assert rows.damaged() == 3
    index.attach(rows)
    assert recall(index, reference, world, k=400) == 1
    assert 0 < world.fetched <= 20 * 3


def test_a_file_of_vectors_must_be_exactly_those_of_the_index(tmp_path):
    world = World(50)
    file = tmp_path / "rows"
    assert not write_vectors(file, world.ids, world.source(40).batches())
    assert not write_vectors(file, np.append(world.ids, 10**6), world.source().batches())
    assert write_vectors(file, world.ids[::2], world.source().batches())
    kept = VectorFile(file, world.ids[::2], D)
    assert kept.fetch(world.ids[[4, 3, 0]]).ids.tolist() == world.ids[[4, 0]].tolist()
    assert (kept.fetch(world.ids[[4]]).vectors == world.vectors[4]).all()
    with pytest.raises(ValueError, match="50 vectors"):
        VectorFile(file, world.ids, D)


def test_what_a_walk_cannot_reach_is_found_when_everything_is_asked_for():
    world = World(600)
    world.vectors[50:] = world.vectors[50]  # linked to each other alone
    index, _ = world.build(scheme="hnsw")
    assert len(index.search(world.vectors[0], 600).ids) == 600


def test_a_graph_keeps_tombstones_until_they_are_a_fifth():
    world = World(1_000)
    index, reference = world.build(scheme="hnsw")
    for target in (index, reference):
        target.remove(world.ids[:150])
    folded = index.compacted()
    assert len(folded) == 850
    assert recall(folded, reference, world) >= 0.97
    assert recall(folded, reference, world, k=850, queries=2) == 1
    folded.remove(world.ids[150:300])
    assert folded.compacted() is None


@pytest.mark.parametrize("scheme", [name for name in NAMES if name not in ("flat", "hnsw")])
def test_what_was_fitted_to_far_fewer_vectors_is_built_anew(scheme):
    world = World(1_200)
    index, _ = world.build(200, scheme)
    index.add(world.ids[200:], world.vectors[200:])
    assert index.compacted() is None


def test_lists_are_as_many_as_the_whole_asks_for_not_the_sample():
    points = np.random.default_rng(0).standard_normal((800 * 39, 2)).astype(np.float32)
    assert ListsDraft(SCHEMES["ivf-fp16"], points, 40_000)._index.nlist == 800
    assert ListsDraft(SCHEMES["ivf-fp16"], points[:390], 40_000)._index.nlist == 10


@pytest.mark.parametrize("scheme", RESCORED)
def test_vectors_that_vanished_from_the_catalogue_are_left_out(scheme):
    world = World(500)
    index, _ = world.build(scheme=scheme)
    gone = world.ids[::2]
    index._fetch = lambda ids: World.fetch(world, ids[~np.isin(ids, gone)])
    assert not set(index.search(world.query(), 20).ids.tolist()) & set(gone.tolist())


@pytest.mark.parametrize("scheme", NAMES)
def test_vectors_of_nothing_but_zeros_score_zero(scheme):
    world = World(300)
    world.vectors[40:60] = 0
    index, reference = world.build(scheme=scheme)
    query = world.query()
    assert_equal(index.search(query, 300), reference.search(query, 300))


# Copies of one text are linked to each other alone, so many of them take a graph apart; `docs/storage.md` says so.
@pytest.mark.parametrize("scheme", [name for name in NAMES if name != "hnsw"])
def test_many_copies_of_a_text_do_not_spoil_the_tuning(scheme):
    world = World(1_000)
    world.vectors[200:350] = world.vectors[200]
    index, _ = world.build(scheme=scheme)
    assert index.tuning.recall >= 0.98
    assert index.search(world.vectors[200], 5).ids.tolist() == world.ids[200:205].tolist()


def test_eight_bit_floats_are_those_of_the_format():
    values = codecs.from_float8(np.arange(256, dtype=np.uint8))
    assert (values[0x38], values[0x7E], values[0x01], values[0x08]) == (1.0, 448.0, 2.0**-9, 2.0**-6)
    assert (values[128:] == -values[:128]).all()
    usable = np.delete(np.arange(256, dtype=np.uint8), [0x7F, 0xFF])
    assert (codecs.to_float8(values[usable]) == usable).all()
    drawn = np.random.default_rng(0).standard_normal(2_000) * 20
    numbers = drawn.astype(np.float16).astype(np.float32)  # others are rounded twice, which may cost a tie
    nearest = np.abs(numbers[:, None] - values[usable][None]).min(axis=1)
    np.testing.assert_allclose(np.abs(codecs.from_float8(codecs.to_float8(numbers)) - numbers), nearest, atol=1e-6)
    assert codecs.from_float8(codecs.to_float8(np.array([1e6, -1e6], np.float32))).tolist() == [448.0, -448.0]


def test_depths_are_the_least_that_hold_what_is_nearest():
    world = World(500)
    truth = Truth(imitated(world.vectors))
    for batch in world.source().batches():
        truth.see(batch)
    ordered = [world.ids[np.argsort(-(world.vectors @ query), kind="stable")] for query in truth.queries]
    assert [ids.tolist() for ids in truth.nearest(10)] == [ids[:10].tolist() for ids in ordered]
    exact = tuning_of(ordered, truth, rescored=True)
    assert (exact.near, exact.far, exact.recall) == (10, 100, 1.0)
    late = tuning_of([np.concatenate([-1 - ids[:25], ids]) for ids in ordered], truth, rescored=True)
    assert (late.near, late.far) == (35, 124)  # 99 % of the hundred
    half = tuning_of([ids[::2] for ids in ordered], truth, rescored=True)
    assert half.recall == pytest.approx(0.5)


def test_candidates_grow_with_what_is_asked_for():
    tuning = Tuning(near=30, far=210)
    assert [tuning.candidates(k) for k in (1, 10, 55, 100, 1000)] == [30, 30, 120, 210, 2100]
    assert Tuning().candidates(17) == 17


@pytest.mark.parametrize(
    ("count", "memory_mb", "name"),
    [
        (0, 2048, "flat"),
        (20_000, 2048, "flat"),
        (20_001, 2048, "ivf-fp16"),
        (1_000_000, 2048, "ivf-fp16"),
        (1_000_000, 500, "ivf-sq8"),
        (1_000_000, 200, "rabitq"),
        (1_000_000, 100, "binary"),
        (1_000_000, 1, "binary"),
        (20_000, 20, "ivf-fp16"),
        (10**9, 0, "ivf-fp16"),
    ],
)
def test_the_chooser_takes_the_most_exact_scheme_that_fits(count, memory_mb, name):
    choice = choose(Plan(memory_mb=memory_mb), count, 384)
    assert choice.scheme.name == name
    assert choice.reason.endswith(".")
    assert f"{count:,} vectors of 384 values" in choice.reason


@pytest.mark.parametrize("scheme", NAMES)
def test_a_scheme_that_was_asked_for_is_taken_at_any_size(scheme):
    for count in (0, 10, 10**7):
        choice = choose(Plan(index=scheme, memory_mb=1), count, 384)
        assert choice.scheme.name == scheme
        assert "asked for" in choice.reason


def test_a_scheme_that_does_not_exist():
    with pytest.raises(UsageError, match="no dense index 'faiss'; choose one of auto, flat"):
        choose(Plan(index="faiss"), 10, 384)


@pytest.mark.parametrize("scheme", NAMES)
def test_the_promised_memory_is_about_what_the_file_takes(scheme, tmp_path):
    world = World(4_000)
    index, _ = world.build(scheme=scheme)
    index.save(tmp_path / "file")
    promised = SCHEMES[scheme].memory(4_000, D)
    held = index.ids.nbytes if SCHEMES[scheme].kind != "codes" else 0  # in order, beside those in the file
    assert 0.8 * promised < (tmp_path / "file").stat().st_size + held < 1.25 * promised


@pytest.mark.parametrize("scheme", NAMES)
def test_a_source_that_grew_between_the_readings(scheme):
    world = World(200)
    readings = iter([world.source(90), world.source(150), world.source(150)])
    source = Source(90, lambda: next(readings).batches())
    index = FaissIndex.build(D, world.fetch, SCHEMES[scheme], source)
    assert len(index) == (90 if scheme == "flat" else 150)
    assert len(index.search(world.query(), 80).ids) == 80


def test_bits_are_spent_on_all_axes_alike():
    """An encoder's axes are of unequal strength; signs along them tell little of the strong ones."""
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((1_000, 64)) / np.arange(1, 65)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def found(codec):
        codes, hit = codec.encode(vectors), 0
        for query in vectors[:30]:
            nearest = np.argsort(-(vectors @ query))[:10]
            hit += len(np.intersect1d(codec.nearest(query, codes, 30).places, nearest))
        return hit

    plain = codecs.SignBits(np.eye(64, dtype=np.float32))
    assert found(codecs.SignBits.seeded(64)) > 1.3 * found(plain)

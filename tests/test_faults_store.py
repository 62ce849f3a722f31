"""Damage at random places of a store: nothing is answered wrongly, it is found, and mended without embedding."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from fault_kit import FAULTS, Template, damage, embedding_counted, everything, template
from index_kit import SMALL, open_index

from ragindex import Index
from ragindex.cli import main
from ragindex.errors import CorruptionError, StoreError
from ragindex.store.catalog import Catalog
from ragindex.store.repairing import trusted_copies
from ragindex.store.salvage import DERIVED, TABLES
from ragindex.store.schema import Base
from ragindex.store.schemes import SCHEMES

TRIALS = 4  # `python tests/fault_kit.py --trials 300` makes more of them


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return template(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def rescored(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A store whose dense index keeps short codes, and the vectors beside them."""
    return template(tmp_path_factory.mktemp("rescored"), dense="ivf-sq8")


@pytest.fixture
def home(made: Template, tmp_path: Path) -> Path:
    return copied(made, tmp_path)


def copied(made: Template, place: Path) -> Path:
    shutil.copytree(made.folder, place / "home")
    return place / "home"


@pytest.mark.parametrize("fault", FAULTS)
def test_damage_falsifies_nothing(made: Template, tmp_path: Path, fault: str) -> None:
    outcomes = [damage(made, tmp_path, fault, seed) for seed in range(TRIALS)]
    bad = [outcome for outcome in outcomes if outcome.verdict.isupper()]
    assert not bad, bad
    if not fault.startswith("catalogue"):  # the catalogue knows everything that is in a snapshot
        assert {outcome.verdict for outcome in outcomes} <= {"mended", "harmless"}


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.startswith("dense")])
def test_damage_beside_short_codes_falsifies_nothing(rescored: Template, tmp_path: Path, fault: str) -> None:
    outcomes = [damage(rescored, tmp_path, fault, seed) for seed in range(TRIALS)]
    assert not [outcome for outcome in outcomes if outcome.verdict.isupper()]


def changed(home: Path, statement: str, *parameters: object) -> None:
    """Let a row be what SQLite thinks nothing of."""
    with closing(sqlite3.connect(home / ".ragindex" / "catalog.sqlite")) as connection:
        done = connection.execute(statement, parameters)
        assert done.rowcount > 0
        connection.commit()


def mended(made: Template, home: Path, sentence: str) -> None:
    """Verifying finds it, repairing mends it and embeds nothing."""
    with embedding_counted() as counted, open_index(home, made.encoder) as index:
        assert any(re.search(sentence, problem) for problem in index.verify().problems)
        assert index.repair().problems == ()
        assert everything(index) == made.answers
    assert counted["texts"] == 0


@pytest.mark.parametrize("dense", ["made", "rescored"])
def test_a_sign_that_flips_in_a_vector(dense: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Its length stays what it was, so that only the copy in the snapshot can tell."""
    made = request.getfixturevalue(dense)
    home = copied(made, tmp_path)
    flip = "UPDATE vectors SET data = CAST(x'ff' || substr(data, 2) AS BLOB) WHERE id = 30"
    changed(home, flip)
    mended(made, home, "is not the one that was stored")


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_every_scheme_keeps_a_whole_copy(made: Template, home: Path, scheme: str) -> None:
    """Whatever the codes are that it searches in."""
    with Index.open(home / ".ragindex", settings=SMALL, create=False) as index:
        index.compact(dense=scheme)
    with Catalog.open(home / ".ragindex") as catalog:
        (copies,) = trusted_copies(catalog)
        held = {chunk: row.tobytes() for batch in copies.batches for chunk, row in zip(*batch, strict=True)}
        kept = list(catalog.iter_vectors(1, copies.encoder_id))
    assert held == {
        chunk: row.astype("<f2").tobytes()
        for batch in kept
        for chunk, row in zip(batch.ids, batch.vectors, strict=True)
    }


@pytest.mark.parametrize("damage", ["NULL || x'00'", "x'00'", "zeroblob(length(data))"])
def test_vectors_that_are_none_come_back_from_the_snapshot(made: Template, home: Path, damage: str) -> None:
    if damage.startswith("NULL"):
        changed(home, "DELETE FROM vectors WHERE id % 7 = 3")
    else:
        changed(home, f"UPDATE vectors SET data = {damage} WHERE id % 7 = 3")
    mended(made, home, "is not the one that was stored")


def test_a_chunk_is_mended_from_its_document(made: Template, home: Path) -> None:
    changed(home, "UPDATE chunks SET text = replace(text, 'e', 'o') WHERE id % 5 = 0")
    with open_index(home, made.encoder) as index, pytest.raises(CorruptionError, match="ragindex repair"):
        everything(index)  # rather than to show it
    mended(made, home, "does not equal the text of the document")


def test_a_place_is_mended_from_the_text(made: Template, home: Path) -> None:
    changed(home, 'UPDATE chunks SET start = start + 4, "end" = "end" + 4 WHERE id % 5 = 0')
    mended(made, home, "does not equal the text of the document")


def test_text_that_is_no_text(made: Template, home: Path) -> None:
    changed(home, "UPDATE chunks SET text = CAST(x'ff' || substr(text, 2) AS TEXT) WHERE id % 5 = 0")
    with open_index(home, made.encoder) as index, pytest.raises(CorruptionError, match="ragindex repair"):
        everything(index)
    mended(made, home, "does not equal the text of the document")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE document_texts SET text = substr(text, 3) WHERE document_id = 5",
        "UPDATE document_texts SET length = length + 1 WHERE document_id = 5",
        "UPDATE documents SET metadata = '{' WHERE id = 5",
        "UPDATE document_fields SET value = 'utf-9' WHERE document_id = 5 AND key = 'encoding'",
        "UPDATE chunks SET heading = '[' WHERE document_id = 5",
        "UPDATE chunks SET ordinal = ordinal + 9 WHERE document_id = 5 AND ordinal > 1",
    ],
)
def test_what_cannot_be_mended_is_read_again(made: Template, home: Path, statement: str) -> None:
    """And what is embedded then is nothing: vectors are kept by what they are of."""
    changed(home, statement)
    with embedding_counted() as counted, open_index(home, made.encoder) as index:
        assert index.verify().problems
        (told,) = index.repair().problems
        assert re.fullmatch(r"Parts of '.*' were lost; run `ragindex index` on its folder: .*", told)
        report = index.add(home)
        assert (report.updated, report.embedded_chunks) == (1, 0)
        assert index.verify().problems == ()
        assert everything(index) == made.answers
    assert counted["texts"] == 0


def test_a_text_that_cannot_be_mended_is_not_shown_until_it_is_read_again(made: Template, home: Path) -> None:
    changed(home, "UPDATE document_texts SET text = substr(text, 3)")
    with open_index(home, made.encoder) as index:
        with pytest.raises(CorruptionError, match="run `ragindex repair`"):
            index.search("kettle")
        index.repair()
        with pytest.raises(CorruptionError, match="run `ragindex index`"):
            index.search("kettle")
        index.add(home)
        index.repair()
        assert everything(index) == made.answers


def test_a_lost_vector_answers_nothing_until_it_is_made_again(made: Template, home: Path) -> None:
    """Without the snapshot there is no copy: exactly what is missing is embedded by the next run, not by the repair."""
    shutil.rmtree(home / ".ragindex" / "snapshots")
    changed(home, "UPDATE vectors SET data = x'00' WHERE id IN (3, 50)")
    with embedding_counted() as counted, open_index(home, made.encoder) as index:
        with pytest.raises(CorruptionError):
            index.search("kettle", mode="dense")
        assert all("were lost; run `ragindex index`" in problem for problem in index.repair().problems)
        assert index.search("kettle", mode="dense")
        assert counted["texts"] == 0
        assert index.add(home).embedded_chunks == counted["texts"] == 2
        assert index.verify().problems == ()
        index.repair()
        assert everything(index) == made.answers


def test_a_snapshot_of_another_history_is_not_believed(made: Template, home: Path) -> None:
    """A catalogue that was restored from a backup: what lies in `snapshots/` may be of documents that it never had."""
    changed(home, "UPDATE collections SET token = token + 1")
    changed(home, "UPDATE vectors SET data = (SELECT data FROM vectors AS other WHERE other.id = 4) WHERE id = 3")
    before = vectors(home)
    with open_index(home, made.encoder) as index:
        index.repair()
    assert vectors(home) == before


def vectors(home: Path) -> list[tuple[bytes, bytes]]:
    with closing(sqlite3.connect(home / ".ragindex" / "catalog.sqlite")) as connection:
        return connection.execute("SELECT key, data FROM vectors ORDER BY key").fetchall()


def test_a_store_that_cannot_be_opened_is_rescued_by_the_command(made: Template, home: Path) -> None:
    file = home / ".ragindex" / "catalog.sqlite"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) * 4 // 5])
    with pytest.raises(CorruptionError, match="`ragindex repair` saves what can be read"):
        open_index(home, made.encoder)
    done = CliRunner().invoke(main, ["--store", str(home / ".ragindex"), "repair"])
    assert done.exit_code == 2
    assert "run `ragindex index`" in done.output
    assert (home / ".ragindex" / "catalog.sqlite.damaged").stat().st_size == len(whole) * 4 // 5
    assert not (home / ".ragindex" / ".salvage").exists()
    with embedding_counted() as counted, open_index(home, made.encoder) as index:
        index.add(home, allow_delete=True)
        assert index.repair().problems == ()
        assert everything(index) == made.answers
    assert counted["texts"] == 0


def test_documents_that_a_damage_took_are_missed_until_their_folder_is_read(made: Template, home: Path) -> None:
    changed(home, "UPDATE settings SET value = value WHERE key = 'encoder'")  # folds the log into the file
    file = home / ".ragindex" / "catalog.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        page = connection.execute(
            "SELECT max(pageno) FROM dbstat WHERE name = 'documents' AND pagetype = 'leaf'"
        ).fetchone()[0]
    data = bytearray(file.read_bytes())
    data[4096 * (page - 1) : 4096 * page] = bytes(4096)
    file.write_bytes(data)
    with open_index(home, made.encoder) as index:
        assert any("Documents may have been lost" in problem for problem in index.repair().problems)
        assert len(index.documents()) < 40
        index.add(home / "part0")
        assert any("Documents may have been lost" in problem for problem in index.verify().problems)
        report = index.add(home)
        assert (report.added > 0, report.embedded_chunks) == (True, 0)
        assert index.repair().problems == ()
        assert everything(index) == made.answers


def test_nothing_to_read_is_said_so_and_nothing_changed(made: Template, home: Path) -> None:
    file = home / ".ragindex" / "catalog.sqlite"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(StoreError, match=r"restore a backup|could not be mended"):
        Index.rescue(home / ".ragindex")
    assert not file.read_bytes().strip(b"\0")


def test_every_table_is_salvaged_or_can_be_derived() -> None:
    """A table that a migration brings has to be thought of."""
    assert {*TABLES, *DERIVED} == set(Base.metadata.tables)

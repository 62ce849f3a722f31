import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from store_kit import Store, write

from ragindex.errors import CorruptionError, SchemaError, StoreError
from ragindex.store import migrate
from ragindex.store.catalog import HEAD, Catalog
from ragindex.store.database import Database
from ragindex.store.schema import Base


def set_version(folder: Path, version: str) -> None:
    connection = sqlite3.connect(folder / "catalog.sqlite")
    connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    connection.commit()
    connection.close()


def test_head_is_the_newest_migration(tmp_path):
    from alembic.script import ScriptDirectory

    migrate.create(tmp_path)
    database = Database(tmp_path / "catalog.sqlite")
    assert ScriptDirectory.from_config(migrate.configuration(database)).get_heads() == [HEAD]
    database.close()


def test_migrations_build_exactly_the_models(tmp_path):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    migrate.create(tmp_path)
    database = Database(tmp_path / "catalog.sqlite")
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        built = dict(connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'table'").all())
    database.close()
    for name in ("documents", "chunks", "changes"):
        assert "AUTOINCREMENT" in built[name], name


def test_creation_leaves_one_file_and_no_draft(tmp_path):
    migrate.create(tmp_path / "deep" / "store")
    assert [file.name for file in (tmp_path / "deep" / "store").iterdir()] == ["catalog.sqlite"]
    assert migrate.current(tmp_path / "deep" / "store") == HEAD


def test_the_second_creator_keeps_what_the_first_made(tmp_path):
    store = Store(tmp_path)
    store.put(write("a.txt", "alpha"))
    migrate.create(tmp_path)
    assert list(store.catalog.file_states(store.collection)) == ["a.txt"]


def test_a_commit_is_durable_by_configuration(tmp_path):
    database = Database(_made(tmp_path))
    with database.reading() as connection:
        pragma = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
    database.close()
    assert pragma == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}


def _made(folder: Path) -> Path:
    migrate.create(folder)
    return folder / "catalog.sqlite"


def test_a_missing_store_is_a_sentence(tmp_path):
    with pytest.raises(StoreError, match="ragindex index"):
        Catalog.open(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
    with pytest.raises(StoreError, match="no store"):
        migrate.current(tmp_path)


def test_a_newer_schema_asks_for_a_newer_program(tmp_path):
    migrate.create(tmp_path)
    set_version(tmp_path, "9999")
    with pytest.raises(SchemaError, match="newer ragindex"):
        Catalog.open(tmp_path)
    with pytest.raises(SchemaError, match="newer ragindex"):
        migrate.upgrade(tmp_path)


def test_an_older_schema_names_the_upgrade(tmp_path):
    migrate.create(tmp_path)
    set_version(tmp_path, "0000")
    with pytest.raises(SchemaError, match="ragindex db upgrade"):
        Catalog.open(tmp_path)


def test_upgrade_backs_up_first(tmp_path):
    connection = sqlite3.connect(tmp_path / "catalog.sqlite")
    connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    connection.execute("CREATE TABLE keepsake (x)")
    connection.commit()
    connection.close()
    assert migrate.upgrade(tmp_path) == tmp_path / "catalog.sqlite.bak-0000"
    assert migrate.current(tmp_path) == HEAD
    saved = sqlite3.connect(tmp_path / "catalog.sqlite.bak-0000")
    tables = {row[0] for row in saved.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    saved.close()
    assert tables == {"alembic_version", "keepsake"}
    assert migrate.upgrade(tmp_path) is None


def test_a_backup_opens_as_a_store(tmp_path):
    store = Store(tmp_path / "store")
    store.put(write("a.txt", "alpha"))
    (tmp_path / "copy").mkdir()
    migrate.backup(tmp_path / "store", tmp_path / "copy" / "catalog.sqlite")
    with Catalog.open(tmp_path / "copy", create=False) as copy:
        assert copy.document_text(copy.collection("default"), "a.txt") == "alpha"
    assert {file.name for file in (tmp_path / "copy").iterdir()} == {"catalog.sqlite"}


@pytest.mark.parametrize("content", [b"this is not a database at all, but long enough" * 40, b""])
def test_a_file_that_is_no_catalogue_is_a_sentence(tmp_path, content):
    (tmp_path / "catalog.sqlite").write_bytes(content)
    with pytest.raises(CorruptionError, match=r"catalogue|not a database"):
        Catalog.open(tmp_path)


def test_a_page_of_noise_is_reported_as_damage(tmp_path):
    store = Store(tmp_path)
    for number in range(30):
        store.put(write(f"{number}.txt", *(f"words {number} {line}" * 20 for line in range(8))))
    store.catalog.close()
    file = tmp_path / "catalog.sqlite"
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 20_000] = os.urandom(20_000)
    file.write_bytes(data)
    assert _complaints(tmp_path)


def _complaints(folder):
    try:
        with Catalog.open(folder) as catalog:
            return catalog.integrity()
    except CorruptionError as error:
        return [str(error)]


def test_the_catalogue_loads_nothing_heavy():
    code = (
        "import sys, ragindex.store.catalog, ragindex.store.snapshot\n"
        "print(sorted({'faiss', 'tantivy', 'alembic', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_read_only_folder_can_be_read(tmp_path, monkeypatch):
    store = Store(tmp_path)
    store.put(write("a.txt", "alpha"))
    store.catalog.close()
    before = {file.name for file in tmp_path.iterdir()}
    # Permissions do not bind root, so the answer of the check is what is replaced.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    (tmp_path / "catalog.sqlite").chmod(stat.S_IRUSR)
    with Catalog.open(tmp_path, create=False) as catalog:
        assert catalog.read_only
        assert catalog.document_text(catalog.collection("default"), "a.txt") == "alpha"
        with pytest.raises(StoreError, match="read-only"):
            catalog.set_setting("x", 1)
        assert {file.name for file in tmp_path.iterdir()} == before

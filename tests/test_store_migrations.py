"""Stores of every schema open after an upgrade and say what they said; whatever stops one, nothing is lost.

See `old_stores.py` for how a store of a schema is kept.
"""

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from old_stores import STORES, answers, expected, fill, made
from store_kit import Store, write

from ragindex.errors import SchemaError, StoreError, StoreLockedError, UsageError
from ragindex.resources import resource
from ragindex.store import database, migrate
from ragindex.store.catalog import HEAD, Batch, Catalog
from ragindex.store.lease import WriterLease

VERSIONS = sorted(file.stem for file in STORES.glob("*.sql"))
FILE = "catalog.sqlite"
TESTS = Path(__file__).resolve().parent


def revisions():
    from alembic.script import ScriptDirectory

    return sorted(script.revision for script in ScriptDirectory(str(resource("migrations"))).walk_revisions())


def schema(folder):
    """Tables, indexes and triggers, whatever the spelling."""
    with closing(sqlite3.connect(folder / FILE)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")
        return {name: "".join((sql or "").replace('"', "").split()) for name, sql in rows}


def test_every_schema_has_its_store():
    assert revisions() == VERSIONS, "a migration comes with its store: python tests/old_stores.py"
    assert sorted(file.stem for file in STORES.glob("*.json")) == VERSIONS
    assert VERSIONS[-1] == HEAD


@pytest.mark.parametrize("version", VERSIONS)
def test_a_store_of_every_schema_is_upgraded_and_says_what_it_said(version, tmp_path):
    folder = made(version, tmp_path / "store")
    assert migrate.current(folder) == version
    if version != HEAD:
        with pytest.raises(SchemaError, match=r"older ragindex; run `ragindex db upgrade`"):
            Catalog.open(folder, create=False)
    kept = migrate.upgrade(folder)
    assert kept == (None if version == HEAD else folder / f"{FILE}.bak-{version}")
    assert answers(folder, of=version) == expected(version)
    assert migrate.upgrade(folder) is None
    with Catalog.open(folder) as catalog:  # it can be written, too
        catalog.commit(1, Batch(removes=["src/d.py"]))
        assert "src/d.py" not in catalog.file_states(1)
    if kept is not None:
        (tmp_path / "again").mkdir()
        kept.rename(tmp_path / "again" / FILE)
        assert migrate.current(tmp_path / "again") == version
        migrate.upgrade(tmp_path / "again")
        assert answers(tmp_path / "again", of=version) == expected(version)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_store_is_taken_down_and_up_again_step_by_step(version, tmp_path):
    folder = made(version, tmp_path / "store")
    own = schema(folder)
    migrate.upgrade(folder)
    head = schema(folder)
    migrate.create(tmp_path / "fresh")
    assert head == schema(tmp_path / "fresh")
    for lower in reversed(VERSIONS[:-1]):
        assert migrate.downgrade(folder, lower) is not None
        assert migrate.current(folder) == lower
        if lower == version:
            assert schema(folder) == own
    migrate.upgrade(folder)
    assert schema(folder) == head
    assert answers(folder, of=version) == expected(version)


def test_the_kept_stores_hold_what_a_new_one_would(tmp_path):
    """The newest one is what this program writes: nothing was added to the content and forgotten in the store."""
    fill(tmp_path)
    assert answers(tmp_path, of=HEAD) == expected(HEAD)


_NEXT = f"{int(HEAD) + 1:04}"
_SCRIPT = f'''
import os, signal
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "{_NEXT}", "{HEAD}", None, None

def upgrade():
    # The table is made anew, and all others refer to it with ON DELETE CASCADE.
    with op.batch_alter_table("collections") as batch:
        batch.add_column(sa.Column("note", sa.String(), nullable=False, server_default="of the future"))
    {{}}

def downgrade():
    with op.batch_alter_table("collections") as batch:
        batch.drop_column("note")
'''


@pytest.fixture
def future(tmp_path, monkeypatch):
    """A program that has one more migration; called with a line of Python that it ends with."""
    scripts = tmp_path / "scripts"
    shutil.copytree(resource("migrations"), scripts, ignore=shutil.ignore_patterns("__pycache__"))

    def become(last="pass"):
        (scripts / "versions" / f"{_NEXT}_future.py").write_text(_SCRIPT.format(last))
        monkeypatch.setattr(migrate, "resource", lambda name: scripts)
        monkeypatch.setattr(migrate, "HEAD", _NEXT)
        monkeypatch.setattr(database, "HEAD", _NEXT)

    return become


@pytest.fixture
def present(tmp_path):
    return made(HEAD, tmp_path / "store")


def notes(folder):
    with closing(sqlite3.connect(folder / FILE)) as connection:
        return [row[0] for row in connection.execute("SELECT note FROM collections")]


def test_a_table_that_others_refer_to_can_be_made_anew(present, future):
    future()
    kept = migrate.upgrade(present)
    assert kept == present / f"{FILE}.bak-{HEAD}"
    assert notes(present) == ["of the future"] * 2
    assert answers(present, of=HEAD) == expected(HEAD)
    assert migrate.downgrade(present, HEAD) == present / f"{FILE}.bak-{_NEXT}"
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        notes(present)
    assert migrate.current(present) == HEAD


def test_no_backup_is_replaced(present, future):
    future()
    kept = [migrate.upgrade(present)]
    migrate.downgrade(present, HEAD)
    first = kept[0].read_bytes()
    kept.append(migrate.upgrade(present))
    assert [file.name for file in kept] == [f"{FILE}.bak-{HEAD}", f"{FILE}.bak-{HEAD}.2"]
    assert kept[0].read_bytes() == first


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ("raise RuntimeError('the third step failed')", "the third step failed"),
        ("op.execute('INSERT INTO nowhere VALUES (1)')", "no such table: nowhere"),
        ("op.execute('DELETE FROM encoders WHERE id = 2')", "would refer to a missing row of encoders"),
    ],
)
def test_an_upgrade_that_fails_in_the_middle_changes_nothing(present, future, monkeypatch, last, reason):
    before = schema(present)
    future(last)
    with pytest.raises(
        StoreError, match=rf"from {HEAD} to {_NEXT} \([^$]*{reason}[^$]*the store is as it was"
    ) as caught:
        migrate.upgrade(present)
    kept = present / f"{FILE}.bak-{HEAD}"
    assert str(kept) in str(caught.value)
    monkeypatch.undo()
    assert (migrate.current(present), schema(present)) == (HEAD, before)
    assert answers(present, of=HEAD) == expected(HEAD)
    shutil.copy(kept, present / FILE)
    assert answers(present, of=HEAD) == expected(HEAD)


def in_a_child(folder, scripts, *, before="", head=_NEXT):
    """A process that upgrades, as a program of the future."""
    code = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from pathlib import Path
from ragindex.errors import RagIndexError
from ragindex.store import database, migrate
scripts = {None if scripts is None else str(scripts)!r}
if scripts:
    migrate.resource = lambda name: Path(scripts)
    migrate.HEAD = database.HEAD = {head!r}
{before}
try:
    kept = migrate.upgrade(Path({str(folder)!r}))
    print("done" if kept else "nothing to do")
except RagIndexError as error:
    print(type(error).__name__, error)
"""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_an_upgrade_that_is_killed_changes_nothing_and_is_made_again(present, future, tmp_path, monkeypatch):
    future("os.kill(os.getpid(), signal.SIGKILL)")
    child = in_a_child(present, tmp_path / "scripts")
    child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL
    monkeypatch.undo()
    assert migrate.current(present) == HEAD
    assert answers(present, of=HEAD) == expected(HEAD)
    future()
    assert migrate.upgrade(present) == present / f"{FILE}.bak-{HEAD}.2"
    assert answers(present, of=HEAD) == expected(HEAD)


def test_of_several_upgrades_at_once_one_is_made(tmp_path):
    folder = made("0001", tmp_path / "store")
    children = [in_a_child(folder, None) for _ in range(4)]
    said = [child.communicate(timeout=120)[0].strip() for child in children]
    assert sorted(said).count("done") == 1, said
    assert all(one in ("done", "nothing to do") or one.startswith("StoreLockedError") for one in said), said
    assert [file.name for file in folder.glob("*.bak-*")] == [f"{FILE}.bak-0001"]
    assert answers(folder, of="0001") == expected("0001")


def test_nobody_upgrades_under_a_writer(tmp_path):
    folder = made("0001", tmp_path / "store")
    with WriterLease(folder, command="index docs"), pytest.raises(StoreLockedError, match="index docs"):
        migrate.upgrade(folder)
    assert migrate.current(folder) == "0001"
    assert list(folder.glob("*.bak-*")) == []


def test_whoever_has_the_store_open_reads_on_and_writes_no_more(present, future):
    with Catalog.open(present) as catalog, closing(sqlite3.connect(present / FILE)) as old:
        old.execute("BEGIN")
        before = old.execute("SELECT count(*) FROM chunks").fetchone()  # a view that stays open
        future()
        migrate.upgrade(present)
        assert old.execute("SELECT count(*) FROM chunks").fetchone() == before
        assert [row.path for row in catalog.documents(1)] == [row[0] for row in expected(HEAD)["default"]["documents"]]
        database.HEAD = HEAD  # what this program was made for; the fixture puts it back
        with pytest.raises(SchemaError, match=f"brought to the schema {_NEXT} while this program was using {HEAD}"):
            catalog.commit(1, Batch(removes=["src/d.py"]))
        assert "src/d.py" in catalog.file_states(1)


def test_a_newer_store_names_the_way_back(present, future, monkeypatch):
    future()
    kept = migrate.upgrade(present)
    monkeypatch.undo()
    for attempt in (lambda: Catalog.open(present), lambda: migrate.upgrade(present)):
        with pytest.raises(SchemaError, match=rf"newer ragindex.*upgrade the program, or put {kept.name}"):
            attempt()
    for suffix in ("-wal", "-shm"):
        (present / f"{FILE}{suffix}").unlink(missing_ok=True)
    kept.replace(present / FILE)
    assert answers(present, of=HEAD) == expected(HEAD)


def test_only_older_schemas_can_be_gone_back_to(present):
    assert migrate.downgrade(present, HEAD) is None
    for version in (_NEXT, "first", ""):
        with pytest.raises(UsageError, match=r"older ones: 0001"):
            migrate.downgrade(present, version)
    with pytest.raises(StoreError, match="no store"):
        migrate.downgrade(present / "elsewhere", "0001")


def test_no_room_for_the_backup(tmp_path, monkeypatch):
    folder = made("0001", tmp_path / "store")
    usage = shutil.disk_usage(folder)._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StoreError, match=r"needs 0 MB and the disk has 0 MB free; make room"):
        migrate.upgrade(folder)
    assert migrate.current(folder) == "0001"
    assert list(folder.glob("*.bak-*")) == []


def test_a_disk_that_is_full_in_the_middle(tmp_path):
    """Where the disk looked large enough: no file may grow beyond half of the catalogue."""
    folder = made("0001", tmp_path / "store")
    small = (folder / FILE).stat().st_size // 2
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({small}, {small}))"
    said = in_a_child(folder, None, before=limit).communicate(timeout=120)[0]
    assert said.startswith("StoreError The backup to"), said
    assert sorted(file.name for file in folder.iterdir() if "bak" in file.name) == []
    assert migrate.current(folder) == "0001"
    migrate.upgrade(folder)
    assert answers(folder, of="0001") == expected("0001")


def test_the_backup_has_what_lies_in_the_log_alone(tmp_path):
    store = Store(tmp_path)
    store.put(write("a.txt", "alpha"))
    assert (tmp_path / f"{FILE}-wal").stat().st_size > 0
    (tmp_path / "copy").mkdir()
    copy = migrate.backup(tmp_path, tmp_path / "copy" / FILE)
    with Catalog.open(copy.parent, create=False) as catalog:
        assert list(catalog.file_states(1)) == ["a.txt"]
    store.catalog.close()

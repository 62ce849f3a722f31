"""Makes a catalogue anew from the rows that SQLite can still read, when its pages contradict each other.

Each table is walked by row number; a page that cannot be read is passed over, and only the rows on it are lost. What
lost a part of itself is marked to be read again, so that an index run of the folder completes the store: vectors are
found by what they are of, and hardly any is made again. The damaged file is kept as `catalog.sqlite.damaged`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ragindex.errors import CorruptionError, StoreError
from ragindex.store import migrate
from ragindex.store.database import FILE_NAME
from ragindex.store.mending import begin_history, mark_unread
from ragindex.store.registry import ACTIVATIONS, ACTIVE_ENCODER, PREVIOUS_ENCODER, SALVAGED
from ragindex.store.rows import Mark
from ragindex.store.stored import StoredDocument, stored_documents

__all__ = ["DAMAGED", "DERIVED", "TABLES", "salvage"]

DAMAGED = f"{FILE_NAME}.damaged"
TABLES = (
    "settings", "encoders", "collections", "roots", "documents", "document_texts", "chunks", "vectors", "failures"
)  # fmt: skip
_NUMBERED = ("documents", "chunks")
DERIVED = ("changes", "document_fields")  # the log is begun anew, the fields follow their documents by triggers
_BATCH = 1000
_LAST = 1 << 62


@dataclass(slots=True)
class _Lost:
    """Where rows could not be read: the number of the last row before each gap."""

    gaps: list[int] = field(default_factory=list)


def salvage(directory: Path) -> dict[int, Mark]:
    """Under the lease: put a catalogue of what can be read in the place of the damaged one, in one transaction.

    Returns where the history of each collection stood; a new one has begun, so that snapshots are made again.
    Raises CorruptionError when nothing can be read, StoreError when the disk refuses; the store is as it was then.
    """
    file, draft = directory / FILE_NAME, directory / ".salvage"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        migrate.create(draft)
        _keep(file)
        with _opened(file) as old, _opened(draft / FILE_NAME) as new:
            new.execute("PRAGMA foreign_keys = OFF")
            lost = {table: _copied(old, new, table) for table in TABLES}
            _name_again(new)
            if new.execute("SELECT count(*) FROM collections").fetchone()[0] == 0:
                raise CorruptionError(
                    f"{file} is damaged beyond reading; restore a backup (`ragindex db backup` makes one), or delete "
                    "the store and index again."
                )
            if lost["documents"].gaps:
                new.execute("INSERT OR REPLACE INTO settings (key, value) VALUES (?, 'true')", (SALVAGED,))
            marks = {row[0]: Mark(*row[1:]) for row in new.execute("SELECT id, generation, token FROM collections")}
            _complete(new, lost["chunks"])
            _number_on(old, new)
            new.backup(old)
            return marks
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{file} could not be mended: {error}; nothing was changed.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(file, isolation_level=None, timeout=30)
    try:
        connection.text_factory = lambda data: data.decode(errors="replace")
        connection.execute("PRAGMA writable_schema = ON")  # opens a file that was cut off, too
        connection.execute("PRAGMA cell_size_check = ON")
        yield connection
    finally:
        connection.close()


def _keep(file: Path) -> None:
    for suffix in ("", "-wal"):
        source = file.with_name(file.name + suffix)
        if source.exists():
            shutil.copyfile(source, file.with_name(DAMAGED + suffix))


def _copied(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> _Lost:
    """Copy a table as far as it can be read."""
    names = [row[1] for row in new.execute(f'PRAGMA table_info("{table}")')]
    columns = ", ".join(f'"{name}"' for name in names)
    # Names that this program gave.
    put = f'INSERT OR IGNORE INTO "{table}" ({columns}) VALUES ({", ".join("?" * len(names))})'  # noqa: S608
    lost = _Lost()
    new.execute("BEGIN")
    query = f'SELECT rowid, {columns} FROM "{table}" NOT INDEXED'  # noqa: S608
    before = -1
    for rows in _rows(old, query, lost):
        for row in rows:
            if new.execute(put, row[1:]).rowcount < 1:  # the page was read, but what it says cannot be
                lost.gaps.append(before)
            before = int(str(row[0]))
    new.execute("COMMIT")
    return lost


def _rows(old: sqlite3.Connection, query: str, lost: _Lost) -> Iterator[list[tuple[object, ...]]]:
    place, some = -1, _BATCH
    while True:
        found = _after(old, query, place, some)
        if found == []:
            return
        if found is not None:
            rows, highest = [], place
            for row in found:  # a damaged number must not lead back
                number = row[0]
                if isinstance(number, int) and number > highest:
                    rows.append(row)
                    highest = number
            yield rows
            place, some = max(highest, place + 1), _BATCH
        elif some > 1:
            some = 1
        else:
            onward = _onward(old, query, place)
            lost.gaps.append(place)
            if onward is None:
                return
            place = onward


def _after(old: sqlite3.Connection, query: str, place: int, some: int) -> list[tuple[object, ...]] | None:
    """Up to `some` rows behind a place; None when one of them cannot be read."""
    try:
        return old.execute(f"{query} WHERE rowid > ? ORDER BY rowid LIMIT ?", (place, some)).fetchall()
    except sqlite3.DatabaseError:
        return None


def _onward(old: sqlite3.Connection, query: str, place: int) -> int | None:
    """The first place behind this one from which reading goes on; None when it does not."""
    step = 1
    while _after(old, query, place + step, 1) is None:
        step *= 2
        if step > _LAST:
            return None
    low, high = place + step // 2, place + step
    while high - low > 1:
        middle = (low + high) // 2
        if _after(old, query, middle, 1) is None:
            low = middle
        else:
            high = middle
    return high


def _name_again(new: sqlite3.Connection) -> None:
    """Make the rows again of a small table that was lost, as far as the others tell what was in it."""
    named = "SELECT id, CASE id WHEN 1 THEN 'default' ELSE 'recovered ' || id END, 0, 0, 0"
    held = "SELECT DISTINCT collection_id AS id FROM documents"
    new.execute(f"INSERT OR IGNORE INTO collections (id, name, generation, token, log_start) {named} FROM ({held})")
    values = dict(new.execute("SELECT key, value FROM settings"))
    only = new.execute("SELECT min(id) FROM encoders HAVING count(*) = 1").fetchone()
    if ACTIVE_ENCODER not in values and only is not None:
        new.execute("INSERT INTO settings (key, value) VALUES (?, ?)", (ACTIVE_ENCODER, only[0]))
    try:
        served = json.loads(values.get(ACTIVATIONS, "[]"))
        wanted = {entry["fingerprint"]: entry["locator"] for entry in served[::-1]}  # the last to serve comes first
    except (ValueError, KeyError, TypeError):
        return
    kept = [values[key] for key in (ACTIVE_ENCODER, PREVIOUS_ENCODER) if key in values]
    for identifier, (fingerprint, locator) in zip(kept, wanted.items(), strict=False):
        size = new.execute(
            "SELECT length(data) / 2 FROM vectors WHERE encoder_id = ? LIMIT 1", (identifier,)
        ).fetchone()
        if size is not None:
            row = (identifier, fingerprint, locator, size[0])
            new.execute(
                "INSERT OR IGNORE INTO encoders (id, fingerprint, locator, dimensions, card) VALUES (?, ?, ?, ?, '{}')",
                row,
            )


def _complete(new: sqlite3.Connection, lost: _Lost) -> None:
    """Take away what belongs to nothing, and mark what lost a part of itself."""
    new.execute("BEGIN")
    for table, column, other in (
        ("chunks", "document_id", "documents"),
        ("document_texts", "document_id", "documents"),
        ("documents", "collection_id", "collections"),
        ("vectors", "encoder_id", "encoders"),
        ("roots", "collection_id", "collections"),
        ("failures", "collection_id", "collections"),
    ):
        new.execute(f"DELETE FROM {table} WHERE {column} NOT IN (SELECT id FROM {other})")  # noqa: S608 - constants
    marked = {document.document_id for document in stored_documents(new) if _ends_early(document)}
    untold = "SELECT id FROM documents WHERE id NOT IN (SELECT document_id FROM document_texts)"
    partial = "SELECT document_id FROM chunks GROUP BY document_id HAVING count(*) <= max(ordinal) OR min(ordinal) > 0"
    marked |= {row[0] for query in (untold, partial) for row in new.execute(query)}
    new.execute(f"INSERT INTO document_texts (document_id, length, text) SELECT id, 0, x'' FROM ({untold})")  # noqa: S608
    for gap in lost.gaps:
        marked |= {row[0] for row in new.execute("SELECT document_id FROM chunks WHERE id = ?", (gap,))}
    if lost.gaps:
        bare = "SELECT id FROM documents WHERE id NOT IN (SELECT document_id FROM chunks)"
        marked |= {row[0] for row in new.execute(bare)}
    mark_unread(new, sorted(marked))
    new.execute("COMMIT")


def _ends_early(document: StoredDocument) -> bool:
    """Whether text follows the last chunk: more of them may be missing without leaving a hole in the numbers. A text
    whose end was never cut into chunks is read again in vain, which does no harm.
    """
    end = document.chunks[-1].end if document.chunks else 0
    return document.text is not None and bool(document.text[end or 0 :].strip())


def _number_on(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """Go on numbering where the old catalogue stopped: no number is used twice."""
    known = {name: new.execute(f"SELECT coalesce(max(id), 0) FROM {name}").fetchone()[0] for name in _NUMBERED}  # noqa: S608 - constants
    known["changes"] = 0
    for rows in _rows(old, "SELECT rowid, name, seq FROM sqlite_sequence", _Lost()):
        known.update({name: max(known[name], seq) for _, name, seq in rows if name in known and isinstance(seq, int)})
    new.execute("BEGIN")
    for table, number in known.items():
        new.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        new.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, number))
    begin_history(new)
    new.execute("COMMIT")

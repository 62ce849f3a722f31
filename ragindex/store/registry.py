"""The catalogue's register: settings, encoders, collections and roots."""

# ruff: noqa: S608 - statements are put together from constants; whatever a user wrote is a parameter
from __future__ import annotations

import json
from typing import Any

from ragindex.errors import CorruptionError, UsageError
from ragindex.store.database import Database
from ragindex.store.rows import Activation, EncoderRow

__all__ = [
    "ACTIVATIONS",
    "ACTIVE_ENCODER",
    "PREVIOUS_COVERS",
    "PREVIOUS_ENCODER",
    "SALVAGED",
    "Registry",
    "headings",
    "json_value",
]

ACTIVE_ENCODER = "encoder"
PREVIOUS_ENCODER = "previous_encoder"
PREVIOUS_COVERS = "previous_encoder_covers"
ACTIVATIONS = "activations"
SALVAGED = "salvaged"  # true from a repair that may have lost documents until their folders are read again
_ENCODERS = "SELECT encoders.id, fingerprint, locator, dimensions, card FROM encoders"


class Registry:
    """Facts about the store as a whole."""

    _database: Database

    def setting(self, key: str, default: Any = None) -> Any:
        """The JSON value of a key, or `default`."""
        with self._database.snapshot() as connection:
            row = connection.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
        return default if row is None else json_value(row[0])

    def set_setting(self, key: str, value: Any) -> None:
        """Store a JSON value under a key."""
        from ragindex.store import registering

        with self._database.writing() as connection:
            registering.set_value(connection, key, value)

    def encoder(self) -> EncoderRow | None:
        """The encoder whose vectors answer queries; None as long as none was activated."""
        active = f"{_ENCODERS} WHERE encoders.id = (SELECT value FROM settings WHERE key = ?)"
        with self._database.snapshot() as connection:
            row = connection.execute(active, (ACTIVE_ENCODER,)).fetchone()
            if row is None:
                named = connection.execute("SELECT 1 FROM settings WHERE key = ?", (ACTIVE_ENCODER,)).fetchone()
                if named is None:
                    return None
                raise CorruptionError(
                    "The catalogue names an active encoder that it does not hold; restore a backup, or delete the "
                    "store and index again."
                )
        return _encoder(row)

    def previous_encoder(self) -> EncoderRow | None:
        """The encoder that served before the active one and whose vectors are kept; None where there is none."""
        query = f"{_ENCODERS} WHERE encoders.id = (SELECT value FROM settings WHERE key = ?)"
        with self._database.snapshot() as connection:
            row = connection.execute(query, (PREVIOUS_ENCODER,)).fetchone()
        return None if row is None else _encoder(row)

    def previous_covers(self) -> int:
        """The id of the last chunk that came before the previous encoder was replaced: it and those before it have its
        vectors.
        """
        return int(self.setting(PREVIOUS_COVERS, 0))

    def activations(self) -> list[Activation]:
        """The encoders that have served, in the order in which they began to."""
        return [Activation(**entry) for entry in self.setting(ACTIVATIONS, [])]

    def encoders(self) -> list[EncoderRow]:
        """Every encoder that was ever registered, oldest first; their ids are never used for another."""
        with self._database.snapshot() as connection:
            return [_encoder(row) for row in connection.execute(f"{_ENCODERS} ORDER BY id")]

    def register_encoder(self, fingerprint: str, locator: str, dimensions: int, card: dict[str, Any]) -> EncoderRow:
        """Make an encoder known, or renew the locator and the card of a known one. Does not activate it."""
        from ragindex.store import registering

        with self._database.writing() as connection:
            identifier = registering.add_encoder(connection, fingerprint, locator, dimensions, card)
        return next(row for row in self.encoders() if row.id == identifier)

    def activate_encoder(self, fingerprint: str, *, note: str = "") -> None:
        """Let queries use this encoder from now on; the one they used becomes the previous one.

        note: why; it is kept with the time. Nothing happens when the encoder is active. Raises UsageError when it was
        never registered.
        """
        from ragindex.store import registering

        with self._database.writing() as connection:
            registering.activate(connection, fingerprint, note)

    def forget_previous_encoder(self) -> None:
        """Give up the way back to the previous encoder; `Catalog.sweep_vectors` then drops its vectors."""
        from ragindex.store import registering

        with self._database.writing() as connection:
            registering.remove_values(connection, (PREVIOUS_ENCODER, PREVIOUS_COVERS))

    def collection(self, name: str, *, create: bool = False) -> int:
        """The id of a collection. Raises UsageError naming the existing ones when it is unknown."""
        with self._database.snapshot() as connection:
            found = connection.execute("SELECT id FROM collections WHERE name = ?", (name,)).fetchone()
        if found is not None:
            return int(found[0])
        if not create:
            known = ", ".join(self.collections()) or "none yet"
            raise UsageError(f"There is no collection {name!r}; existing: {known}.")
        if not name.strip():
            raise UsageError("A collection needs a name.")
        from ragindex.store import registering

        with self._database.writing() as connection:
            return registering.add_collection(connection, name)

    def collections(self) -> list[str]:
        """The names of all collections, sorted."""
        with self._database.snapshot() as connection:
            return [row[0] for row in connection.execute("SELECT name FROM collections ORDER BY name")]

    def roots(self, collection: int) -> list[str]:
        """The paths that the collection was indexed from, in the order they came."""
        query = "SELECT path FROM roots WHERE collection_id = ? ORDER BY id"
        with self._database.snapshot() as connection:
            return [row[0] for row in connection.execute(query, (collection,))]

    def add_root(self, collection: int, path: str) -> None:
        """Remember a path that the collection is indexed from."""
        from ragindex.store import registering

        with self._database.writing() as connection:
            registering.add_root(connection, collection, path)


def json_value(stored: Any) -> Any:
    """The value of a column of JSON. SQLite keeps one that is a number as a number."""
    try:
        return json.loads(stored) if isinstance(stored, str) else stored
    except ValueError as error:
        raise CorruptionError("A stored value is damaged; run `ragindex repair`.") from error


def headings(stored: Any) -> tuple[str, ...]:
    """The titles that a column of headings holds. Raises CorruptionError when it holds something else."""
    titles = json_value(stored)
    if not isinstance(titles, list) or not all(isinstance(title, str) for title in titles):
        raise CorruptionError("The stored headings of a chunk are damaged; run `ragindex repair`.")
    return tuple(titles)


def _encoder(row: tuple[Any, ...]) -> EncoderRow:
    values = list(row)
    values[4] = json_value(values[4])
    return EncoderRow(*values)

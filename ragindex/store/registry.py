"""The catalogue's register: settings, encoders, collections and roots."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from ragindex.errors import CorruptionError, UsageError
from ragindex.store.database import Database
from ragindex.store.rows import EncoderRow
from ragindex.store.schema import CollectionModel, EncoderModel, RootModel, SettingModel

__all__ = ["ACTIVE_ENCODER", "Registry"]

ACTIVE_ENCODER = "encoder"


class Registry:
    """Facts about the store as a whole."""

    _database: Database

    def setting(self, key: str, default: Any = None) -> Any:
        """The JSON value of a key, or `default`."""
        with self._database.reading() as connection:
            row = connection.execute(select(SettingModel.value).where(SettingModel.key == key)).first()
        return default if row is None else row[0]

    def set_setting(self, key: str, value: Any) -> None:
        """Store a JSON value under a key."""
        with self._database.writing() as connection:
            _set(connection, key, value)

    def encoder(self) -> EncoderRow | None:
        """The encoder whose vectors answer queries; None as long as none was activated."""
        with self._database.reading() as connection:
            active = select(SettingModel.value).where(SettingModel.key == ACTIVE_ENCODER)
            identifier = connection.execute(active).scalar_one_or_none()
            if identifier is None:
                return None
            row = connection.execute(_encoders().where(EncoderModel.id == identifier)).first()
        if row is None:
            raise CorruptionError(
                "The catalogue names an active encoder that it does not hold; index with --encoder again."
            )
        return _encoder(row)

    def encoders(self) -> list[EncoderRow]:
        """Every encoder of which the store holds vectors, oldest first."""
        with self._database.reading() as connection:
            return [_encoder(row) for row in connection.execute(_encoders().order_by(EncoderModel.id))]

    def register_encoder(self, fingerprint: str, locator: str, dimensions: int, card: dict[str, Any]) -> EncoderRow:
        """Make an encoder known, or renew the locator and the card of a known one. Does not activate it."""
        values = {"fingerprint": fingerprint, "locator": locator, "dimensions": dimensions, "card": card}
        statement = upsert(EncoderModel).values(values)
        renewed = {"locator": locator, "card": card}
        with self._database.writing() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["fingerprint"], set_=renewed))
            row = connection.execute(_encoders().where(EncoderModel.fingerprint == fingerprint)).one()
        return _encoder(row)

    def activate_encoder(self, fingerprint: str) -> None:
        """Let queries use this encoder from now on. Raises UsageError when it was never registered."""
        with self._database.writing() as connection:
            query = select(EncoderModel.id).where(EncoderModel.fingerprint == fingerprint)
            identifier = connection.execute(query).scalar_one_or_none()
            if identifier is None:
                raise UsageError(f"The store knows no encoder with the fingerprint {fingerprint}.")
            _set(connection, ACTIVE_ENCODER, identifier)

    def collection(self, name: str, *, create: bool = False) -> int:
        """The id of a collection. Raises UsageError naming the existing ones when it is unknown."""
        query = select(CollectionModel.id).where(CollectionModel.name == name)
        with self._database.reading() as connection:
            found = connection.execute(query).scalar_one_or_none()
        if found is not None:
            return int(found)
        if not create:
            known = ", ".join(self.collections()) or "none yet"
            raise UsageError(f"There is no collection {name!r}; existing: {known}.")
        if not name.strip():
            raise UsageError("A collection needs a name.")
        values = {"name": name, "generation": 0, "token": 0, "log_start": 0}
        with self._database.writing() as connection:
            connection.execute(upsert(CollectionModel).values(values).on_conflict_do_nothing())
            return int(connection.execute(query).scalar_one())

    def collections(self) -> list[str]:
        """The names of all collections, sorted."""
        with self._database.reading() as connection:
            return list(connection.execute(select(CollectionModel.name).order_by(CollectionModel.name)).scalars())

    def roots(self, collection: int) -> list[str]:
        """The paths that the collection was indexed from, in the order they came."""
        query = select(RootModel.path).where(RootModel.collection_id == collection).order_by(RootModel.id)
        with self._database.reading() as connection:
            return list(connection.execute(query).scalars())

    def add_root(self, collection: int, path: str) -> None:
        """Remember a path that the collection is indexed from."""
        values = {"collection_id": collection, "path": path}
        with self._database.writing() as connection:
            connection.execute(insert(RootModel).prefix_with("OR IGNORE").values(values))


def _set(connection: Connection, key: str, value: Any) -> None:
    statement = upsert(SettingModel).values(key=key, value=value)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["key"], set_={"value": statement.excluded.value})
    )


def _encoders() -> Any:
    return select(
        EncoderModel.id, EncoderModel.fingerprint, EncoderModel.locator, EncoderModel.dimensions, EncoderModel.card
    )


def _encoder(row: Row[*tuple[Any, ...]]) -> EncoderRow:
    return EncoderRow(*row)

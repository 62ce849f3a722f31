"""Writes the register: settings, encoders, collections and roots, each within the caller's transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from ragindex.errors import UsageError
from ragindex.store.schema import CollectionModel, EncoderModel, RootModel, SettingModel

__all__ = ["activate", "add_collection", "add_encoder", "add_root", "set_value"]


def set_value(connection: Connection, key: str, value: Any) -> None:
    """Store a JSON value under a key."""
    statement = upsert(SettingModel).values(key=key, value=value)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["key"], set_={"value": statement.excluded.value})
    )


def add_encoder(connection: Connection, fingerprint: str, locator: str, dimensions: int, card: dict[str, Any]) -> int:
    """Make an encoder known, or renew the locator and the card of a known one; returns its id."""
    values = {"fingerprint": fingerprint, "locator": locator, "dimensions": dimensions, "card": card}
    renewed = {"locator": locator, "card": card}
    statement = upsert(EncoderModel).values(values)
    connection.execute(statement.on_conflict_do_update(index_elements=["fingerprint"], set_=renewed))
    return int(connection.execute(_encoder_id(fingerprint)).scalar_one())


def activate(connection: Connection, key: str, fingerprint: str) -> None:
    """Put the id of an encoder under `key`. Raises UsageError when it was never registered."""
    identifier = connection.execute(_encoder_id(fingerprint)).scalar_one_or_none()
    if identifier is None:
        raise UsageError(f"The store knows no encoder with the fingerprint {fingerprint}.")
    set_value(connection, key, identifier)


def add_collection(connection: Connection, name: str) -> int:
    """Make a collection unless another process just did; returns its id."""
    values = {"name": name, "generation": 0, "token": 0, "log_start": 0}
    connection.execute(upsert(CollectionModel).values(values).on_conflict_do_nothing())
    return int(connection.execute(select(CollectionModel.id).where(CollectionModel.name == name)).scalar_one())


def add_root(connection: Connection, collection: int, path: str) -> None:
    """Remember a path that the collection is indexed from."""
    values = {"collection_id": collection, "path": path}
    connection.execute(insert(RootModel).prefix_with("OR IGNORE").values(values))


def _encoder_id(fingerprint: str) -> Any:
    return select(EncoderModel.id).where(EncoderModel.fingerprint == fingerprint)

"""Writes the register: settings, encoders, collections and roots, each within the caller's transaction."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from ragindex.errors import UsageError
from ragindex.store.registry import ACTIVATIONS, ACTIVE_ENCODER, PREVIOUS_COVERS, PREVIOUS_ENCODER
from ragindex.store.schema import ChunkModel, CollectionModel, EncoderModel, RootModel, SettingModel

__all__ = ["activate", "add_collection", "add_encoder", "add_root", "remove_values", "set_value"]


def set_value(connection: Connection, key: str, value: Any) -> None:
    """Store a JSON value under a key."""
    statement = upsert(SettingModel).values(key=key, value=value)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["key"], set_={"value": statement.excluded.value})
    )


def remove_values(connection: Connection, keys: Collection[str]) -> None:
    """Forget keys, those of them that are there."""
    connection.execute(delete(SettingModel).where(SettingModel.key.in_(keys)))


def add_encoder(connection: Connection, fingerprint: str, locator: str, dimensions: int, card: dict[str, Any]) -> int:
    """Make an encoder known, or renew the locator and the card of a known one; returns its id."""
    values = {"fingerprint": fingerprint, "locator": locator, "dimensions": dimensions, "card": card}
    renewed = {"locator": locator, "card": card}
    statement = upsert(EncoderModel).values(values)
    connection.execute(statement.on_conflict_do_update(index_elements=["fingerprint"], set_=renewed))
    return int(connection.execute(_encoder_id(fingerprint)).scalar_one())


def activate(connection: Connection, fingerprint: str, note: str) -> None:
    """Make an encoder the active one and the active one the previous one; add to the history.

    Raises UsageError when it was never registered.
    """
    known = select(EncoderModel.id, EncoderModel.locator).where(EncoderModel.fingerprint == fingerprint)
    encoder = connection.execute(known).one_or_none()
    if encoder is None:
        raise UsageError(f"The store knows no encoder with the fingerprint {fingerprint}.")
    active = _value(connection, ACTIVE_ENCODER)
    if active == encoder.id:
        return
    if active is not None:
        set_value(connection, PREVIOUS_ENCODER, active)
        set_value(connection, PREVIOUS_COVERS, connection.execute(select(func.max(ChunkModel.id))).scalar_one() or 0)
    set_value(connection, ACTIVE_ENCODER, encoder.id)
    entry = {"fingerprint": fingerprint, "locator": encoder.locator, "activated_at": time.time(), "note": note}
    # One value and no table: nobody asks it anything but to be told as a whole, and it grows by a line a promotion.
    set_value(connection, ACTIVATIONS, [*(_value(connection, ACTIVATIONS) or ()), entry])


def add_collection(connection: Connection, name: str) -> int:
    """Make a collection unless another process just did; returns its id."""
    values = {"name": name, "generation": 0, "token": 0, "log_start": 0}
    connection.execute(upsert(CollectionModel).values(values).on_conflict_do_nothing())
    return int(connection.execute(select(CollectionModel.id).where(CollectionModel.name == name)).scalar_one())


def add_root(connection: Connection, collection: int, path: str) -> None:
    """Remember a path that the collection is indexed from."""
    values = {"collection_id": collection, "path": path}
    connection.execute(insert(RootModel).prefix_with("OR IGNORE").values(values))


def _value(connection: Connection, key: str) -> Any:
    return connection.execute(select(SettingModel.value).where(SettingModel.key == key)).scalar_one_or_none()


def _encoder_id(fingerprint: str) -> Any:
    return select(EncoderModel.id).where(EncoderModel.fingerprint == fingerprint)

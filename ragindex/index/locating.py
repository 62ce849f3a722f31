"""Where the encoders of a store are: how each is found again, and the copies of some inside the store."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from ragindex.errors import EncoderError, StoreError

if TYPE_CHECKING:
    from ragindex.encoder import Encoder
    from ragindex.encoder.brought import BroughtEncoder

__all__ = ["delete_copies", "holds", "is_brought", "is_copy", "keep", "load", "located", "locator_of", "shown"]

_FOLDER = "encoders"
_BROUGHT = "brought:"  # as `ragindex.encoder.brought` begins its names; a query need not import that room
_INSIDE = "./"  # no name and no hub id begins like this, and the directory that a user gives is made absolute


def locator_of(encoder: Encoder | BroughtEncoder, store: Path) -> str:
    """How to find an encoder again: its name or hub id, or its directory, relative if it lies in the store."""
    given = Path(encoder.name).expanduser()
    if encoder.name == "bundled" or not given.is_dir():
        return encoder.name
    directory = given.resolve()
    return _INSIDE + directory.relative_to(store).as_posix() if directory.is_relative_to(store) else str(directory)


def located(locator: str, store: Path) -> str:
    """What `Encoder.load` finds the encoder by, wherever the store lies now."""
    return str(store / locator) if locator.startswith(_INSIDE) else locator


def is_copy(locator: str) -> bool:
    """Whether it is the locator of a copy that `keep` made."""
    return locator.startswith(f"{_INSIDE}{_FOLDER}/")


def is_brought(name: str) -> bool:
    """Whether only the program that brought the encoder can find it."""
    return name.startswith(_BROUGHT)


def shown(name: str) -> str:
    """A name as people know it."""
    return name.removeprefix(_BROUGHT)


def load(name: str, dimensions: int, *, device: str | None = None) -> Encoder:
    """The encoder of a store whose vectors are this long: where they were cut, so is the encoder. device: see
    `Encoder.load`.
    """
    from ragindex.encoder import Encoder

    if is_brought(name):
        raise EncoderError(
            f"Its vectors were made by {shown(name)!r}, which a program brought: open it with that "
            "embedding, or search with the mode 'lexical'."
        )
    encoder = Encoder.load(name, device=device)
    if dimensions < encoder.dimensions:
        return Encoder.load(name, dimensions=dimensions, device=device)
    return encoder


def holds(directory: Path, fingerprint: str) -> bool:
    """Whether the directory is there and holds this encoder undamaged."""
    from ragindex.encoder import Encoder

    try:
        return directory.is_dir() and Encoder.load(directory).fingerprint == fingerprint
    except EncoderError:
        return False


def keep(encoder: Encoder, store: Path) -> Encoder:
    """A copy of the encoder in `encoders/` of the store, where there may be one already; moves with the store.

    It appears there complete or not at all. Where adapters are merged, the copy is an encoder with a fingerprint of
    its own. Raises StoreError when the disk refuses.
    """
    from ragindex.encoder import Encoder

    folder = store / _FOLDER
    draft = folder / f"{secrets.token_hex(6)}.part"
    try:
        if holds(folder / encoder.fingerprint[:12], encoder.fingerprint):
            return Encoder.load(folder / encoder.fingerprint[:12])
        folder.mkdir(exist_ok=True)
        encoder.save(draft)
        fingerprint = Encoder.load(draft).fingerprint
        home = folder / fingerprint[:12]
        if not holds(home, fingerprint):
            shutil.rmtree(home, ignore_errors=True)
            _sync_below(draft)
            draft.rename(home)
            _sync(folder)
        return Encoder.load(home)
    except OSError as error:
        raise StoreError(f"The encoder {encoder.name!r} cannot be copied into {folder}: {error}.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def delete_copies(store: Path, *, kept: Collection[str]) -> None:
    """Under both leases: delete the copies, whole and half-made, whose locators are not among `kept`."""
    for directory in (store / _FOLDER).glob("*"):
        if _INSIDE + directory.relative_to(store).as_posix() not in kept:
            shutil.rmtree(directory, ignore_errors=True)  # what cannot be deleted only takes up space


def _sync_below(directory: Path) -> None:
    for path in (*directory.rglob("*"), directory):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

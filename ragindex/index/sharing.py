"""Encoders that are loaded once for all open collections of a store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from ragindex.encoder import Encoder

__all__ = ["LoadedEncoders"]


class LoadedEncoders:
    """By fingerprint, and no longer than a collection serves with them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._encoders: WeakValueDictionary[str, Encoder] = WeakValueDictionary()

    def get(self, fingerprint: str, load: Callable[[], Encoder]) -> Encoder:
        """The encoder that another collection has loaded, or the one that `load` gives; what that raises passes
        through. One loads at a time: two that need the same one must not both have it in memory.
        """
        with self._lock:
            known = self._encoders.get(fingerprint)
            if known is not None:
                return known
            encoder = load()
            self._encoders[encoder.fingerprint] = encoder
            return encoder

    def add(self, encoder: Encoder) -> None:
        """Give one that is loaded already to the others."""
        with self._lock:
            self._encoders.setdefault(encoder.fingerprint, encoder)

"""The exceptions that ragindex raises.

    RagIndexError                    root; the command line prints its text as one line and exits with 2
    ├── UsageError                   the request itself is wrong: an option, a filter, a path
    │   ├── FilterSyntaxError        a filter expression that cannot be parsed
    │   └── DuplicateError           a record is new by request, but its id is taken
    ├── LoadError                    a file cannot be turned into text; carries the reason that `failures` shows
    ├── EncoderError                 an encoder cannot be loaded or used
    │   ├── BackboneError            a model that cannot be made bidirectional, or failed its self-test
    │   └── EncoderMismatchError     a store was built with another encoder
    ├── StoreError                   a store cannot be read or written
    │   ├── StoreLockedError         another process is writing
    │   ├── SchemaError              the store's schema is newer or older than this program's
    │   └── CorruptionError          stored bytes contradict their checksum or each other
    ├── WipeGuardError               a run would delete more than half of the documents
    ├── MissingDependencyError       an optional package is not installed; names the extra to install
    └── TrainingError                training data or a training run is unusable

Every message is one sentence that says what is wrong and, where something can be done, what to do.
"""

from __future__ import annotations

__all__ = [
    "BackboneError",
    "CorruptionError",
    "DuplicateError",
    "EncoderError",
    "EncoderMismatchError",
    "FilterSyntaxError",
    "LoadError",
    "MissingDependencyError",
    "RagIndexError",
    "SchemaError",
    "StoreError",
    "StoreLockedError",
    "TrainingError",
    "UsageError",
    "WipeGuardError",
]


class RagIndexError(Exception):
    """Root of every error that ragindex raises on purpose."""


class UsageError(RagIndexError):
    """The request itself is wrong: an option, a filter, a path."""


class FilterSyntaxError(UsageError):
    """A filter expression that cannot be parsed."""


class DuplicateError(UsageError):
    """A record was to be new, but its id is taken."""


class LoadError(RagIndexError):
    """A file cannot be turned into text.

    `reason` is a short phrase without the path ("no text layer on any of 12 pages").
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class EncoderError(RagIndexError):
    """An encoder cannot be loaded or used."""


class BackboneError(EncoderError):
    """A model that cannot be made bidirectional, or that failed its self-test."""


class EncoderMismatchError(EncoderError):
    """A store was built with another encoder than the one it is opened with."""


class StoreError(RagIndexError):
    """A store cannot be read or written."""


class StoreLockedError(StoreError):
    """Another process holds the writer lease."""


class SchemaError(StoreError):
    """The store's schema is newer or older than this program's."""


class CorruptionError(StoreError):
    """Stored bytes contradict their checksum or each other."""


class WipeGuardError(RagIndexError):
    """A run would delete more than half of the documents."""


class MissingDependencyError(RagIndexError):
    """An optional package is not installed; the message names the extra to install."""


class TrainingError(RagIndexError):
    """Training data or a training run is unusable."""

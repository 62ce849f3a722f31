"""Compares a folder with the catalogue: what is new, changed, moved, gone. Reads no document, changes nothing."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from ragindex.errors import UsageError, WipeGuardError
from ragindex.loaders import iso_seconds, walk
from ragindex.store.catalog import Catalog
from ragindex.store.rows import RECORD, FailureState, FileState, Move
from ragindex.types import Failure

__all__ = ["FILELESS", "MEMORY", "Candidate", "Plan", "Scope", "document_name", "make_plan", "storable_name"]

# Stands for the loader of documents that are no files; a walk neither finds nor misses them.
MEMORY = "memory"
FILELESS = frozenset({MEMORY, RECORD})
# A file modified this shortly before it was checked may have changed once more within one step of the file clock.
_RACY_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Scope:
    """What a run looks at. `base` is the folder that document paths are relative to, `loader` what text depends on,
    `attempt` what else decides whether a file can be read.
    """

    roots: tuple[Path, ...]
    base: Path
    store: Path
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    loader: str = ""
    attempt: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file to read; `known` is what the catalogue holds of it."""

    path: Path
    name: str
    size: int
    mtime_ns: int
    known: FileState | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What an index run would do. `standing` are failures of files that have not changed since."""

    candidates: tuple[Candidate, ...] = ()
    moves: tuple[Move, ...] = ()
    deleted: tuple[str, ...] = ()
    unreadable: tuple[Failure, ...] = ()
    standing: tuple[Failure, ...] = ()
    gone_failures: tuple[str, ...] = ()
    unchanged: int = 0
    known: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether a run of this plan would leave the catalogue as it is."""
        return not (self.candidates or self.moves or self.deleted or self.unreadable or self.gone_failures)

    def check_wipe(self) -> None:
        """Raise WipeGuardError when more than half of the documents in scope would go."""
        if 2 * len(self.deleted) > self.known:
            raise WipeGuardError(
                f"{len(self.deleted)} of {self.known} indexed documents are not there any more; nothing was changed. "
                "Is the folder mounted and the path right? Run again with --allow-delete to delete them from the index."
            )


@dataclass(slots=True)
class _Draft:
    candidates: list[Candidate] = field(default_factory=list)
    unreadable: list[Failure] = field(default_factory=list)
    standing: list[Failure] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    unchanged: int = 0


def document_name(path: Path, base: Path) -> str:
    r"""The identity of a file: its POSIX path relative to `base`, or absolute when outside of it.

    Bytes that are no UTF-8 are written as `\xNN`, so that every name can be stored and shown.
    """
    return "." if path == base else storable_name(path.as_posix().removeprefix(_folder_prefix(base)))


def _folder_prefix(folder: Path) -> str:
    return folder.as_posix().rstrip("/") + "/"


def storable_name(name: str) -> str:
    r"""A file name in which bytes that are no UTF-8 are written as `\xNN`."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def make_plan(catalog: Catalog, collection: int, scope: Scope) -> Plan:
    """Walk the roots and compare. Raises UsageError for a root that does not exist."""
    known: dict[str, FileState] = {}
    failures: dict[str, FailureState] = {}
    draft = _Draft()
    for root in scope.roots:
        prefix = _prefix(root, scope.base)
        states = catalog.file_states(collection, prefix).items()
        known |= {name: state for name, state in states if state.loader not in FILELESS and _inside(name, prefix)}
        failures |= {
            name: state for name, state in catalog.failure_states(collection, prefix).items() if _inside(name, prefix)
        }
        _survey(root, known, failures, scope, draft)
    hidden = tuple(failure.path for failure in draft.unreadable)
    missing = [name for name in known if name not in draft.seen and not _below(name, hidden)]
    moves = _find_moves(draft.candidates, [known[name] for name in missing], scope.loader)
    moved_from, moved_to = {move.old for move in moves}, {move.new for move in moves}
    return Plan(
        candidates=tuple(item for item in draft.candidates if item.name not in moved_to),
        moves=tuple(moves),
        deleted=tuple(name for name in missing if name not in moved_from),
        unreadable=tuple(draft.unreadable),
        standing=tuple(draft.standing),
        gone_failures=tuple(name for name in failures if name not in draft.seen and not _below(name, hidden)),
        unchanged=draft.unchanged,
        known=len(known),
    )


def _survey(
    root: Path, known: dict[str, FileState], failures: dict[str, FailureState], scope: Scope, draft: _Draft
) -> None:
    prefix = _folder_prefix(scope.base)
    # Text, not paths: taking those apart would be most of the time of a run that finds nothing new.
    for entry in walk(root, include=scope.include, exclude=scope.exclude, store=scope.store):
        if entry.skipped is None:
            name = storable_name(os.fspath(entry.file).removeprefix(prefix))
        else:
            name = document_name(entry.path, scope.base)
        if name in draft.seen:
            continue
        draft.seen.add(name)
        if entry.skipped is not None:
            draft.unreadable.append(Failure(name, entry.skipped))
            continue
        state, failure = known.get(name), failures.get(name)
        if state is not None and state.loader == scope.loader and _same(entry.size, entry.mtime_ns, state):
            draft.unchanged += 1
        elif failure is not None and _as_hopeless(entry.size, entry.mtime_ns, failure, scope.attempt):
            draft.standing.append(Failure(name, failure.reason))
        else:
            draft.candidates.append(Candidate(entry.path, name, entry.size, entry.mtime_ns, state))


def _same(size: int, mtime_ns: int, state: FileState) -> bool:
    racy = state.checked_ns - state.mtime_ns < _RACY_NS
    return size == state.size and mtime_ns == state.mtime_ns and not racy


def _as_hopeless(size: int, mtime_ns: int, failure: FailureState, attempt: str) -> bool:
    # A failure that was not the content's fault carries no attempt: chmod, for one, changes neither size nor time.
    return (size, mtime_ns, attempt) == (failure.size, failure.mtime_ns, failure.sha256)


def _find_moves(candidates: Iterable[Candidate], missing: Sequence[FileState], loader: str) -> list[Move]:
    """Pair new files with vanished ones that had the same bytes and the same suffix; only sizes that match are
    hashed.
    """
    by_size: dict[int, list[FileState]] = defaultdict(list)
    for state in missing:
        if state.loader == loader:
            by_size[state.size].append(state)
    moves: list[Move] = []
    for candidate in candidates:
        twins = by_size.get(candidate.size, []) if candidate.known is None else []
        suffix = PurePosixPath(candidate.name).suffix
        twins = [state for state in twins if PurePosixPath(state.path).suffix == suffix]
        digest = _hash(candidate.path) if twins else None
        for state in twins:
            if state.sha256 == digest:
                by_size[candidate.size].remove(state)
                new = state._replace(path=candidate.name, mtime_ns=candidate.mtime_ns)
                moves.append(Move(state.path, candidate.name, new, {"modified": iso_seconds(candidate.mtime_ns / 1e9)}))
                break
    return moves


def _hash(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None  # reading it properly will say why


def _prefix(root: Path, base: Path) -> str | None:
    """The name of a root, None where it is the base itself. Raises UsageError when it does not exist."""
    if not root.exists():
        raise UsageError(
            f"{root} does not exist; nothing was changed. If it is gone for good, remove it with `ragindex remove`."
        )
    name = document_name(root, base)
    return None if name == "." else name


def _inside(name: str, prefix: str | None) -> bool:
    """Whether a document lies below the root called `prefix`."""
    if prefix is None:  # the base itself: relative names lie below it, absolute ones were indexed from elsewhere
        return not name.startswith("/")
    return name == prefix or name.startswith(prefix.rstrip("/") + "/")


def _below(name: str, folders: tuple[str, ...]) -> bool:
    return any(name == folder or folder == "." or name.startswith(folder + "/") for folder in folders)

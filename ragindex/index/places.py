"""What paths mean to one collection: names of documents, the scope of a run, and what later runs must repeat."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragindex.config import Chunking, Settings
from ragindex.errors import UsageError
from ragindex.store.catalog import Catalog
from ragindex.store.registry import SALVAGED

if TYPE_CHECKING:
    from ragindex.ingest.plan import Scope
    from ragindex.search.why_not import Expectation

__all__ = ["Places"]

_LATE = "late_chunking"


class Places:
    """Document names are relative to `base`, the folder that holds the store."""

    def __init__(self, catalog: Catalog, collection: int, settings: Settings) -> None:
        self.store = catalog.directory.resolve()
        self.base = self.store.parent
        self.chunking = settings.chunking(_begun(catalog.setting("chunking")))
        self._catalog = catalog
        self._collection = collection
        self._settings = settings

    def scope(self, paths: Sequence[str | Path], include: Sequence[str], exclude: Sequence[str]) -> Scope:
        """What a run over these paths looks at. Raises UsageError for none, one that does not exist, or the store."""
        from ragindex.ingest.plan import Scope
        from ragindex.loaders import LOADER_VERSION

        if not paths:
            raise UsageError("Say which files or folders to index, for example `ragindex index .`.")
        roots = []
        for path in paths:
            given = Path(path).expanduser()
            if not given.exists():
                raise UsageError(
                    f"{given} does not exist; nothing was changed. "
                    "If it is gone for good, remove it from the index with `ragindex remove`."
                )
            roots.append(given.resolve())
            if roots[-1].is_relative_to(self.store):
                raise UsageError(f"{given} belongs to the index itself; say which other folder to index.")
        # A file that was named once stays in the index although the walk of its folder would skip it.
        remembered = [self.base / name for name in self._catalog.roots(self._collection)]
        named = [file for file in remembered if file.is_file() and any(file.is_relative_to(root) for root in roots)]
        return Scope(
            roots=tuple(dict.fromkeys([*roots, *named])),
            base=self.base,
            store=self.store,
            include=(*self._settings.include, *include),
            exclude=(*self._settings.exclude, *exclude),
            loader=f"{LOADER_VERSION}:{self.chunking.tokens}:{self.chunking.overlap}{':late' * self.chunking.late}",
            attempt=sha256(f"{LOADER_VERSION}:{self._settings.limits}".encode()).hexdigest(),
        )

    def remember(self, scope: Scope) -> None:
        """Keep what later runs must repeat: the roots, and how text is cut."""
        from ragindex.ingest.plan import document_name

        known = set(self._catalog.roots(self._collection))
        for root in scope.roots:
            name = document_name(root, self.base)
            if name not in known:
                self._catalog.add_root(self._collection, name)
        self.remember_chunking()

    def completed(self, scope: Scope) -> None:
        """Every document below these roots is there: where those are all roots, none is missed any more."""
        from ragindex.ingest.plan import document_name

        if self._catalog.setting(SALVAGED):
            read = {document_name(root, self.base) for root in scope.roots}
            if "." in read or read.issuperset(self._catalog.roots(self._collection)):
                self._catalog.set_setting(SALVAGED, False)

    def remember_chunking(self) -> None:
        """Keep how text is cut."""
        stored = self._catalog.setting("chunking")
        chunking: dict[str, Any] = {"chunk_tokens": self.chunking.tokens, "overlap": self.chunking.overlap}
        if self.chunking.late or _LATE in (stored or {}):  # once there, it tells that some chunks may be late ones
            chunking[_LATE] = self.chunking.late
        if stored != chunking:
            self._catalog.set_setting("chunking", chunking)

    def name(self, path: str | Path) -> str:
        """The identity of a document as the user means it; that of one that is no file may look like no path."""
        from ragindex.ingest.plan import document_name, storable_name

        exact = storable_name(str(path))
        if exact in self._catalog.file_states(self._collection, exact):
            return exact
        return document_name(self._absolute(path), self.base)

    def expectation(self, expect: str) -> Expectation:
        """What `why_not` is to look for: "path" or "path:line"."""
        from ragindex.ingest.plan import FILELESS
        from ragindex.search.why_not import Expectation

        path, line = _split_line(expect)
        name = self.name(path)
        state = self._catalog.file_states(self._collection, name).get(name)
        return Expectation(
            name=name,
            file=None if state is not None and state.loader in FILELESS else self._absolute(path),
            line=line,
            roots=tuple((self.base / root).resolve() for root in self._catalog.roots(self._collection)),
            include=self._settings.include,
            exclude=self._settings.exclude,
        )

    def doomed(self, path: str | Path) -> set[str]:
        """What is to be removed with this path: a document or failure, all that lie below a folder. Raises UsageError
        when there are none.
        """
        name = self.name(path)
        prefix = None if name == "." else name
        found = {
            *self._catalog.file_states(self._collection, prefix),
            *self._catalog.failure_states(self._collection, prefix),
        }
        if prefix is None:  # the base: what was indexed from elsewhere does not lie below it
            found = {known for known in found if not known.startswith("/")}
        if not found:
            raise UsageError(f"{name} is not in the index; `ragindex list` shows what is.")
        return found

    def _absolute(self, path: str | Path) -> Path:
        """A path as the user means it: from here if that exists or was indexed, else from the base, as hits print
        it.
        """
        given = Path(path).expanduser()
        if given.is_absolute():
            return given.resolve()
        here, there = given.resolve(), (self.base / given).resolve()
        if here == there or here.exists():
            return here
        return there


def _begun(stored: Any) -> Chunking | None:
    if not isinstance(stored, dict):
        return None
    return Chunking(int(stored["chunk_tokens"]), int(stored["overlap"]), bool(stored.get(_LATE)))


def _split_line(expect: str) -> tuple[str, int | None]:
    path, separator, line = expect.rpartition(":")
    return (path, int(line)) if separator and path and line.isascii() and line.isdigit() else (expect, None)

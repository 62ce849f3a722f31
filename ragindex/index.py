"""Index: a store, its encoder and its search engine behind one object; the one place that picks backends.

Encoder, search, loaders and ingest are imported by the methods that need them: a lexical query loads no tokenizer, a
run that finds nothing new no model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ragindex import filters
from ragindex.config import Chunking, Settings
from ragindex.errors import EncoderError, EncoderMismatchError, StoreLockedError, UsageError
from ragindex.store.catalog import Catalog
from ragindex.store.lease import WriterLease
from ragindex.store.rows import Batch, EncoderRow
from ragindex.store.snapshot import LiveIndexes
from ragindex.types import Document, Failure, Hit, IndexReport, Mode, Verification, WhyNot

if TYPE_CHECKING:
    from ragindex.encoder import Encoder
    from ragindex.ingest.plan import Scope
    from ragindex.ingest.progress import Progress
    from ragindex.ingest.run import IngestRun
    from ragindex.search import Engine

__all__ = ["Index"]


class Index:
    """One collection of one store: add folders, search them, look after them.

    Document paths are relative to `base`, the folder that holds the store. Safe for reads from several threads; one
    process writes at a time. Use it as a context manager, or call `close`.
    """

    def __init__(self, catalog: Catalog, *, collection: str, encoder: str | Encoder | None, settings: Settings) -> None:
        self.store = catalog.directory.resolve()
        self.base = self.store.parent
        self.settings = settings
        self.chunking = settings.chunking(_begun(catalog.setting("chunking")))
        self.collection = collection
        self._catalog = catalog
        self._collection_id = catalog.collection(collection)
        self._encoder_wanted = encoder
        self._encoder: Encoder | None = None if isinstance(encoder, str) else encoder
        self._lock = threading.RLock()
        self._live: LiveIndexes | None = None
        self._engine: Engine | None = None
        self._served = catalog.encoder()  # what `_live` and `_engine` were made for

    @classmethod
    def open(
        cls,
        store: str | Path = ".ragindex",
        *,
        encoder: str | Encoder | None = None,
        collection: str = "default",
        create: bool = True,
        settings: Settings | None = None,
    ) -> Index:
        """Open the store directory, creating it if absent and `create`.

        encoder: None takes the one the store was built with (a new store: `settings.encoder`). Raises
        EncoderMismatchError when the store was built with another one, StoreError when it cannot be opened,
        UsageError for an unknown collection without `create`.
        """
        catalog = Catalog.open(Path(store).expanduser().absolute(), create=create)
        try:
            if create and not catalog.read_only:
                catalog.collection(collection, create=True)
            index = cls(catalog, collection=collection, encoder=encoder, settings=settings or Settings())
            if encoder is not None and catalog.encoder() is not None:
                index._check_encoder(index.encoder, catalog.encoder())
        except BaseException:
            catalog.close()
            raise
        return index

    def close(self) -> None:
        """Release files and threads; harmless when repeated."""
        with self._lock:
            if self._live is not None:
                self._live.close()
            self._live = self._engine = None
            self._catalog.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def encoder(self) -> Encoder:
        """The encoder that serves; loaded when first needed. Raises EncoderError and EncoderMismatchError."""
        with self._lock:
            if self._encoder is None:
                from ragindex.encoder import Encoder

                row = self._catalog.encoder()
                name = self._encoder_wanted or (row.locator if row is not None else self.settings.encoder)
                assert isinstance(name, str)
                try:
                    encoder = Encoder.load(name)
                    if row is not None and row.dimensions < encoder.dimensions:  # the store was begun with a cut one
                        encoder = Encoder.load(name, dimensions=row.dimensions)
                except EncoderError as error:
                    if row is None or self._encoder_wanted is not None:
                        raise
                    raise EncoderError(f"The encoder of {self.store} cannot be loaded. {error}") from error
                self._check_encoder(encoder, row)
                self._encoder = encoder
            return self._encoder

    def add(
        self,
        *paths: str | Path,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        dry_run: bool = False,
        allow_delete: bool = False,
        progress: Progress | None = None,
    ) -> IndexReport:
        """Bring the index level with files and folders: new, changed, moved and deleted ones.

        Raises UsageError for a path that does not exist, WipeGuardError when more than half of the documents below
        the paths are gone and `allow_delete` is off, StoreLockedError while another process writes. A bad file never
        raises: see `failed`.
        """
        from ragindex.ingest.plan import make_plan
        from ragindex.ingest.progress import Silent

        began = time.monotonic()
        scope = self._scope(paths, include, exclude)
        if dry_run:
            from ragindex.ingest.run import preview

            return preview(make_plan(self._catalog, self._collection_id, scope))
        shown = progress or Silent()
        with WriterLease(self.store, command=f"index {' '.join(map(str, paths))}"):
            self._follow_encoder()
            plan = make_plan(self._catalog, self._collection_id, scope)
            if not allow_delete:
                plan.check_wipe()
            idle = plan.is_empty and self._indexes().settled()
            row = None if idle else self._registered_encoder()
            self._remember(scope)
            if row is None:
                shown.start(0)
                shown.finish()
                report = IndexReport(unchanged=plan.unchanged, failed=plan.standing)
            else:
                live = self._indexes()
                report = self._run(live, row, loader=scope.loader, attempt=scope.attempt).execute(plan, shown)
                live.publish(force=True)
        return replace(report, seconds=time.monotonic() - began)

    def put(self, documents: Sequence[Document], *, progress: Progress | None = None) -> IndexReport:
        """Add or replace documents that are no files, by their `path`; a walk over folders leaves them alone.

        Nothing happens to one whose text, title and metadata have not changed.
        """
        from ragindex.ingest.progress import Silent

        began = time.monotonic()
        with WriterLease(self.store, command="put"):
            row = self._registered_encoder()
            self._remember_chunking()
            live = self._indexes()
            run = self._run(live, row, loader="", attempt="")
            known = self._catalog.file_states(self._collection_id, None)
            report = run.put(documents, known, progress or Silent())
            live.publish(force=True)
        return replace(report, seconds=time.monotonic() - began)

    def watch(
        self,
        *paths: str | Path,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        progress: Progress | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[IndexReport]:
        """Index the paths, then again whenever something below them changes; yields a report for every run that
        found work.

        Ends when `stop` is set. Waits while another process writes, except at the start. A run that would wipe the
        index is not made: WipeGuardError ends the watch.
        """
        from watchfiles import watch

        report = self.add(*paths, include=include, exclude=exclude, progress=progress)
        yield report
        failed = report.failed
        due = True  # the first round catches what changed between the first run and the beginning of the watch
        for changes in watch(
            *self._scope(paths, include, exclude).roots,
            watch_filter=lambda _, changed: not Path(changed).is_relative_to(self.store),
            stop_event=stop,
            raise_interrupt=True,
            rust_timeout=500,
            yield_on_timeout=True,
        ):
            due = due or bool(changes)
            if not due:
                continue
            try:
                report = self.add(*paths, include=include, exclude=exclude, progress=progress)
            except StoreLockedError:
                continue  # another process writes; the next round tries again
            due = False
            if report.added or report.updated or report.moved or report.deleted or report.failed != failed:
                yield report
            failed = report.failed

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        mode: Mode = "hybrid",
        instruction: str | None = None,
        filter: str | filters.Filter | None = None,  # noqa: A002 - the field's word for it
        diversity: float = 0.0,
        explain: bool = False,
    ) -> list[Hit]:
        """The best hits for a query, best first: k of them whenever k distinct passages match the filter.

        instruction: put before the query, never before documents; None is the encoder's default. filter: an
        expression such as "path like 'ops/%' and size < 100000". diversity: 0 ranks by score alone, towards 1 hits
        differ more from each other. Raises UsageError for bad arguments, EncoderMismatchError when the store was
        built with another encoder.
        """
        from ragindex.search import Request

        return self._search_engine().search(Request(query, k, mode, instruction, _parsed(filter), diversity, explain))

    def rank_documents(self, query: str, *, k: int = 100, mode: Mode = "hybrid") -> list[str]:
        """Paths of the k best documents, best first; nothing is folded away."""
        from ragindex.search import Request

        return self._search_engine().rank_documents(Request(query, k, mode))

    def context(self, hits: Sequence[Hit], *, tokens: int) -> str:
        """A numbered, cited block of hits for a prompt, at most `tokens` tokens of the encoder's tokenizer long."""
        from ragindex.search import render_context

        return render_context(hits, tokens=tokens, spans=self.encoder.tokenizer.offsets)

    def why_not(
        self,
        query: str,
        expect: str,
        *,
        k: int = 10,
        mode: Mode = "hybrid",
        instruction: str | None = None,
        filter: str | filters.Filter | None = None,  # noqa: A002
    ) -> WhyNot:
        """Why `expect` ("path" or "path:line") is not among the hits, and what would help."""
        from ragindex.ingest.plan import MEMORY
        from ragindex.search import Request
        from ragindex.search.why_not import Expectation, explain_absence

        path, line = _split_line(expect)
        name = self._name(path)
        state = self._catalog.file_states(self._collection_id, name).get(name)
        expected = Expectation(
            name=name,
            file=None if state is not None and state.loader == MEMORY else self._absolute(path),
            line=line,
            roots=tuple((self.base / root).resolve() for root in self._catalog.roots(self._collection_id)),
            include=self.settings.include,
            exclude=self.settings.exclude,
        )
        request = Request(query, k, mode, instruction, _parsed(filter))
        return explain_absence(self._search_engine(), self._catalog, self._collection_id, request, expected)

    def instruction(self) -> str:
        """The encoder's default query instruction; empty when it has none."""
        return self.encoder.config.prompts.instruction

    def status(self) -> dict[str, Any]:
        """Counts, sizes on disk, encoder card, index factory, generation, pending rows; JSON-ready. Loads no
        encoder.
        """
        counts = self._catalog.counts(self._collection_id)
        row = self._catalog.encoder()
        state = self._indexes().status()
        return {
            "store": str(self.store),
            "collection": self.collection,
            "collections": self._catalog.collections(),
            "documents": counts.documents,
            "chunks": counts.chunks,
            "vectors": counts.vectors,
            "failures": counts.failures,
            "tokens": counts.tokens,
            "roots": self._catalog.roots(self._collection_id),
            "chunk_tokens": self.chunking.tokens,
            "overlap": self.chunking.overlap,
            "encoder": None if row is None else _encoder_json(row),
            "index": state.factory,
            "generation": state.generation,
            "pending": state.pending,
            "bytes": {
                "catalog": sum(file.stat().st_size for file in self.store.glob("catalog.sqlite*")),
                "dense": state.dense_bytes,
                "lexical": state.lexical_bytes,
            },
        }

    def documents(self) -> list[dict[str, Any]]:
        """Every document by path; JSON-ready."""
        return [
            {
                "path": row.path,
                "title": row.title,
                "size": row.size,
                "chunks": row.chunks,
                "tokens": row.tokens,
                "characters": row.length,
                "mime": row.metadata.get("mime"),
                "language": row.metadata.get("language"),
                "modified": row.metadata.get("modified"),
                "sha256": row.sha256,
                "indexed_at": row.indexed_at,
            }
            for row in self._catalog.documents(self._collection_id)
        ]

    def failures(self) -> list[Failure]:
        """Files that could not be indexed, and why."""
        return [Failure(row.path, row.reason) for row in self._catalog.failures(self._collection_id)]

    def remove(self, *paths: str | Path) -> int:
        """Forget documents; a folder removes everything below it. Returns how many. Raises UsageError when nothing
        matches.
        """
        names = [self._name(path) for path in paths]
        with WriterLease(self.store, command="remove"):
            doomed: set[str] = set()
            for name in names:
                prefix = None if name == "." else name
                found = set(self._catalog.file_states(self._collection_id, prefix))
                listed = set(self._catalog.failure_states(self._collection_id, prefix))
                if prefix is None:  # the base: what was indexed from elsewhere does not lie below it
                    found, listed = ({path for path in some if not path.startswith("/")} for some in (found, listed))
                if not found and not listed:
                    raise UsageError(f"{name} is not in the index; `ragindex list` shows what is.")
                doomed |= found | listed
            present = doomed & set(self._catalog.file_states(self._collection_id, None))
            self._catalog.commit(self._collection_id, Batch(removes=sorted(present), cleared_failures=sorted(doomed)))
            self._indexes().publish(force=True)
        return len(present)

    def verify(self) -> Verification:
        """Read everything and compare: catalogue with itself, snapshots with the catalogue. Changes nothing."""
        problems = [*self._catalog.integrity(), *self._indexes().problems()]
        counts = self._catalog.counts(self._collection_id)
        return Verification(not problems, counts.documents, counts.chunks, counts.vectors, tuple(problems))

    def repair(self) -> Verification:
        """Make the snapshots again from the catalogue, embedding nothing; what remains broken is in the result."""
        with WriterLease(self.store, command="repair"):
            self._indexes().rebuild()
        return self.verify()

    def compact(self) -> dict[str, int]:
        """Drop vectors that no chunk uses, give space back, make the snapshots again. Sizes are bytes of the store."""
        with WriterLease(self.store, command="compact"):
            before = _bytes_below(self.store)
            removed = self._catalog.sweep_vectors()
            self._catalog.vacuum()
            self._indexes().rebuild()
        return {"vectors_removed": removed, "bytes_before": before, "bytes_after": _bytes_below(self.store)}

    def reembed(self, encoder: str | Encoder, *, progress: Progress | None = None) -> int:
        """Embed every chunk of the store with another encoder, then switch to it; the old one serves meanwhile.

        Returns the number of chunks embedded; an interrupted run goes on where it stopped. Raises EncoderError when a
        chunk is longer than the new encoder reads.
        """
        from ragindex.encoder import Encoder
        from ragindex.ingest.progress import Silent
        from ragindex.ingest.reembed import reembed

        new = Encoder.load(encoder) if isinstance(encoder, str) else encoder
        with WriterLease(self.store, command=f"reembed with {new.name}"):
            self._check_room(new)
            row = self._register(new)
            embedded = reembed(self._catalog, new, row, self.chunking, progress or Silent())
            self._catalog.activate_encoder(new.fingerprint)
            with self._lock:
                self._encoder, self._encoder_wanted = new, None
            self._follow_encoder()
            self._indexes().publish(force=True)
        return embedded

    def _run(self, live: LiveIndexes, row: EncoderRow, *, loader: str, attempt: str) -> IngestRun:
        from ragindex.ingest.run import IngestRun

        return IngestRun(
            catalog=self._catalog,
            collection=self._collection_id,
            encoder=self.encoder,
            encoder_id=row.id,
            limits=self.settings.limits,
            chunking=self.chunking,
            loader=loader,
            attempt=attempt,
            published=live.publish,
        )

    def _scope(self, paths: Sequence[str | Path], include: Sequence[str], exclude: Sequence[str]) -> Scope:
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
        remembered = [self.base / name for name in self._catalog.roots(self._collection_id)]
        named = [file for file in remembered if file.is_file() and any(file.is_relative_to(root) for root in roots)]
        return Scope(
            roots=tuple(dict.fromkeys([*roots, *named])),
            base=self.base,
            store=self.store,
            include=(*self.settings.include, *include),
            exclude=(*self.settings.exclude, *exclude),
            loader=f"{LOADER_VERSION}:{self.chunking.tokens}:{self.chunking.overlap}",
            attempt=sha256(f"{LOADER_VERSION}:{self.settings.limits}".encode()).hexdigest(),
        )

    def _remember(self, scope: Scope) -> None:
        """Keep what later runs must repeat: the roots, and how text is cut."""
        from ragindex.ingest.plan import document_name

        known = set(self._catalog.roots(self._collection_id))
        for root in scope.roots:
            name = document_name(root, self.base)
            if name not in known:
                self._catalog.add_root(self._collection_id, name)
        self._remember_chunking()

    def _remember_chunking(self) -> None:
        chunking = {"chunk_tokens": self.chunking.tokens, "overlap": self.chunking.overlap}
        if self._catalog.setting("chunking") != chunking:
            self._catalog.set_setting("chunking", chunking)

    def _name(self, path: str | Path) -> str:
        """The identity of a document as the user means it; that of one that is no file may look like no path."""
        from ragindex.ingest.plan import document_name, storable_name

        exact = storable_name(str(path))
        if exact in self._catalog.file_states(self._collection_id, exact):
            return exact
        return document_name(self._absolute(path), self.base)

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

    def _follow_encoder(self) -> EncoderRow | None:
        """The store's encoder as of now: another process may have registered the first one, or switched.

        Raises EncoderMismatchError when this object was opened with a certain one that the store has left.
        """
        row = self._catalog.encoder()
        with self._lock:
            if row != self._served:
                self._reset()
                if self._encoder is not None and self._encoder_wanted is not None:
                    self._check_encoder(self._encoder, row)
                elif row is not None and self._encoder is not None and self._encoder.fingerprint != row.fingerprint:
                    self._encoder = None
                self._served = row
        return row

    def _search_engine(self) -> Engine:
        from ragindex.search import Engine

        self._follow_encoder()
        with self._lock:
            if self._engine is None:
                self._engine = Engine(self._catalog, self._indexes(), self._collection_id, lambda: self.encoder)
            return self._engine

    def _indexes(self) -> LiveIndexes:
        with self._lock:
            if self._live is None:
                row = self._served
                self._live = LiveIndexes(
                    self._catalog,
                    self.store,
                    self._collection_id,
                    row.id if row is not None else None,
                    row.dimensions if row is not None else None,
                )
            return self._live

    def _reset(self) -> None:
        if self._live is not None:
            self._live.close()
        self._live = self._engine = None

    def _registered_encoder(self) -> EncoderRow:
        """The store's encoder, made so when the store has none yet; under the lease."""
        row = self._follow_encoder()
        encoder = self.encoder
        self._check_room(encoder)
        if row is None:
            row = self._register(encoder)
            self._catalog.activate_encoder(encoder.fingerprint)
            self._follow_encoder()
        return row

    def _check_room(self, encoder: Encoder) -> None:
        if self.chunking.tokens > encoder.max_tokens:
            raise UsageError(
                f"chunk_tokens is {self.chunking.tokens}, but this encoder reads at most {encoder.max_tokens} tokens."
            )

    def _register(self, encoder: Encoder) -> EncoderRow:
        given = Path(encoder.name).expanduser()
        locator = str(given.resolve()) if encoder.name != "bundled" and given.is_dir() else encoder.name
        return self._catalog.register_encoder(
            encoder.fingerprint, locator, encoder.dimensions, dict(encoder.config.card)
        )

    def _check_encoder(self, encoder: Encoder, row: EncoderRow | None) -> None:
        if row is not None and row.fingerprint != encoder.fingerprint:
            if row.locator == encoder.name:
                raise EncoderMismatchError(
                    f"{self.store} was built with another version of the encoder {encoder.name!r}; "
                    f"run `ragindex index PATH --encoder {encoder.name} --reembed` to bring it up to date."
                )
            raise EncoderMismatchError(
                f"{self.store} was built with the encoder {row.locator!r} ({row.fingerprint[:8]}), not with "
                f"{encoder.name!r} ({encoder.fingerprint[:8]}); run `ragindex index PATH --encoder {encoder.name} "
                "--reembed` to switch to it."
            )


def _begun(stored: Any) -> Chunking | None:
    return Chunking(int(stored["chunk_tokens"]), int(stored["overlap"])) if isinstance(stored, dict) else None


def _parsed(given: str | filters.Filter | None) -> filters.Filter | None:
    return filters.parse(given) if isinstance(given, str) else given


def _split_line(expect: str) -> tuple[str, int | None]:
    path, separator, line = expect.rpartition(":")
    return (path, int(line)) if separator and path and line.isascii() and line.isdigit() else (expect, None)


def _encoder_json(row: EncoderRow) -> dict[str, Any]:
    return {"name": row.locator, "fingerprint": row.fingerprint, "dimensions": row.dimensions, "card": dict(row.card)}


def _bytes_below(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())

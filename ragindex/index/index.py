"""Index: a store, its encoder and its search engine behind one object.

Encoder, search, loaders and ingest are imported by the methods that need them: a lexical query loads no tokenizer, a
run that finds nothing new no model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ragindex import filters
from ragindex.config import Settings
from ragindex.errors import RagIndexError
from ragindex.index import describing
from ragindex.index.places import Places
from ragindex.index.serving import Serving
from ragindex.index.sharing import LoadedEncoders
from ragindex.index.storing import Storing
from ragindex.index.upkeep import Upkeep, rescue
from ragindex.index.writing import Writing
from ragindex.store.catalog import Catalog
from ragindex.types import Document, Failure, Hit, IndexReport, Mode, Verification, WhyNot

if TYPE_CHECKING:
    from ragindex.encoder import Encoder
    from ragindex.encoder.brought import BroughtEncoder
    from ragindex.index.promotion import Promotion
    from ragindex.index.records import Records
    from ragindex.ingest.progress import Progress
    from ragindex.search import Engine
    from ragindex.search.context import Context

__all__ = ["Index"]

Answer = TypeVar("Answer")

_LONGEST_SECTION = 200_000  # characters


class Index:
    """One collection of one store: add folders, search them, look after them.

    Document paths are relative to `base`, the folder that holds the store. Safe for reads from several threads; one
    process writes at a time. Use it as a context manager, or call `close`.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        collection: str,
        encoder: str | Encoder | BroughtEncoder | None,
        settings: Settings,
        loaded: LoadedEncoders | None = None,
    ) -> None:
        self._catalog = catalog
        self._collection_id = catalog.collection(collection)
        self._places = Places(catalog, self._collection_id, settings)
        storing = Storing(catalog, self._collection_id, settings.index)
        self._loaded = LoadedEncoders() if loaded is None else loaded
        self._serving = Serving(
            catalog,
            self._collection_id,
            wanted=encoder,
            default=settings.encoder,
            device=settings.device,
            search_on=settings.index.search_on,
            loaded=self._loaded,
        )
        self._writing = Writing(
            catalog,
            self._collection_id,
            places=self._places,
            storing=storing,
            serving=self._serving,
            settings=settings,
        )
        self._upkeep = Upkeep(catalog, self._collection_id, places=self._places, storing=storing, serving=self._serving)
        self.store = self._places.store
        self.base = self._places.base
        self.settings = settings
        self.chunking = self._places.chunking
        self.collection = collection

    @classmethod
    def open(
        cls,
        store: str | Path = ".ragindex",
        *,
        encoder: str | Encoder | BroughtEncoder | None = None,
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
            if encoder is not None:
                index._serving.check()
        except BaseException:
            catalog.close()
            raise
        return index

    def sibling(self, collection: str) -> Index:
        """Another collection of the same store, which is there already, opened as this one was; to be closed by itself.
        The encoder is loaded once for both. Raises UsageError when there is none of that name.
        """
        catalog = Catalog.open(self.store, create=False)
        try:
            return type(self)(
                catalog,
                collection=collection,
                encoder=self._serving.wanted,
                settings=self.settings,
                loaded=self._loaded,
            )
        except BaseException:
            catalog.close()
            raise

    def close(self) -> None:
        """Release files and threads; harmless when repeated."""
        self._serving.close()
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
        return self._serving.current().encoder

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
        scope = self._places.scope(paths, include, exclude)
        if dry_run:
            return self._writing.preview(scope)
        command = f"index {' '.join(map(str, paths))}"
        return self._writing.add(scope, command=command, allow_delete=allow_delete, progress=progress)

    def put(self, documents: Sequence[Document], *, progress: Progress | None = None) -> IndexReport:
        """Add or replace documents that are no files, by their `path`; a walk over folders leaves them alone.

        Nothing happens to one whose text, title and metadata have not changed.
        """
        return self._writing.put(documents, progress=progress)

    @property
    def records(self) -> Records:
        """Texts that other programs bring under ids of their own, stored uncut; and everything else as they see it."""
        from ragindex.index.records import Records

        return Records(self._catalog, self._collection_id, self._serving, self._answer)

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
        from ragindex.index.watching import watch

        def run() -> IndexReport:
            return self.add(*paths, include=include, exclude=exclude, progress=progress)

        roots = self._places.scope(paths, include, exclude).roots
        yield from watch(run, roots, store=self.store, stop=stop)

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
        task: str | None = None,
    ) -> list[Hit]:
        """The best hits for a query, best first: k of them whenever k distinct passages match the filter.

        instruction: put before the query, never before documents; None is the encoder's default. filter: an
        expression such as "path like 'ops/%' and size < 100000". diversity: 0 ranks by score alone, towards 1 hits
        differ more from each other. task: an instruction that the encoder has under this name, with its examples
        (`encoder info` lists them). Raises UsageError for bad arguments, EncoderMismatchError when the store was
        built with another encoder.
        """
        from ragindex.search import Request

        request = Request(query, k, mode, instruction, _parsed(filter), diversity, explain, task=task)
        return self._answer(lambda engine: engine.search(request))

    def prepare_queries(self, queries: Sequence[str], *, instruction: str | None = None) -> None:
        """Encode queries as one batch; a search for one of them that follows soon finds its vector ready.

        What it finds is the same without: a server calls this for queries that arrive together.
        """
        self._answer(lambda engine: engine.prepare(queries, instruction))

    def rank_documents(
        self, query: str, *, k: int = 100, mode: Mode = "hybrid", instruction: str | None = None
    ) -> list[str]:
        """Paths of the k best documents, best first; nothing is folded away. instruction: as in `search`."""
        from ragindex.search import Request

        request = Request(query, k, mode, instruction)
        return self._answer(lambda engine: engine.rank_documents(request))

    def context(
        self,
        hits: Sequence[Hit],
        *,
        tokens: int,
        tokenizer: str | Path | Callable[[str], int] | None = None,
        neighbours: int = 0,
        section: bool = False,
    ) -> Context:
        """A numbered, cited block of hits for a prompt, at most `tokens` tokens long.

        tokenizer: what counts them; None is the encoder's own, else a `tokenizer.json`, a directory that holds one, a
        function from text to a number of tokens, or "estimate". neighbours and section: with what remains of the
        budget, show hits with so many chunks before and after them, or with the whole section if that fits. Raises
        UsageError for a budget below 16 tokens and for a tokenizer that cannot be read. See
        `ragindex.search.context` for how the block is made.
        """
        from ragindex.search.budget import TokenCounter, given_counter
        from ragindex.search.context import build_context
        from ragindex.search.surroundings import Surroundings

        if tokenizer is None:
            counter = TokenCounter(self.encoder.tokenizer.count, "encoder")
        else:
            counter = given_counter(tokenizer)
        around = Surroundings(self._catalog, self._collection_id)
        return build_context(
            hits, tokens=tokens, counter=counter, around=around, neighbours=neighbours, section=section
        )

    def passage(self, place: int | str, *, neighbours: int = 0, section: bool = False) -> Hit:
        """A part of a document, as a hit of no query: a chunk by its id, or what a citation names ("docs/a.md",
        "docs/a.md:12-30", "docs/a.pdf, page 4", "docs/a.md#char=120,560"). neighbours and section widen it as
        `context` does. Raises UsageError when there is none.
        """
        from ragindex.search.surroundings import Surroundings

        around = Surroundings(self._catalog, self._collection_id)
        hit = around.chunk(place) if isinstance(place, int) else around.cited(place)
        whole = around.section(hit, most=_LONGEST_SECTION) if section else None
        return whole or (around.neighbours(hit, neighbours) if neighbours else hit)

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
        from ragindex.search import Request
        from ragindex.search.why_not import explain_absence

        request = Request(query, k, mode, instruction, _parsed(filter))
        expected = self._places.expectation(expect)
        return self._answer(
            lambda engine: explain_absence(engine, self._catalog, self._collection_id, request, expected)
        )

    def instruction(self, task: str | None = None) -> str:
        """The encoder's default query instruction, or that of a task; empty when it has none."""
        prompts = self.encoder.config.prompts
        return prompts.instruction if task is None else prompts.task(task).instruction

    def status(self) -> dict[str, Any]:
        """Counts, sizes on disk, encoder card, encoders that have served, index factory, generation, pending rows;
        JSON-ready. Loads no encoder.
        """
        return describing.status(self._catalog, self.collection, self._places, self._serving.indexes())

    def documents(
        self, *, prefix: str | None = None, contains: str = "", limit: int | None = None, offset: int = 0
    ) -> list[dict[str, Any]]:
        """Documents by path; JSON-ready: all of them, or `limit` after the first `offset`.

        prefix: those in a folder, or one document, by their paths in the index; contains: those with this in the path
        or the title, in any case.
        """
        rows = self._catalog.documents(self._collection_id, prefix, contains=contains, limit=limit, offset=offset)
        return describing.documents(rows)

    def document_count(self, *, prefix: str | None = None, contains: str = "") -> int:
        """How many documents there are; prefix and contains as in `documents`."""
        return self._catalog.document_count(self._collection_id, prefix, contains=contains)

    def text(self, path: str) -> str:
        """The whole text of a document, by its path in the index. Raises UsageError when there is none."""
        return self._catalog.document_text(self._collection_id, path)

    def iter_documents(self) -> Iterator[Document]:
        """Every document by path with its text, out of the catalogue; see `Catalog.iter_documents` for what of its
        structure comes back.
        """
        return self._catalog.iter_documents(self._collection_id)

    def failures(self) -> list[Failure]:
        """Files that could not be indexed, and why."""
        return [Failure(row.path, row.reason) for row in self._catalog.failures(self._collection_id)]

    def remove(self, *paths: str | Path) -> int:
        """Forget documents; a folder removes everything below it. Returns how many. Raises UsageError when nothing
        matches.
        """
        return self._writing.remove(paths)

    def verify(self) -> Verification:
        """Read everything and compare: catalogue with itself, snapshots and copies of encoders with the catalogue.
        Changes nothing.
        """
        return self._upkeep.verify()

    def repair(self) -> Verification:
        """Mend the catalogue from itself and its snapshots, then make these again from it, embedding nothing; what
        remains broken is in the result.
        """
        self._upkeep.repair()
        return self.verify()

    @staticmethod
    def rescue(store: str | Path) -> None:
        """Make a store that cannot be opened one that can, of what can still be read of its catalogue; `repair` it
        afterwards. Raises CorruptionError when nothing can be read. The damaged file is kept beside it.
        """
        rescue(Path(store).expanduser().absolute())

    def compact(self, *, forget_previous: bool = False, dense: str | None = None) -> dict[str, Any]:
        """Drop vectors that no chunk uses, and all but those of the encoder that serves and the one before it, with
        the copies of their encoders; give space back, make the snapshots again.

        forget_previous: drop the one before too; there is no rollback then. dense: keep the vectors of this collection
        in this scheme from now on, "auto" or one of `ragindex.store.schemes.SCHEMES`; nothing is embedded. Sizes are
        bytes of the store, "forgotten" is the name of the encoder that was given up, or None; "dense": as in `status`.
        Raises UsageError for a scheme that there is not, or that contradicts the settings.
        """
        return self._upkeep.compact(forget_previous=forget_previous, dense=dense)

    def promote(
        self, encoder: str | Path | Encoder, *, keep: bool = False, note: str = "", progress: Progress | None = None
    ) -> Promotion:
        """Embed every chunk of the store with another encoder while the old one serves, then switch to it.

        Documents can be added and removed meanwhile; readers follow the switch without being opened again. An
        interrupted promotion changes nothing, and the next one of the same encoder goes on where it stopped.

        keep: copy the encoder into the store, so that it is found wherever the store is moved to. note: why; `status`
        shows it. Raises UsageError for an encoder that no other process could load, EncoderError when a chunk is
        longer than it reads, StoreLockedError during another promotion, or when another process writes for an hour.
        """
        from ragindex.encoder import Encoder
        from ragindex.ingest.progress import Silent

        new = encoder if isinstance(encoder, Encoder) else Encoder.load(encoder, device=self.settings.device)
        return self._upkeep.promoter.promote(new, keep=keep, note=note, progress=progress or Silent())

    def rollback(self, *, note: str = "rollback", progress: Progress | None = None) -> Promotion:
        """Go back to the encoder that served before this one; a second rollback undoes the first.

        Its vectors are still there: only what was added since is embedded. Raises UsageError when there is none,
        EncoderError when its files are gone; otherwise as `promote`.
        """
        from ragindex.ingest.progress import Silent

        return self._upkeep.promoter.rollback(note=note, progress=progress or Silent())

    def reembed(self, encoder: str | Path | Encoder, *, progress: Progress | None = None) -> int:
        """`promote`, returning the number of texts that were embedded."""
        return self.promote(encoder, progress=progress).embedded

    def _answer(self, ask: Callable[[Engine], Answer]) -> Answer:
        """What the serving generation says. Where the store switched meanwhile the next one is asked: the vectors of
        the old one may be incomplete by now.
        """
        while True:
            generation = self._serving.current()
            try:
                answer = ask(generation.engine)
            except RagIndexError:
                if self._serving.current() is generation:
                    raise
                continue
            if self._serving.current() is generation:
                return answer


def _parsed(given: str | filters.Filter | None) -> filters.Filter | None:
    return filters.parse(given) if isinstance(given, str) else given

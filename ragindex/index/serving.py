"""Which encoder answers and over which vectors, followed when this process or another one switches it."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ragindex.config import Chunking
from ragindex.errors import EncoderError, EncoderMismatchError, UsageError
from ragindex.index import locating
from ragindex.index.sharing import LoadedEncoders
from ragindex.store.catalog import Catalog
from ragindex.store.rows import EncoderRow
from ragindex.store.snapshot import LiveIndexes

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from ragindex.encoder import Encoder
    from ragindex.encoder.brought import BroughtEncoder
    from ragindex.search import Engine

__all__ = ["Generation", "Serving", "check_room"]


class Generation:
    """An encoder, the indexes over its vectors and the engine that asks both. Thread-safe.

    A query ends with the generation that it began with, so that no query vector meets the document vectors of another
    encoder. `row` is None as long as the store has no encoder; it is loaded when `embedder` or `encoder` is first
    needed.
    """

    def __init__(
        self,
        catalog: Catalog,
        collection: int,
        *,
        row: EncoderRow | None,
        live: LiveIndexes,
        load: Callable[[EncoderRow | None], Encoder | BroughtEncoder],
        encoder: Encoder | BroughtEncoder | None = None,
    ) -> None:
        self.row = row
        self.live = live
        self.loaded = encoder
        self._catalog = catalog
        self._collection = collection
        self._load = load
        self._lock = threading.RLock()
        self._engine: Engine | None = None

    @property
    def embedder(self) -> Encoder | BroughtEncoder:
        """What makes the vectors. Raises EncoderError when it cannot be loaded, EncoderMismatchError when it is not the
        one of `row`.
        """
        with self._lock:
            if self.loaded is None:
                self.loaded = self._load(self.row)
            return self.loaded

    @property
    def encoder(self) -> Encoder:
        """As `embedder`; raises UsageError where that is one that a program brought."""
        embedder = self.embedder
        if _is_brought(embedder):
            raise UsageError(
                "The vectors of this store come from an embedding that a program brought, which cannot cut files, "
                "count tokens or be saved; it takes records alone."
            )
        return embedder

    @property
    def engine(self) -> Engine:
        """The engine; a lexical query loads no encoder through it."""
        from ragindex.search import Engine

        with self._lock:
            if self._engine is None:
                self._engine = Engine(self._catalog, self.live, self._collection, lambda: self.embedder)
            return self._engine


class Serving:
    """The generation that serves one collection, as of now. Thread-safe.

    wanted: the encoder that the user named, or None for the store's own choice; default: that of a new store; device:
    where one that is loaded here runs; search_on: see `ragindex.config.Storage`; loaded: the encoders of other
    collections of the store, opened alike.
    """

    def __init__(
        self,
        catalog: Catalog,
        collection: int,
        *,
        wanted: str | Encoder | BroughtEncoder | None,
        default: str,
        device: str | None = None,
        search_on: str = "cpu",
        loaded: LoadedEncoders | None = None,
    ) -> None:
        self._catalog = catalog
        self._collection = collection
        self._store = catalog.directory.resolve()
        self._wanted = wanted
        self._default, self._device, self._search_on = default, device, search_on
        self._loaded = LoadedEncoders() if loaded is None else loaded
        self._lock = threading.RLock()
        self._coming: Generation | None = None
        row = catalog.encoder()
        # One that a program brought is asked for vectors before it is known; that waits until one is needed.
        given = None if wanted is None or isinstance(wanted, str) or _is_brought(wanted) else wanted
        self._generation = self._made(row, self._indexes(row), given)

    @property
    def wanted(self) -> str | Encoder | BroughtEncoder | None:
        """The encoder that the user named, until the store was told of another one here."""
        return self._wanted

    def current(self) -> Generation:
        """The generation of the encoder that is active in the catalogue.

        Raises EncoderMismatchError when the user named an encoder that the store has left.
        """
        generation = self._generation
        if self._catalog.encoder() == generation.row:
            return generation
        with self._lock:
            # Asked again: a thread that was told of the old encoder must not undo what another one did meanwhile.
            row = self._catalog.encoder()
            if row != self._generation.row:
                self._generation = self._successor(row)
            return self._generation

    def indexes(self) -> LiveIndexes:
        """The indexes over the vectors of the active encoder, whichever one the user named: upkeep needs no encoder."""
        try:
            return self.current().live
        except EncoderMismatchError:
            row, live = self._catalog.encoder(), self._generation.live
            return live if row is None else live.under(row)

    def check(self) -> None:
        """Load the encoder that the user named; raise EncoderMismatchError when the store has another one. One that a
        program brought is checked when it is first asked.
        """
        generation = self.current()
        if generation.row is not None and not _is_brought(self._wanted):
            self._check(generation.embedder, generation.row)

    def for_writing(self, chunking: Chunking) -> Generation:
        """Under the lease: the generation that a writer adds to. The first writer's encoder becomes the store's."""
        generation = self.current()
        check_room(generation.encoder, chunking)
        return self.for_records()

    def for_records(self) -> Generation:
        """As `for_writing`, where nothing is cut."""
        generation = self.current()
        if generation.row is None:
            embedder = generation.embedder
            self.register(embedder)
            self._catalog.activate_encoder(embedder.fingerprint, note="first encoder of the store")
            generation = self.current()
        return generation

    def register(self, encoder: Encoder | BroughtEncoder) -> EncoderRow:
        """Make an encoder known to the store. One of which the store has a copy is found there, whatever its name."""
        locator = locating.locator_of(encoder, self._store)
        known = next((row for row in self._catalog.encoders() if row.fingerprint == encoder.fingerprint), None)
        if known is not None and known.locator != locator:
            place = locating.located(known.locator, self._store)
            if place != known.locator and locating.holds(Path(place), encoder.fingerprint):
                locator = known.locator
        return self._catalog.register_encoder(
            encoder.fingerprint, locator, encoder.dimensions, dict(encoder.config.card)
        )

    def upcoming(self, encoder: Encoder, row: EncoderRow) -> Generation:
        """The generation that will serve once `row` is activated; until then `current` does not give it."""
        self._loaded.add(encoder)
        return self._made(row, self._generation.live.under(row), encoder)

    @contextmanager
    def expecting(self, coming: Generation) -> Iterator[None]:
        """While it lasts: when this generation's encoder is activated, serve with what it has loaded and made ready."""
        with self._lock:
            self._coming = coming
            if self._generation.row == coming.row:  # it serves already, and from now on because it was asked for
                self._generation, self._wanted = coming, None
        try:
            yield
        finally:
            with self._lock:
                self._coming = None

    def close(self) -> None:
        """Let go of the indexes; harmless when repeated."""
        with self._lock:
            self._generation.live.close()

    def _made(self, row: EncoderRow | None, live: LiveIndexes, encoder: Encoder | BroughtEncoder | None) -> Generation:
        return Generation(self._catalog, self._collection, row=row, live=live, load=self._load, encoder=encoder)

    def _successor(self, row: EncoderRow | None) -> Generation:
        if self._coming is not None and self._coming.row == row:
            self._wanted = None
            return self._coming
        old = self._generation
        if row is None:  # the catalogue was replaced by an older one
            return self._made(None, self._indexes(None), old.loaded)
        encoder = old.loaded
        if encoder is not None and encoder.fingerprint != row.fingerprint:
            if self._wanted is not None:
                self._check(encoder, row)
            encoder = None
        return self._made(row, old.live.under(row), encoder)

    def _load(self, row: EncoderRow | None) -> Encoder | BroughtEncoder:
        from ragindex.encoder import Encoder

        wanted = self._wanted
        if _is_brought(wanted):
            known = {entry.fingerprint: entry.card for entry in self._catalog.encoders()}
            wanted.recognise(known, None if row is None else row.dimensions)
            if row is not None:
                self._check(wanted, row)
            return wanted
        assert wanted is None or isinstance(wanted, str), "an encoder that was given is not loaded"
        if row is None:
            return Encoder.load(wanted or self._default, device=self._device)
        name = wanted or locating.located(row.locator, self._store)
        dimensions = row.dimensions
        try:
            encoder = self._loaded.get(row.fingerprint, lambda: locating.load(name, dimensions, device=self._device))
        except EncoderError as error:
            if wanted is not None:
                raise
            raise EncoderError(f"The encoder of {self._store} cannot be loaded. {error}") from error
        self._check(encoder, row)
        return encoder

    def _indexes(self, row: EncoderRow | None) -> LiveIndexes:
        if row is None:
            return LiveIndexes(self._catalog, self._store, self._collection, None, None, search_on=self._search_on)
        return LiveIndexes(
            self._catalog, self._store, self._collection, row.id, row.dimensions, search_on=self._search_on
        )

    def _check(self, encoder: Encoder | BroughtEncoder, row: EncoderRow) -> None:
        if row.fingerprint == encoder.fingerprint:
            return
        name = locating.located(row.locator, self._store)
        if _is_brought(encoder) or locating.is_brought(name):
            raise EncoderMismatchError(
                f"The vectors of {self._store} were made by {locating.shown(name)!r} ({row.dimensions} values each), "
                f"not by {locating.shown(encoder.name)!r} as it is given now; open it with what made them, or begin "
                "another store."
            )
        if name == encoder.name:
            raise EncoderMismatchError(
                f"{self._store} was built with another version of the encoder {name!r}; "
                f"run `{self._reembedding(name)}` to bring it up to date."
            )
        raise EncoderMismatchError(
            f"{self._store} was built with the encoder {name!r} ({row.fingerprint[:8]}), not with "
            f"{encoder.name!r} ({encoder.fingerprint[:8]}); run `{self._reembedding(encoder.name)}` to switch to it."
        )

    def _reembedding(self, encoder: str) -> str:
        """The command that gives the store that encoder. Any of its folders will do: all of it is embedded anew."""
        roots = (self._store.parent / root for root in self._catalog.roots(self._collection))
        path = next((shlex.quote(str(root.resolve())) for root in roots if root.exists()), "PATH")
        return f"ragindex index {path} --encoder {shlex.quote(encoder)} --reembed"


def _is_brought(encoder: object) -> TypeIs[BroughtEncoder]:
    """Whether a program brought it. Imports the encoder's room only where there is an object to ask about."""
    if encoder is None or isinstance(encoder, str):
        return False
    from ragindex.encoder.brought import BroughtEncoder

    return isinstance(encoder, BroughtEncoder)


def check_room(encoder: Encoder, chunking: Chunking) -> None:
    """Raise UsageError when chunks may be longer than the encoder reads, or cannot be embedded in their context."""
    if chunking.tokens > encoder.max_tokens:
        raise UsageError(
            f"chunk_tokens is {chunking.tokens}, but this encoder reads at most {encoder.max_tokens} tokens."
        )
    if chunking.late:
        _ = encoder.spans  # which says why not

"""How records come into a store: embedded first, then written under the lease, a batch at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from ragindex.encoder.brought import BroughtEncoder, alike
from ragindex.errors import DuplicateError, EncoderMismatchError, UsageError
from ragindex.index import locating
from ragindex.ingest.records import Drafted, drafted, embed_whole
from ragindex.store.lease import WriterLease
from ragindex.store.rows import RECORD, Batch, FileState, Float16Array
from ragindex.types import Record

if TYPE_CHECKING:
    from ragindex.encoder import Encoder
    from ragindex.index.serving import Generation, Serving
    from ragindex.store.catalog import Catalog

__all__ = ["OnKnown", "RecordWriting"]

OnKnown = Literal["replace", "skip", "refuse"]
_BATCH = 512  # records that are embedded before anything is committed
_READY_BATCH = 4096  # where there is nothing to embed; a commit has costs of its own
_PATIENCE = 60.0  # seconds that a writer waits for another one


class RecordWriting:
    """The writing half of `Records`."""

    def __init__(self, catalog: Catalog, collection: int, serving: Serving) -> None:
        self._catalog = catalog
        self._collection = collection
        self._serving = serving

    def lease(self, command: str) -> WriterLease:
        """The lease of the store, not yet taken."""
        return WriterLease(self._catalog.directory, command=f"records: {command}", wait=_PATIENCE)

    def commit(self, batch: Batch) -> None:
        """Under the lease: apply a batch and let the indexes follow."""
        self._catalog.commit(self._collection, batch)
        self._serving.indexes().publish()

    def put(self, records: Sequence[Record], known: OnKnown) -> int:
        """See `Records.put`."""
        unique = _unique(records, known)
        if known == "refuse":
            self._chosen(unique, known)
        size = _READY_BATCH if all(record.vector is not None for record in unique) else _BATCH
        count = sum(self._put(unique[start : start + size], known) for start in range(0, len(unique), size))
        if len(unique) > _BATCH:  # a load in bulk ends with its snapshots on disk; a few records are soon replayed
            with self.lease("put"):
                self._serving.indexes().publish(force=True)
        return count

    def _put(self, records: Sequence[Record], known: OnKnown) -> int:
        while True:
            generation = self._serving.current()
            embedder = generation.embedder
            ready = isinstance(embedder, BroughtEncoder) and not embedder.embeds
            drafts = [drafted(record, ready=ready) for record in self._chosen(records, known)]
            if not drafts:
                return 0
            self._check_vectors(embedder, drafts)
            made = self._made(generation, embedder, drafts)
            # Embedding is over: whoever else waits for the lease waits for this commit alone.
            with self.lease("put"):
                serving = self._serving.for_records()
                assert serving.row is not None
                if serving.embedder.fingerprint != embedder.fingerprint:
                    continue  # the store changed its encoder meanwhile
                chosen = {record.id for record in self._chosen(records, known)}
                drafts = [draft for draft in drafts if draft.record.id in chosen]
                if self._catalog.missing_keys(serving.row.id, [draft.key for draft in drafts if draft.key not in made]):
                    continue  # vectors that nobody used were swept meanwhile
                self._write(drafts, made, embedder, serving.row.id)
                return len(drafts)

    def _write(
        self,
        drafts: Sequence[Drafted],
        made: Mapping[bytes, Float16Array],
        embedder: Encoder | BroughtEncoder,
        encoder_id: int,
    ) -> None:
        states = self._states(drafts)
        new = [draft for draft in drafts if draft.digest != getattr(states.get(draft.record.id), "sha256", "")]
        if new:
            self.commit(Batch(writes=[draft.write(made, encoder_id, _tokens(embedder, draft)) for draft in new]))

    def _chosen(self, records: Sequence[Record], known: OnKnown) -> list[Record]:
        """Those to write, as the store stands. Raises UsageError and DuplicateError as `Records.put` says."""
        states = self._catalog.states_of(self._collection, [record.id for record in records])
        for path, state in states.items():
            if state.loader != RECORD:
                raise UsageError(f"{path!r} is a document of this index that is no record; give the record another id.")
        if states and known == "refuse":
            raise DuplicateError(f"There is a record {min(states)!r} already; nothing was written.")
        return [record for record in records if known == "replace" or record.id not in states]

    def _states(self, drafts: Sequence[Drafted]) -> dict[str, FileState]:
        return self._catalog.states_of(self._collection, [draft.record.id for draft in drafts])

    def _made(
        self, generation: Generation, embedder: Encoder | BroughtEncoder, drafts: Sequence[Drafted]
    ) -> dict[bytes, Float16Array]:
        """The vectors of the batch by key: those it brought, and those that have to be made."""
        made = {draft.key: draft.vector for draft in drafts if draft.vector is not None}
        texts = {draft.key: draft.record.text for draft in drafts if draft.vector is None}
        missing: Collection[bytes] = texts
        if generation.row is not None:
            missing = self._catalog.missing_keys(generation.row.id, texts.keys())
        keys = [key for key in texts if key in missing]
        if isinstance(embedder, BroughtEncoder) and not embedder.embeds:
            made.update((key, np.zeros(embedder.dimensions, np.float16)) for key in keys)
        elif keys:
            vectors = embed_whole(embedder, [texts[key] for key in keys]).astype(np.float16)
            made.update(zip(keys, vectors, strict=True))
        return made

    def _check_vectors(self, embedder: Encoder | BroughtEncoder, drafts: Sequence[Drafted]) -> None:
        """Raise when vectors that were brought are not from this store's encoder, as far as that can be told: by their
        length, and where there is something to embed with, by a sample of them made again.
        """
        brought = [draft for draft in drafts if draft.vector is not None]
        if not brought:
            return
        if isinstance(embedder, BroughtEncoder) and not embedder.embeds:
            embedder.fit(len(brought[0].vector if brought[0].vector is not None else ()))
        name = locating.shown(embedder.name)
        for draft in brought:
            if draft.vector is not None and len(draft.vector) != embedder.dimensions:
                raise EncoderMismatchError(
                    f"The vector of record {draft.record.id!r} has {len(draft.vector)} values, but the store's, made "
                    f"by {name!r}, have {embedder.dimensions}; open the store with the embedding that made the vectors."
                )
        if not isinstance(embedder, BroughtEncoder) or embedder.embeds:
            self._check_sample(embedder, brought, name)

    def _check_sample(self, embedder: Encoder | BroughtEncoder, brought: Sequence[Drafted], name: str) -> None:
        texts = [_embedded(draft.record) for draft in brought]
        spoken = [place for place, text in enumerate(texts) if text.strip()]
        sample = sorted({spoken[0], spoken[len(spoken) // 2], spoken[-1]}) if spoken else []
        again = embed_whole(embedder, [texts[place] for place in sample])
        for place, vector in zip(sample, again, strict=True):
            own = brought[place].vector
            if own is None or not alike(own.astype(np.float32), vector):
                sample = []
        if not sample:
            raise EncoderMismatchError(
                f"The vectors that these records bring are not those that {name!r} makes of their texts, so they "
                "cannot be compared with the store's; open the store with the embedding that made them, or leave them "
                "away."
            )


def _unique(records: Sequence[Record], known: OnKnown) -> list[Record]:
    """One record for each id: the first that is skipped for, the last that replaces. Raises DuplicateError."""
    unique: dict[str, Record] = {}
    for record in records:
        if record.id in unique and known == "refuse":
            raise DuplicateError(f"Two of the records have the id {record.id!r}; nothing was written.")
        if record.id not in unique or known == "replace":
            unique[record.id] = record
    return list(unique.values())


def _embedded(record: Record) -> str:
    return record.text if record.embedded is None else record.embedded


def _tokens(embedder: Encoder | BroughtEncoder, draft: Drafted) -> int:
    if embedder.tokenizer is None or draft.vector is not None:
        return 0
    return embedder.tokenizer.count(draft.record.text)

"""Which chunks a filter lets through: all of them listed, those among a few, or about what share.

A list costs time for every chunk in it, so lists are kept until somebody commits. A filter that lets most chunks
through is better asked about the few that a search has found; see `ragindex.search.restricting`.
"""

# ruff: noqa: S608 - statements are put together from constants; whatever a user wrote is a parameter
from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import NamedTuple

from ragindex.filters import Filter
from ragindex.store.database import Database
from ragindex.store.filter_sql import Condition, condition, is_led, needs_chunks
from ragindex.store.rows import IdArray

__all__ = ["Allowing", "Guess", "Lists"]

_PROBES = 64
_GOLDEN = 0.6180339887498949  # its multiples spread evenly over a range, however many of them are taken
_KEPT_BYTES = 64 << 20
_ENTRY_BYTES = 1_000  # what a list takes beside its ids
_CHUNKS = "FROM chunks JOIN documents ON documents.id = chunks.document_id WHERE"


class Guess(NamedTuple):
    """The share of chunks that a filter lets through, and how many there are at most in all."""

    share: float
    total: int


class _Asked(NamedTuple):
    """What stands for a filter: its condition, for Python takes `draft = true` and `draft = 1` for equal values."""

    collection: int
    test: Condition


class Lists:
    """Lists of allowed ids, the latest used ones, as of one revision of the catalogue. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._revision: int | None = None
        self._lists: OrderedDict[_Asked, IdArray] = OrderedDict()
        self._bytes = 0

    def get(self, revision: int | None, asked: _Asked) -> IdArray | None:
        """The list, if it is known for this revision."""
        with self._lock:
            self._follow(revision)
            found = self._lists.get(asked)
            if found is not None:
                self._lists.move_to_end(asked)
            return found

    def put(self, revision: int | None, asked: _Asked, ids: IdArray) -> None:
        """Keep a list that was read at this revision or after it, and drop the oldest beyond 64 MiB."""
        ids.flags.writeable = False  # whoever asks next is given the same array
        with self._lock:
            if revision is None or not self._follow(revision):
                return
            self._drop(self._lists.pop(asked, None))
            self._lists[asked] = ids
            self._bytes += ids.nbytes + _ENTRY_BYTES
            while self._bytes > _KEPT_BYTES:
                self._drop(self._lists.popitem(last=False)[1])

    def _drop(self, ids: IdArray | None) -> None:
        self._bytes -= 0 if ids is None else ids.nbytes + _ENTRY_BYTES

    def _follow(self, revision: int | None) -> bool:
        """Forget what is of another revision. Whether this one is the newest: numbers grow."""
        newest = self._revision
        if revision is None or newest is None or revision > newest:
            self._lists.clear()
            self._bytes = 0
            self._revision = revision
        return revision == self._revision


class Allowing:
    """Queries of one transaction each."""

    _database: Database
    _lists: Lists

    def allowed(self, collection: int, filter: Filter | None) -> IdArray | None:  # noqa: A002
        """The ids of the chunks that a filter lets through, ascending (n,), not to be written to; None: no filter,
        everything.
        """
        if filter is None:
            return None
        asked = _Asked(collection, condition(filter, collection=collection))
        # The revision comes first: what is read after it is at least as new.
        revision = self._database.revision()
        ids = self._lists.get(revision, asked)
        if ids is None:
            ids = self._listed(asked, filter)
            self._lists.put(revision, asked, ids)
        return ids

    def known_allowed(self, collection: int, filter: Filter) -> IdArray | None:  # noqa: A002
        """What `allowed` would say, if that is known already."""
        asked = _Asked(collection, condition(filter, collection=collection))
        return self._lists.get(self._database.revision(), asked)

    def permitted(self, collection: int, filter: Filter, ids: IdArray) -> IdArray:  # noqa: A002
        """Those of the ids that a filter lets through, ascending."""
        import numpy as np

        test = condition(filter)
        query = (
            f"SELECT chunks.id {_CHUNKS} chunks.id IN (SELECT value FROM json_each(?)) "
            f"AND chunks.collection_id = ? AND {test.sql}"
        )
        with self._database.snapshot() as connection:
            rows = connection.execute(query, (json.dumps(ids.tolist()), collection, *test.parameters)).fetchall()
        return np.sort(np.fromiter((row[0] for row in rows), np.int64, len(rows)))

    def guessed(self, collection: int, filter: Filter) -> Guess | None:  # noqa: A002
        """How much a filter lets through, by the look of 64 chunks from all over; None where there are hardly more."""
        test = condition(filter)
        ends = "SELECT (SELECT min(id) {own}), (SELECT max(id) {own})".format(
            own="FROM chunks WHERE collection_id = :collection"
        )
        nearest = "SELECT id FROM chunks WHERE collection_id = ? AND id >= probes.value ORDER BY id LIMIT 1"
        query = (
            f"SELECT avg({test.sql}) FROM json_each(?) AS probes JOIN chunks ON chunks.id = ({nearest}) "
            "JOIN documents ON documents.id = chunks.document_id"
        )
        with self._database.snapshot() as connection:
            first, last = connection.execute(ends, {"collection": collection}).fetchone()
            if first is None or last - first < _PROBES:
                return None
            probes = [first + int(number * _GOLDEN % 1 * (last - first)) for number in range(_PROBES)]
            share = connection.execute(query, (*test.parameters, json.dumps(probes), collection)).fetchone()[0]
        return Guess(float(share), last - first + 1)

    def _listed(self, asked: _Asked, filter: Filter) -> IdArray:  # noqa: A002
        import numpy as np

        collection, test = asked
        # A plus keeps SQLite from walking through the whole collection where the filter names a few documents.
        plus = "+" if is_led(filter) else ""
        # One string instead of a row per id: half of the time where a filter lets much through.
        if needs_chunks(filter):
            # By way of the documents: what is asked of them is asked once, and a path is looked up.
            query = (
                "SELECT group_concat(chunks.id) FROM documents CROSS JOIN chunks ON chunks.document_id = documents.id "
                f"WHERE {plus}documents.collection_id = ? AND {test.sql}"
            )
        else:
            # Nothing but its document is asked of a chunk, so that the index on (document, ordinal) answers.
            query = (
                "SELECT group_concat(chunks.id) FROM chunks WHERE document_id IN "
                f"(SELECT documents.id FROM documents WHERE {plus}documents.collection_id = ? AND {test.sql})"
            )
        with self._database.snapshot() as connection:
            ids = connection.execute(query, (collection, *test.parameters)).fetchone()[0]
        return np.sort(np.fromstring(ids or "", np.int64, sep=","))

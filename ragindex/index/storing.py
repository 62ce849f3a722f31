"""How the vectors of a collection are to be kept: what the user said, remembered by the store."""

from __future__ import annotations

from ragindex.config import Storage
from ragindex.errors import UsageError
from ragindex.store.catalog import Catalog
from ragindex.store.schemes import Plan, choose, read_plan, write_plan

__all__ = ["Storing"]


class Storing:
    """The plan of one collection; see `ragindex.store.schemes`."""

    def __init__(self, catalog: Catalog, collection: int, settings: Storage) -> None:
        self._catalog = catalog
        self._collection = collection
        self._settings = settings

    def plan(self, asked: str | None = None) -> Plan:
        """What holds from now on: what is asked for, else what the settings say, else what the store remembers.

        Raises UsageError for a name that is none, and where the settings say something else, as later runs would
        follow them.
        """
        said = self._settings.dense
        if asked is not None and said is not None and asked != said:
            raise UsageError(
                f"The settings (ragindex.toml or RAGINDEX_INDEX_DENSE) keep the dense index {said!r}, and every later "
                "run would follow them; change them and run `ragindex compact`."
            )
        known = read_plan(self._catalog, self._collection)
        memory = self._settings.memory_mb
        plan = Plan(asked or said or known.index, known.memory_mb if memory is None else memory)
        choose(plan, 0, 0)  # which refuses a name that is none
        return plan

    def remember(self, asked: str | None = None) -> None:
        """Under the lease: keep the plan in the store. Raises UsageError as `plan` does."""
        write_plan(self._catalog, self._collection, self.plan(asked))

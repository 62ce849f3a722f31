"""The ways in which vectors are kept for search: what each costs, and which one fits a size and a memory limit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ragindex.config import DENSE_INDEXES
from ragindex.errors import UsageError

if TYPE_CHECKING:
    from ragindex.store.registry import Registry

__all__ = ["AUTO", "SCHEMES", "Choice", "Plan", "Scheme", "choose", "read_plan", "write_plan"]

AUTO = "auto"
_DEFAULT_MEMORY_MB = 2048
_FLAT_UP_TO = 20_000  # vectors; an exact scan of these takes about a millisecond
_ID = 8  # bytes of an id; most schemes hold ids once to translate and once more in order
_LIST = 2  # bytes of the number of the list that a vector lies in
_FLOAT = 4
_MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Scheme:
    """A way to keep n vectors of d values.

    kind: which module builds and searches it; code: the FAISS code of a stored vector, where FAISS holds it;
    per_value: bytes of memory for one of the d values; per_vector: further bytes, ids among them; turned: axes of the
    matrix that turns vectors first, as a share of d; rescored: what is kept only finds candidates, and their vectors
    are read from disk to score them. Every score that leaves an index is the cosine with the half floats of the
    catalogue.
    """

    name: str
    kind: Literal["flat", "lists", "graph", "codes"]
    title: str
    per_value: float
    per_vector: int
    code: str = ""
    turned: float = 0
    rescored: bool = False

    def memory(self, count: int, dimensions: int) -> int:
        """Bytes of memory that a search needs."""
        centres = 4 * math.isqrt(count) if self.kind == "lists" else 0
        matrices = _FLOAT * dimensions * (centres + math.ceil(self.turned * dimensions))
        return count * (math.ceil(self.per_value * dimensions) + self.per_vector) + matrices


_ALL = (
    Scheme("flat", "flat", "vectors as they are", 4, 2 * _ID),
    Scheme("ivf-fp16", "lists", "half floats in inverted lists", 2, 2 * _ID + _LIST, code="SQfp16"),
    # 32 neighbours twice on the ground floor, one more level for every 32nd vector, offsets.
    Scheme("hnsw", "graph", "half floats in a graph", 2, 2 * _ID + 4 * 66 + 12),
    Scheme("ivf-sq8", "lists", "8-bit codes in inverted lists", 1, 2 * _ID + _LIST, code="SQ8", rescored=True),
    Scheme("pca-float8", "codes", "8-bit floats of the stronger half of the axes", 0.5, _ID, turned=0.5, rescored=True),
    Scheme(
        "rabitq", "lists", "2-bit codes in inverted lists", 0.25, 2 * _ID + _LIST + 21, code="RaBitQ2", rescored=True
    ),
    Scheme("binary", "codes", "one bit a value", 0.125, _ID, turned=1, rescored=True),
)
SCHEMES = {scheme.name: scheme for scheme in _ALL}

# What `auto` tries, the most exact first. The graph is left out because it is slow to build and cannot forget, and up
# to the 28,000 vectors that were measured lists are faster; pca-float8 because it reads every code for every query.
_LADDER = ("ivf-fp16", "ivf-sq8", "rabitq", "binary")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wanted of a collection's dense index: a scheme's name or "auto", and for "auto" a limit in megabytes
    (0: none).
    """

    index: str = AUTO
    memory_mb: int = _DEFAULT_MEMORY_MB


@dataclass(frozen=True, slots=True)
class Choice:
    """A scheme and one sentence that says why it was chosen."""

    scheme: Scheme
    reason: str


def choose(plan: Plan, count: int, dimensions: int) -> Choice:
    """The scheme for `count` vectors of `dimensions` values. Raises UsageError for a name that is none."""
    if plan.index not in DENSE_INDEXES:
        raise UsageError(f"There is no dense index {plan.index!r}; choose one of {', '.join(DENSE_INDEXES)}.")
    size = f"{count:,} vectors of {dimensions} values"
    if plan.index != AUTO:
        scheme = SCHEMES[plan.index]
        return Choice(
            scheme, f"{scheme.name} was asked for: {scheme.title}, {_shown(scheme, count, dimensions)} for {size}."
        )
    limit = plan.memory_mb * _MEGABYTE or math.inf
    flat = SCHEMES["flat"]
    if count <= _FLAT_UP_TO and flat.memory(count, dimensions) <= limit:
        return Choice(
            flat,
            f"{size} take {_shown(flat, count, dimensions)} as they are; up to {_FLAT_UP_TO:,} are scanned exactly.",
        )
    within = "no limit is set" if limit == math.inf else f"the limit is {plan.memory_mb:,} MB"
    for name in _LADDER:
        scheme = SCHEMES[name]
        if scheme.memory(count, dimensions) <= limit:
            told = f"{scheme.title} take" if scheme.title[-1] == "s" else f"{scheme.title} takes"
            return Choice(scheme, f"Of {size}, {told} {_shown(scheme, count, dimensions)}; {within}.")
    return Choice(scheme, f"Even {scheme.title} takes {_shown(scheme, count, dimensions)} for {size}; {within}.")


def read_plan(catalog: Registry, collection: int) -> Plan:
    """What the store remembers for a collection; a value that this program does not know counts as none."""
    stored = catalog.setting(_key(collection))
    if not isinstance(stored, dict):
        return Plan()
    index, memory = stored.get("index"), stored.get("memory_mb")
    return Plan(
        index if index in DENSE_INDEXES else AUTO,
        memory if isinstance(memory, int) and memory >= 0 else _DEFAULT_MEMORY_MB,
    )


def write_plan(catalog: Registry, collection: int, plan: Plan) -> None:
    """Under the lease: let the store remember a plan; indexes that are made from now on follow it."""
    if plan != read_plan(catalog, collection):
        catalog.set_setting(_key(collection), {"index": plan.index, "memory_mb": plan.memory_mb})


def _key(collection: int) -> str:
    return f"dense/{collection}"


def _shown(scheme: Scheme, count: int, dimensions: int) -> str:
    size = scheme.memory(count, dimensions)
    return f"{size / _MEGABYTE:,.1f} MB" if size >= _MEGABYTE else f"{size / 1000:,.0f} kB"

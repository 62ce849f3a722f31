"""Cached gradients: a loss over more texts than fit into memory with their activations, for the price of a second pass.

Gao et al., arXiv 2101.06983. All chunks are embedded without a graph; the loss is taken of the vectors, and its
gradient with respect to them is kept; then each chunk is embedded again, with a graph, and its part of that gradient
is sent back through it. So one chunk's activations are alive at a time, and the gradient is that of the whole batch.

It is so only if the second pass repeats the first: dropout must drop the same. The state of torch's generators is
therefore kept before each chunk of the first pass and brought back for the second. A forward function may depend on
its chunk, on parameters and on torch's random numbers, on nothing else that changes.

Processes that hold one model together in shards must embed equally many chunks of each role, and either all with the
cache or all without. They agree on it before a step: where one needs the cache, or the numbers differ, all take it, and
one with fewer chunks embeds its last one again, which changes nothing. Their losses read the same roles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ragindex.errors import TrainingError
from ragindex.train.losses import Loss
from ragindex.train.losses.cosines import widened
from ragindex.train.processes import most
from ragindex.train.sharding import is_sharded

__all__ = ["RandomState", "cached_backward", "plain_backward"]

Chunk = TypeVar("Chunk")


@dataclass(frozen=True, slots=True)
class RandomState:
    """State of torch's generators: of the CPU and of every accelerator that is in use."""

    cpu: Tensor
    cuda: tuple[Tensor, ...] = ()
    mps: Tensor | None = None

    @classmethod
    def now(cls) -> RandomState:
        """The present state."""
        return cls(
            cpu=torch.get_rng_state(),
            cuda=tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else (),
            mps=torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
        )

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Random numbers as they came after this state; those that come after the block are as if it had not been."""
        outside = RandomState.now()
        self._restore()
        try:
            yield
        finally:
            outside._restore()

    def _restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(list(self.cuda))
        if self.mps is not None:
            torch.mps.set_rng_state(self.mps)


@dataclass(frozen=True, slots=True)
class _Embedded(Generic[Chunk]):
    """A chunk of the first pass: what it takes to repeat it, and which rows of its role are its vectors; None for one
    that is embedded for the sake of other processes.
    """

    role: str
    chunk: Chunk
    state: RandomState
    rows: slice | None


@dataclass(frozen=True, slots=True)
class _Agreement:
    """What all processes do in a step: whether with the cache, and how many chunks of each role."""

    cached: bool
    counts: Mapping[str, int]


def cached_backward(
    forward: Callable[[Chunk], Tensor],
    chunks: Mapping[str, Sequence[Chunk]],
    loss: Loss,
    *,
    backward: Callable[[Tensor], object] = Tensor.backward,
) -> Tensor:
    """Add the gradient of `loss` to the parameters; the loss, detached.

    forward: embeds one chunk, (rows, d). chunks: those of each role, "queries", "positives" and so on. loss: takes the
    vectors of each role, (rows of all its chunks, d) in float32, in the order of the chunks; parameters of its own,
    such as a temperature, get their gradient as well, and a role that it does not read costs no second pass. backward:
    is called with the loss, for instance accelerate's, which scales it; the scale reaches every parameter.

    A chunk is embedded in the autocast state of the call, both times. Raises TrainingError for a role without chunks.
    """
    return _cached(forward, chunks, loss, backward, _agreed(forward, chunks, cached=True).counts)


def _cached(
    forward: Callable[[Chunk], Tensor],
    chunks: Mapping[str, Sequence[Chunk]],
    loss: Loss,
    backward: Callable[[Tensor], object],
    counts: Mapping[str, int],
) -> Tensor:
    embedded: list[_Embedded[Chunk]] = []
    leaves: dict[str, Tensor] = {}
    with torch.no_grad():
        for role, parts in chunks.items():
            vectors: list[Tensor] = []
            count = 0
            for part in parts:
                state = RandomState.now()
                vectors.append(forward(part))
                embedded.append(_Embedded(role, part, state, slice(count, count + len(vectors[-1]))))
                count += len(vectors[-1])
            for _ in range(counts[role] - len(parts)):
                again = _Embedded(role, parts[-1], RandomState.now(), None)
                with again.state.replayed():
                    forward(again.chunk)
                embedded.append(again)
            # Also under autocast: in half precision small gradients of single vectors would vanish.
            leaves[role] = widened(torch.cat(vectors))
    # In some versions of torch autocast goes on using weights that it cast without a graph, so that the second pass
    # would give them no gradient (pytorch issue 158232).
    torch.clear_autocast_cache()

    for leaf in leaves.values():
        leaf.requires_grad_()
    total = loss(leaves)
    backward(total)

    for item in embedded:
        gradient = leaves[item.role].grad
        if gradient is not None:
            _backward_through(forward, item, None if item.rows is None else gradient[item.rows])
    return total.detach()


def plain_backward(
    forward: Callable[[Chunk], Tensor],
    chunks: Mapping[str, Sequence[Chunk]],
    loss: Loss,
    *,
    backward: Callable[[Tensor], object] = Tensor.backward,
) -> Tensor:
    """The same as `cached_backward` in one pass: faster, and all activations are alive at once."""
    agreement = _agreed(forward, chunks, cached=False)
    if agreement.cached:
        return _cached(forward, chunks, loss, backward, agreement.counts)
    vectors = {}
    for role, parts in chunks.items():
        vectors[role] = widened(torch.cat([forward(part) for part in parts]))
    total = loss(vectors)
    backward(total)
    return total.detach()


def _agreed(forward: object, chunks: Mapping[str, Sequence[object]], *, cached: bool) -> _Agreement:
    """cached: whether this process needs the cache. Raises TrainingError for a role without chunks."""
    own = [len(parts) for parts in chunks.values()]
    if not all(own):
        role = next(role for role, parts in chunks.items() if not parts)
        raise TrainingError(f"There is nothing to embed for {role!r}; leave the role out.")
    if not is_sharded(forward):
        return _Agreement(cached, dict(zip(chunks, own, strict=True)))
    needed, *found = most([cached, *own, *(-count for count in own)])
    largest, smallest = found[: len(own)], [-count for count in found[len(own) :]]
    return _Agreement(bool(needed) or largest != smallest, dict(zip(chunks, largest, strict=True)))


def _backward_through(forward: Callable[[Chunk], Tensor], item: _Embedded[Chunk], gradient: Tensor | None) -> None:
    """In a function of its own, so that nothing of this chunk's graph outlives it. gradient: None for zero."""
    with item.state.replayed():
        vectors = forward(item.chunk)
    if vectors.requires_grad:
        vectors.backward(torch.zeros_like(vectors) if gradient is None else gradient.to(vectors.dtype))

"""Registry of the functions that do the work.

A handler is a plain function of ``(payload, context)``. It is registered by kind::

    @handler("invoice.render", timeout="2m")
    def render_invoice(payload, context):
        ...

Two functions for one kind are a programming error and fail at import.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from quern.config import parse_duration
from quern.errors import HandlerMissing

DEFAULT_TIMEOUT = timedelta(minutes=10)


@dataclass
class JobContext:
    """What a handler may know about its run.

    ``idempotency_token`` is the same for all attempts of one job; give it to services that
    accept such a header. ``cancelled()`` turns true when the lease is gone or the node
    shuts down: long loops should look at it and return early. ``checkpoint`` stores a small
    value (8 KiB at most) which the next attempt finds in ``last_checkpoint``.
    """

    job_id: str
    attempt: int
    idempotency_token: str
    cancelled: Callable[[], bool]
    checkpoint: Callable[[dict[str, object]], None]
    last_checkpoint: dict[str, object] | None = None


@dataclass(frozen=True)
class Registered:
    function: Callable[[dict[str, object], JobContext], None]
    timeout: timedelta


_REGISTRY: dict[str, Registered] = {}


def handler(kind: str, *, timeout: str | None = None):
    """Register the decorated function for ``kind``; ten minutes are allowed by default."""

    def register(function):
        if kind in _REGISTRY:
            raise ValueError(f"{kind} is handled by {_REGISTRY[kind].function.__qualname__} already")
        _REGISTRY[kind] = Registered(function, parse_duration(timeout) if timeout else DEFAULT_TIMEOUT)
        return function

    return register


def import_handler_modules(modules: Sequence[str]) -> None:
    """Import the modules listed under ``[handlers] modules`` so that decorators run."""
    for name in modules:
        importlib.import_module(name)


def find_handler(kind: str) -> Registered:
    try:
        return _REGISTRY[kind]
    except KeyError as exc:
        raise HandlerMissing(f"no handler for {kind!r} on this node") from exc

"""Decide whether a failed job runs again and when.

Delays follow "decorrelated jitter": each wait is drawn between the base and three times
the previous wait, then capped. Plain exponential backoff made every failed job of a
batch return at the same second; full jitter made some of them return almost at once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from quern.errors import HandlerMissing, HandlerTimeout, PayloadNotObject
from quern.models import Job


class Verdict(StrEnum):
    """What to do with a failure."""

    RETRY = "retry"
    RETRY_LATER = "retry_later"
    GIVE_UP = "give_up"


class RetryableError(Exception):
    """Raised by a handler to say "not now". ``after`` overrides the computed delay."""

    def __init__(self, message: str, *, after: timedelta | None = None) -> None:
        super().__init__(message)
        self.after = after


class PermanentError(Exception):
    """Raised by a handler to say "never": the job goes straight to the dead letters."""


@dataclass(frozen=True)
class RetryPolicy:
    """Per-queue knobs. Defaults suit calls to another HTTP service."""

    base: timedelta = timedelta(seconds=2)
    cap: timedelta = timedelta(minutes=15)
    max_attempts: int = 8

    def next_delay(self, previous: timedelta | None, rng: random.Random) -> timedelta:
        """Draw the next wait; ``previous`` is None before the first retry."""
        low = self.base.total_seconds()
        high = max(low, (previous or self.base).total_seconds() * 3)
        return min(self.cap, timedelta(seconds=rng.uniform(low, high)))


def classify_failure(error: BaseException) -> Verdict:
    """Map an exception to a verdict.

    Unknown exceptions are retried: a bug in a handler is usually fixed by the next
    deployment, and eight attempts span long enough to survive one. A missing handler is
    postponed by a fixed five minutes and does not use up an attempt, because during a
    rolling deployment old workers see job kinds they do not know yet.
    """
    if isinstance(error, PermanentError | PayloadNotObject):
        return Verdict.GIVE_UP
    if isinstance(error, HandlerMissing):
        return Verdict.RETRY_LATER
    if isinstance(error, HandlerTimeout | RetryableError):
        return Verdict.RETRY
    return Verdict.RETRY


def should_retry(job: Job, error: BaseException) -> bool:
    """Whether another attempt is allowed at all."""
    verdict = classify_failure(error)
    if verdict is Verdict.RETRY_LATER:
        return True
    return verdict is Verdict.RETRY and job.attempts + 1 < job.max_attempts

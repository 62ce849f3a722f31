"""The values that travel between storage, dispatcher and API."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from datetime import datetime, timedelta


class JobState(enum.StrEnum):
    """Life of a job.

    ``waiting`` -> ``leased`` -> ``done`` is the happy path. A failure goes back to
    ``waiting`` with a later ``run_at`` or, out of attempts, on to ``dead``.
    ``quarantined`` is for jobs that take their worker down with them.
    """

    WAITING = "waiting"
    LEASED = "leased"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"
    QUARANTINED = "quarantined"

    @property
    def is_final(self) -> bool:
        """Whether no worker will touch the job again unless a person intervenes."""
        return self not in (JobState.WAITING, JobState.LEASED)


@dataclass(frozen=True)
class Job:
    """One unit of work as a row of the ``job`` table.

    ``priority`` runs from 0 (most urgent) to 9. ``crashes`` counts leases that ended
    without any report, which is not the same as ``attempts``.
    """

    id: str
    queue: str
    kind: str
    payload: dict[str, object]
    priority: int = 5
    state: JobState = JobState.WAITING
    attempts: int = 0
    crashes: int = 0
    max_attempts: int = 8
    run_at: datetime | None = None
    created_at: datetime | None = None
    dedupe_key: str | None = None
    last_error: str | None = None

    def effective_priority(self, now: datetime) -> int:
        """Priority after ageing: one step better for every ten minutes of waiting.

        Ageing stops at 1. Level 0 is kept for jobs a caller explicitly marked as
        urgent, so that a long backlog cannot push itself in front of an incident fix.
        """
        if self.priority == 0 or self.created_at is None:
            return self.priority
        steps = (now - self.created_at) // timedelta(minutes=10)
        return max(1, self.priority - steps)

    def failed(self, reason: str, *, run_at: datetime) -> Job:
        """Return the job as it should be stored after one failed attempt."""
        return replace(self, state=JobState.WAITING, attempts=self.attempts + 1, run_at=run_at,
                       last_error=reason[:2000])


@dataclass(frozen=True)
class Lease:
    """Proof that a worker owns a job until ``expires_at``. ``fence`` only ever grows."""

    job_id: str
    worker_id: str
    fence: int
    expires_at: datetime

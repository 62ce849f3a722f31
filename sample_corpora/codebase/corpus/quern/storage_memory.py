"""A job store without a database, for unit tests of handlers.

It keeps the promises of ``JobStore`` that a handler can observe: order by priority, leases
that expire, dedupe keys, fencing. It does not persist, does not notify, and holds a
single global lock, so it says nothing about throughput. Never wire it into a service:
``quernctl serve`` refuses a ``memory:`` address.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from quern.errors import DuplicateJob, LeaseLost
from quern.models import Job, JobState, Lease


class InMemoryJobStore:
    """Drop-in replacement; pass ``clock`` to move time by hand in a test."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._fences: dict[str, int] = {}

    def submit(self, job: Job) -> str:
        with self._lock:
            for other in self._jobs.values():
                if job.dedupe_key and other.dedupe_key == job.dedupe_key and other.queue == job.queue:
                    raise DuplicateJob(other.id)
            now = self._clock()
            self._jobs[job.id] = replace(job, created_at=now, run_at=job.run_at or now)
        return job.id

    def claim_batch(self, queues: Sequence[str], *, worker_id: str, limit: int, ttl: timedelta) -> list[Job]:
        now = self._clock()
        with self._lock:
            due = [j for j in self._jobs.values()
                   if j.queue in queues and j.state is JobState.WAITING and j.run_at <= now]
            due.sort(key=lambda j: (j.effective_priority(now), j.run_at))
            taken = [replace(j, state=JobState.LEASED) for j in due[:limit]]
            for job in taken:
                self._jobs[job.id] = job
                self._fences[job.id] = self._fences.get(job.id, 0) + 1
        return taken

    def finish(self, lease: Lease, job: Job) -> None:
        with self._lock:
            if self._fences.get(lease.job_id) != lease.fence:
                raise LeaseLost(lease.job_id)
            self._jobs[job.id] = job

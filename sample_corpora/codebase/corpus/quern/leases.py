"""Keep leases alive while handlers run, and take them back from workers that vanished.

A lease is renewed at a third of its time to live, so two renewals in a row may fail
before anybody else can claim the job. Renewal compares the fencing number; a worker that
slept through its lease (a paused virtual machine, a long garbage collection) learns about
it here and must abandon the job without writing anything.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

from quern.config import LeaseSettings
from quern.errors import LeaseLost
from quern.models import JobState, Lease

log = logging.getLogger(__name__)

CRASHES_BEFORE_QUARANTINE = 3


class LeaseKeeper:
    """One background thread per process renews all leases in a single statement."""

    def __init__(self, store, settings: LeaseSettings, on_lost: Callable[[Lease], None]) -> None:
        self._store = store
        self._interval = settings.ttl / 3
        self._ttl = settings.ttl
        self._on_lost = on_lost
        self._held: dict[str, Lease] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def hold(self, lease: Lease) -> None:
        with self._lock:
            self._held[lease.job_id] = lease

    def release(self, job_id: str) -> None:
        with self._lock:
            self._held.pop(job_id, None)

    def run(self) -> None:
        """Body of the heartbeat thread; returns when ``stop`` is called."""
        while not self._stop.wait(self._interval.total_seconds()):
            self.renew_once()

    def renew_once(self) -> None:
        with self._lock:
            held = list(self._held.values())
        renewed = self._store.renew(held, ttl=self._ttl)
        for lease in held:
            if lease.job_id not in renewed:
                log.warning("%s lease lost job=%s fence=%d", LeaseLost.code, lease.job_id, lease.fence)
                self.release(lease.job_id)
                self._on_lost(lease)

    def stop(self) -> None:
        self._stop.set()


def reap_expired(store, *, grace: timedelta) -> int:
    """Return jobs of vanished workers to the queue; the scheduler calls this every 15 seconds.

    ``grace`` absorbs the difference between the clocks of the database and of the caller.
    Each reaped job gets one more ``crashes``. On the third in a row the job is presumed to
    kill its worker (out-of-memory, a segfault in a native library) and is moved to
    ``quarantined``. A run that ends with any report, even a failed one, resets the count.
    """
    reaped = 0
    for job in store.expired_leases(grace=grace):
        crashes = job.crashes + 1
        state = JobState.QUARANTINED if crashes >= CRASHES_BEFORE_QUARANTINE else JobState.WAITING
        store.reclaim(job.id, state=state, crashes=crashes)
        reaped += 1
    return reaped

"""The loop of a worker node: claim, run, report, and stop politely.

Handlers run in threads. A handler that overruns its timeout cannot be killed from the
outside; it is told through its context, its result is ignored and the slot counts as
lost until the thread returns. A node which has lost half of its slots that way exits
with status 75 and leaves the restart to the service manager.
"""

from __future__ import annotations

import logging
import random
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from quern.config import Settings
from quern.errors import LeaseLost
from quern.handlers import find_handler
from quern.models import Job, JobState
from quern.retry import RetryPolicy, Verdict, classify_failure, should_retry

log = logging.getLogger(__name__)

EXIT_RESTART_ME = 75
POSTPONED = timedelta(minutes=5)


class Dispatcher:
    """``run`` blocks until a SIGTERM or SIGINT has been served."""

    def __init__(self, store, settings: Settings, queues: Sequence[str], *, worker_id: str, buckets: dict) -> None:
        self._store, self._settings, self._queues = store, settings, queues
        self._worker_id, self._buckets = worker_id, buckets
        self._draining = threading.Event()
        self._no_claims = threading.Event()
        self._running: dict[str, tuple[Future, float]] = {}
        self._pool = ThreadPoolExecutor(settings.dispatch.concurrency, thread_name_prefix="job")
        self._rng = random.Random()

    def install_signals(self) -> None:
        """SIGTERM and SIGINT drain, SIGUSR1 only stops claiming, SIGUSR2 logs what runs and since when."""
        signal.signal(signal.SIGTERM, lambda *_: self._draining.set())
        signal.signal(signal.SIGINT, lambda *_: self._draining.set())
        signal.signal(signal.SIGUSR1, lambda *_: self._no_claims.set())
        signal.signal(signal.SIGUSR2, lambda *_: self.dump_running())

    def dump_running(self) -> None:
        now = time.monotonic()
        for job_id, (_, started) in sorted(self._running.items(), key=lambda item: item[1][1]):
            log.warning("running job=%s for %.1fs", job_id, now - started)

    def run(self) -> int:
        while not self._draining.is_set():
            free = self._settings.dispatch.concurrency - len(self._running)
            if self._lost_slots() * 2 >= self._settings.dispatch.concurrency:
                log.error("half of the slots are stuck in handlers that ignore cancellation")
                return EXIT_RESTART_ME
            if not free or self._no_claims.is_set() or not self._claim(free):
                # NOTIFY wakes us earlier; the sleep only bounds the wait if a notice was lost.
                self._store.wait_for_submit(self._settings.dispatch.idle_sleep)
        return self._drain()

    def _claim(self, free: int) -> int:
        taken = 0
        for queue in self._queues:
            limit = min(free - taken, self._settings.dispatch.batch)
            if bucket := self._buckets.get(queue):
                limit = bucket.acquire_pack(limit)
            if limit <= 0:
                continue
            jobs = self._store.claim_batch([queue], worker_id=self._worker_id, limit=limit,
                                           ttl=self._settings.leases.ttl)
            if bucket:
                bucket.give_back(limit - len(jobs))
            for job in jobs:
                self._running[job.id] = (self._pool.submit(self._run_one, job), time.monotonic())
            taken += len(jobs)
        return taken

    def _run_one(self, job: Job) -> None:
        lease = self._store.lease_of(job.id)
        try:
            registered = find_handler(job.kind)
            registered.function(job.payload, self._store.context(job, lease))
            outcome = replace(job, state=JobState.DONE, attempts=job.attempts + 1)
        except Exception as error:
            outcome = self._after_failure(job, error)
        finally:
            self._running.pop(job.id, None)
        try:
            self._store.finish(lease, outcome)
        except LeaseLost:
            log.warning("%s result of %s discarded", LeaseLost.code, job.id)

    def _after_failure(self, job: Job, error: Exception) -> Job:
        reason = f"{type(error).__name__}: {error}"
        if not should_retry(job, error):
            return replace(job, state=JobState.DEAD, attempts=job.attempts + 1, last_error=reason[:2000])
        if classify_failure(error) is Verdict.RETRY_LATER:
            return replace(job, state=JobState.WAITING, last_error=reason, run_at=datetime.now(UTC) + POSTPONED)
        policy: RetryPolicy = self._store.policy(job.queue)
        delay = getattr(error, "after", None) or policy.next_delay(self._store.last_delay(job.id), self._rng)
        return job.failed(reason, run_at=datetime.now(UTC) + delay)

    def _lost_slots(self) -> int:
        now = time.monotonic()
        return sum(now - started > 2 * 600 for _, started in self._running.values())

    def _drain(self) -> int:
        """Stop claiming, wait for ``shutdown_grace``, then hand the rest back unharmed.

        Jobs that are still running keep their attempt count: being interrupted by a deploy
        is nobody's failure.
        """
        deadline = time.monotonic() + self._settings.dispatch.shutdown_grace.total_seconds()
        while self._running and time.monotonic() < deadline:
            time.sleep(0.1)
        for job_id in list(self._running):
            self._store.release(job_id, count_attempt=False)
        return 0

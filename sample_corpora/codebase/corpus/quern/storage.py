"""The PostgreSQL job store: submit, claim, finish and prune.

All statements of the service are in this module. Callers never see a cursor.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import contextmanager
from datetime import timedelta

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from quern.config import StorageSettings
from quern.errors import DuplicateJob, LeaseLost, PoolExhausted, SchemaMismatch, SerializationExhausted
from quern.models import Job, Lease

SCHEMA_VERSION = 7
DEDUPE_WINDOW = timedelta(hours=24)
PRUNE_CHUNK = 5000
_SERIALIZATION_TRIES = 5

_CLAIM = """
WITH picked AS (
    SELECT id FROM job
    WHERE queue = ANY(%(queues)s) AND state = 'waiting' AND run_at <= now()
    ORDER BY quern_effective_priority(priority, created_at), run_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE job SET state = 'leased', fence = fence + 1, worker_id = %(worker)s,
               lease_expires_at = now() + %(ttl)s
FROM picked WHERE job.id = picked.id
RETURNING job.*
"""


class JobStore:
    """Thread-safe; one instance per process."""

    def __init__(self, settings: StorageSettings) -> None:
        self._pool = ConnectionPool(settings.dsn, max_size=settings.pool_size,
                                    timeout=settings.pool_wait.total_seconds())

    def check_schema(self) -> None:
        """Refuse to start on a database that is older or newer than this code."""
        with self._connection() as conn:
            found = conn.execute("SELECT max(version) FROM schema_version").fetchone()[0]
        if found != SCHEMA_VERSION:
            raise SchemaMismatch(f"database is at version {found}, this build needs {SCHEMA_VERSION}")

    @contextmanager
    def _connection(self):
        try:
            with self._pool.connection() as conn:
                yield conn
        except PoolTimeout as exc:
            raise PoolExhausted("all database connections are busy; see pool_size") from exc

    def submit(self, job: Job) -> str:
        """Insert a job and wake idle dispatchers through NOTIFY.

        With a dedupe key the insert runs at SERIALIZABLE, because two callers may look for
        the key at the same moment; a loser is tried again up to five times.
        """
        for _ in range(_SERIALIZATION_TRIES):
            try:
                return self._submit_once(job)
            except psycopg.errors.SerializationFailure:
                continue
        raise SerializationExhausted(f"gave up inserting {job.id} after {_SERIALIZATION_TRIES} tries")

    def _submit_once(self, job: Job) -> str:
        with self._connection() as conn, conn.transaction():
            if job.dedupe_key is not None:
                conn.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
                row = conn.execute(
                    "SELECT id FROM job WHERE queue = %s AND dedupe_key = %s AND created_at > now() - %s"
                    " AND state IN ('waiting', 'leased', 'done')",
                    (job.queue, job.dedupe_key, DEDUPE_WINDOW)).fetchone()
                if row is not None:
                    raise DuplicateJob(row[0])
            conn.execute(
                "INSERT INTO job (id, queue, kind, payload, priority, max_attempts, run_at, dedupe_key)"
                " VALUES (%s, %s, %s, %s, %s, %s, coalesce(%s, now()), %s)",
                (job.id, job.queue, job.kind, json.dumps(job.payload), job.priority, job.max_attempts,
                 job.run_at, job.dedupe_key))
            conn.execute("SELECT pg_notify('quern_submit', %s)", (job.queue,))
        return job.id

    def claim_batch(self, queues: Sequence[str], *, worker_id: str, limit: int, ttl: timedelta) -> list[Job]:
        """Take up to ``limit`` due jobs that nobody else is looking at, best priority first."""
        with self._connection() as conn:
            rows = conn.execute(_CLAIM, {"queues": list(queues), "limit": limit, "worker": worker_id, "ttl": ttl})
            return [_to_job(row) for row in rows]

    def finish(self, lease: Lease, job: Job) -> None:
        """Write the outcome, but only while ``lease.fence`` is still the newest."""
        with self._connection() as conn:
            done = conn.execute(
                "UPDATE job SET state = %s, attempts = %s, run_at = %s, last_error = %s, finished_at = now()"
                " WHERE id = %s AND fence = %s",
                (job.state, job.attempts, job.run_at, job.last_error, lease.job_id, lease.fence)).rowcount
        if done == 0:
            raise LeaseLost(f"{lease.job_id} was handed to another worker")

    def prune_finished(self, older_than: timedelta) -> int:
        """Delete completed and cancelled rows in slices of 5,000 so that vacuum keeps up."""
        total = 0
        while True:
            with self._connection() as conn:
                gone = conn.execute(
                    "DELETE FROM job WHERE id IN (SELECT id FROM job WHERE state IN ('done', 'cancelled')"
                    " AND finished_at < now() - %s LIMIT %s)", (older_than, PRUNE_CHUNK)).rowcount
            total += gone
            if gone < PRUNE_CHUNK:
                return total


def _to_job(row: dict[str, object]) -> Job:
    return Job(**{name: row[name] for name in Job.__dataclass_fields__})

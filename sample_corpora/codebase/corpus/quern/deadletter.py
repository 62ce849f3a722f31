"""Look at jobs that ran out of attempts, and bring them back.

Reviving creates a *new* job which points to its ancestor through ``revived_from``. The old row
stays as it was, so the history of failures is not rewritten and the revived job starts
with a full set of attempts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from quern.models import Job, JobState

REVIVE_SPACING = timedelta(milliseconds=200)


def fingerprint_error(message: str) -> str:
    """First line of an error with digits and quoted parts blanked, for grouping."""
    first = message.splitlines()[0] if message else ""
    words = ("#" if any(c.isdigit() for c in word) else word for word in first.split())
    return " ".join(words)[:160]


def group_by_error(dead: Iterable[Job]) -> list[tuple[str, int]]:
    """Most frequent kinds of failure first: the overview behind ``quernctl dead summary``."""
    return Counter(fingerprint_error(job.last_error or "") for job in dead).most_common()


def revive(store, jobs: Iterable[Job], *, keep_dedupe: bool = False) -> Iterator[str]:
    """Submit each job again and yield the new ids.

    The copies are spaced by 200 ms, otherwise ten thousand of them would arrive in the same
    second at a service that has just recovered. The dedupe key is dropped unless asked
    for, since the caller has seen the failure and wants it to run.
    """
    start = datetime.now(UTC)
    for position, job in enumerate(jobs):
        if job.state not in (JobState.DEAD, JobState.QUARANTINED):
            continue
        fresh = replace(job, id=store.new_id(), state=JobState.WAITING, attempts=0, crashes=0,
                        run_at=start + position * REVIVE_SPACING, last_error=None,
                        dedupe_key=job.dedupe_key if keep_dedupe else None)
        yield store.submit(fresh)
        store.link(fresh.id, revived_from=job.id)


def purge(store, *, older_than: timedelta) -> int:
    """Delete dead letters for good. Quarantined jobs are never purged automatically."""
    return store.delete_dead(older_than=older_than)

"""Turn recurring schedules into jobs, on exactly one node at a time.

Every node runs this loop; only the one that holds the advisory lock acts. The lock belongs
to the database session, so a leader that loses its connection loses the office with it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from quern.cron import parse_cron
from quern.errors import CatchUpTooLong, DuplicateJob, LeadershipLost
from quern.leases import reap_expired
from quern.models import Job

log = logging.getLogger(__name__)

LEADER_LOCK_ID = 0x51524E01
LEADER_CHECK = timedelta(seconds=10)
REAP_EVERY = timedelta(seconds=15)
CATCH_UP_LIMIT = 12


class MisfirePolicy(StrEnum):
    """What happens to runs whose time passed while no leader was alive."""

    SKIP = "skip"
    RUN_ONCE = "run_once"
    CATCH_UP = "catch_up"


@dataclass(frozen=True)
class Schedule:
    name: str
    cron: str
    queue: str
    kind: str
    payload: dict[str, object]
    zone: str = "UTC"
    misfire: MisfirePolicy = MisfirePolicy.RUN_ONCE
    paused: bool = False


def due_runs(schedule: Schedule, *, since: datetime, now: datetime) -> list[datetime]:
    """List the instants to fire, after the misfire policy was applied.

    A run is late when it is more than 60 seconds in the past. ``skip`` drops late runs,
    ``run_once`` folds them into one, ``catch_up`` keeps each of them but refuses to
    produce more than twelve, because a schedule that was paused for a month would flood
    its queue on resume.
    """
    expression, zone = parse_cron(schedule.cron, name=schedule.name), ZoneInfo(schedule.zone)
    found: list[datetime] = []
    moment = since
    while (moment := expression.next_after(moment, zone).astimezone(UTC)) <= now:
        found.append(moment)
    late = [m for m in found if now - m > timedelta(seconds=60)]
    fresh = [m for m in found if now - m <= timedelta(seconds=60)]
    if schedule.misfire is MisfirePolicy.SKIP:
        return fresh
    if schedule.misfire is MisfirePolicy.RUN_ONCE:
        return fresh or late[-1:]
    if len(found) > CATCH_UP_LIMIT:
        raise CatchUpTooLong(f"{schedule.name}: {len(found)} missed runs, limit {CATCH_UP_LIMIT}")
    return found


class Scheduler:
    """Call ``tick`` once a second."""

    def __init__(self, store, *, lease_grace: timedelta) -> None:
        self._store = store
        self._grace = lease_grace
        self._checked = self._reaped = datetime.min.replace(tzinfo=UTC)
        self._leading = False

    def tick(self, now: datetime) -> None:
        if now - self._checked >= LEADER_CHECK:
            self._checked = now
            self._update_leadership()
        if not self._leading:
            return
        for schedule, since in self._store.schedules():
            if not schedule.paused:
                self._fire(schedule, since, now)
        if now - self._reaped >= REAP_EVERY:
            self._reaped = now
            reap_expired(self._store, grace=self._grace)

    def _update_leadership(self) -> None:
        held = self._store.try_advisory_lock(LEADER_LOCK_ID)
        if self._leading and not held:
            log.error("%s another node leads now", LeadershipLost.code)
        self._leading = held

    def _fire(self, schedule: Schedule, since: datetime, now: datetime) -> None:
        for moment in due_runs(schedule, since=since, now=now):
            # The key makes a second leader harmless: the same run cannot be inserted twice.
            key = f"cron:{schedule.name}:{moment.isoformat()}"
            job = Job(id=self._store.new_id(), queue=schedule.queue, kind=schedule.kind,
                      payload=schedule.payload, dedupe_key=key)
            try:
                self._store.submit(job)
            except DuplicateJob:
                log.info("run %s exists already", key)
        self._store.mark_fired(schedule.name, now)

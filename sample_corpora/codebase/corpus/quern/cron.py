"""Parse five-field cron expressions and find the next instant they match.

Extensions over the classic syntax: names (``MON``, ``JAN``), steps on ranges, ``L`` as the
last day of the month, and ``~`` which picks a value from a hash of the schedule's name. With
``~ 3 * * *`` two hundred nightly schedules spread over the hour instead of all
starting at 03:00.
"""

from __future__ import annotations

import calendar
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from quern.errors import BadCron

_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_DAYS = {name: i for i, name in enumerate("SUN MON TUE WED THU FRI SAT".split())}
_MONTHS = {name.upper(): i for i, name in enumerate(calendar.month_abbr) if name}
_HORIZON = timedelta(days=366 * 4 + 1)


@dataclass(frozen=True)
class CronExpression:
    """A parsed expression; sets of allowed values per field."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    last_day: bool
    either_day: bool

    def matches_day(self, moment: datetime) -> bool:
        """Apply the old rule: if both day fields are restricted, one match is enough."""
        last = calendar.monthrange(moment.year, moment.month)[1]
        by_month = moment.day in self.days or (self.last_day and moment.day == last)
        by_week = (moment.isoweekday() % 7) in self.weekdays
        return (by_month or by_week) if self.either_day else (by_month and by_week)

    def next_after(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """First matching instant strictly after ``moment``.

        Daylight saving: a local time that does not exist (the hour skipped in spring) fires
        later by the length of the gap, so 02:30 becomes 03:30; a local time that occurs
        twice in autumn fires only on its first occurrence.
        """
        local = moment.astimezone(zone).replace(second=0, microsecond=0, fold=0) + timedelta(minutes=1)
        limit = local + _HORIZON
        while local < limit:
            if local.month not in self.months or not self.matches_day(local):
                local = local.replace(hour=0, minute=0) + timedelta(days=1)
            elif local.hour not in self.hours:
                local = local.replace(minute=0) + timedelta(hours=1)
            elif local.minute not in self.minutes:
                local += timedelta(minutes=1)
            elif local.astimezone(UTC) <= moment:
                local += timedelta(minutes=1)
            else:
                return local
        raise BadCron("the expression matches no date in the next four years")


def parse_cron(text: str, *, name: str) -> CronExpression:
    """Parse ``text``; ``name`` seeds the ``~`` values, so they survive a restart."""
    parts = text.upper().split()
    if len(parts) != 5:
        raise BadCron(f"expected 5 fields, got {len(parts)}: {text!r}")
    values = [_field(part, low, high, seed=f"{name}/{i}")
              for i, (part, (low, high)) in enumerate(zip(parts, _RANGES, strict=True))]
    return CronExpression(*values, last_day=parts[2] == "L", either_day=parts[2] != "*" and parts[4] != "*")


def _field(part: str, low: int, high: int, *, seed: str) -> frozenset[int]:
    found: set[int] = set()
    for item in part.split(","):
        span, _, step = item.partition("/")
        if span == "~":
            digest = hashlib.blake2b(seed.encode(), digest_size=4).digest()
            found.add(low + int.from_bytes(digest) % (high - low + 1))
            continue
        if span == "L":
            continue
        first, _, last = ("", "", "") if span == "*" else span.partition("-")
        start = _number(first) if first else low
        stop = _number(last) if last else (high if span == "*" or step else start)
        if not low <= start <= stop <= high:
            raise BadCron(f"{item!r} is outside {low}-{high}")
        found.update(range(start, stop + 1, int(step or 1)))
    return frozenset(found)


def _number(text: str) -> int:
    if text in _DAYS:
        return _DAYS[text]
    if text in _MONTHS:
        return _MONTHS[text]
    if not text.isdigit():
        raise BadCron(f"{text!r} is neither a number nor a name")
    return int(text)

"""Counters and gauges in the Prometheus text format, served on port 9477.

Label values are bounded: ``kind`` is only exported for the 50 most frequent kinds, the rest is
folded into ``other``. An unbounded label once took the monitoring server down with us.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, defaultdict

LATENCY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0)
MAX_KINDS = 50


class Metrics:
    """All numbers of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._finished: Counter[tuple[str, str, str]] = Counter()
        self._wait: dict[str, list[int]] = defaultdict(lambda: [0] * (len(LATENCY_BUCKETS) + 1))
        self._kinds: Counter[str] = Counter()

    def job_finished(self, queue: str, kind: str, state: str) -> None:
        with self._lock:
            self._kinds[kind] += 1
            frequent = {name for name, _ in self._kinds.most_common(MAX_KINDS)}
            self._finished[queue, kind if kind in frequent else "other", state] += 1

    def observe_wait(self, queue: str, seconds: float) -> None:
        """Time between ``run_at`` and the claim: the number users feel."""
        with self._lock:
            self._wait[queue][bisect_left(LATENCY_BUCKETS, seconds)] += 1

    def render(self, *, oldest_waiting: dict[str, float], running: int, is_leader: bool) -> str:
        """Text for ``GET /metrics``.

        ``quern_oldest_waiting_seconds`` is the gauge to alert on. Queue depth is exported
        too, but a deep queue that drains fast is healthy, and a shallow one that is
        stuck is not.
        """
        lines = ["# TYPE quern_jobs_finished_total counter"]
        with self._lock:
            for (queue, kind, state), count in sorted(self._finished.items()):
                lines.append(f'quern_jobs_finished_total{{queue="{queue}",kind="{kind}",state="{state}"}} {count}')
            lines.append("# TYPE quern_wait_seconds histogram")
            for queue, counts in sorted(self._wait.items()):
                so_far = 0
                for edge, count in zip((*LATENCY_BUCKETS, "+Inf"), counts, strict=True):
                    so_far += count
                    lines.append(f'quern_wait_seconds_bucket{{queue="{queue}",le="{edge}"}} {so_far}')
        lines.append("# TYPE quern_oldest_waiting_seconds gauge")
        lines += [f'quern_oldest_waiting_seconds{{queue="{q}"}} {age:.1f}' for q, age in sorted(oldest_waiting.items())]
        lines.append(f"quern_jobs_running {running}")
        lines.append(f"quern_scheduler_leader {int(is_leader)}")
        return "\n".join(lines) + "\n"

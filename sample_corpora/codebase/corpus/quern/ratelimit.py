"""Token buckets that keep a queue from hurting the service it calls.

The bucket lives in the ``rate_bucket`` table and not in memory: the limit is meant for the
whole cluster. Each dispatcher draws tokens in packs, so a limit of 600 a minute costs
about one statement a second and node, not ten.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from quern.errors import UnknownKey

_RATE = re.compile(r"(\d+)/(s|min|h)")
_PER = {"s": 1.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Rate:
    """``tokens`` per ``seconds``; ``burst`` is the size of the bucket."""

    tokens: int
    seconds: float
    burst: int

    @property
    def refill_per_second(self) -> float:
        return self.tokens / self.seconds


def parse_rate(text: str, burst: int | None = None) -> Rate:
    """Read ``120/min``. Without ``burst`` the bucket holds a tenth of the amount, at least 1."""
    match = _RATE.fullmatch(text)
    if match is None:
        raise UnknownKey(f"rate {text!r}", known=["N/s", "N/min", "N/h"])
    tokens = int(match[1])
    return Rate(tokens, _PER[match[2]], burst or max(1, tokens // 10))


class SharedBucket:
    """Draw permits for one queue.

    ``acquire_pack`` returns how many jobs may be claimed now, which may be zero. Permits
    that were drawn and not used go back with ``give_back``; a node that dies keeps at
    most one pack of ten, which the refill makes good within seconds.
    """

    PACK = 10

    def __init__(self, store, queue: str, rate: Rate) -> None:
        self._store, self._queue, self._rate = store, queue, rate

    def acquire_pack(self, wanted: int) -> int:
        return self._store.draw_tokens(self._queue, min(wanted, self.PACK),
                                       refill=self._rate.refill_per_second, burst=self._rate.burst)

    def give_back(self, unused: int) -> None:
        if unused:
            self._store.draw_tokens(self._queue, -unused, refill=0.0, burst=self._rate.burst)

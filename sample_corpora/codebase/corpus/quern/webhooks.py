"""Tell other systems that a job reached a final state.

Each delivery is itself a job on the internal queue ``_webhooks``, so it profits from leases and
survives a restart. It has its own, shorter patience: five attempts, not eight.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from datetime import timedelta

from quern.errors import ClockSkew, WebhookDisabled
from quern.retry import PermanentError, RetryableError, RetryPolicy

SIGNATURE_HEADER = "X-Quern-Signature"
TOLERANCE = 300
DISABLE_AFTER = 50
DELIVERY_POLICY = RetryPolicy(base=timedelta(seconds=10), cap=timedelta(hours=1), max_attempts=5)


@dataclass(frozen=True)
class Endpoint:
    url: str
    secrets: tuple[bytes, ...]
    events: frozenset[str]
    failures_in_row: int = 0


def sign_body(body: bytes, secret: bytes, *, timestamp: int) -> str:
    """HMAC-SHA256 over ``timestamp.body``; the time stamp is covered so a replay shows."""
    return hmac.new(secret, b"%d." % timestamp + body, hashlib.sha256).hexdigest()


def signature_header(body: bytes, endpoint: Endpoint, *, timestamp: int) -> str:
    """``t=...,v1=...`` with one ``v1`` for each live secret, newest first."""
    parts = [f"t={timestamp}"] + [f"v1={sign_body(body, s, timestamp=timestamp)}" for s in endpoint.secrets]
    return ",".join(parts)


def verify_signature(body: bytes, header: str, secret: bytes, *, now: float | None = None) -> bool:
    """For receivers. Compares in constant time and refuses stamps older than 300 seconds."""
    pairs = [part.split("=", 1) for part in header.split(",")]
    stamp = int(next(value for key, value in pairs if key == "t"))
    if abs((now or time.time()) - stamp) > TOLERANCE:
        raise ClockSkew(f"stamp is {abs((now or time.time()) - stamp):.0f}s away")
    wanted = sign_body(body, secret, timestamp=stamp)
    return any(hmac.compare_digest(wanted, value) for key, value in pairs if key == "v1")


def deliver(endpoint: Endpoint, event: dict[str, object], http) -> None:
    """Send one event. 410 Gone is an answer, not a failure: the endpoint is dropped."""
    if endpoint.failures_in_row >= DISABLE_AFTER:
        raise WebhookDisabled(f"{endpoint.url} failed {DISABLE_AFTER} times in a row")
    body = json.dumps(event, sort_keys=True).encode()
    header = signature_header(body, endpoint, timestamp=int(time.time()))
    reply = http.post(endpoint.url, content=body, headers={SIGNATURE_HEADER: header}, timeout=8.0)
    if reply.status_code == 410:
        raise PermanentError("endpoint is gone")
    if reply.status_code >= 300:
        raise RetryableError(f"endpoint answered {reply.status_code}")

"""Every exception Quern raises on purpose, each with a stable code.

The number is part of the public contract: alerts and client libraries match on it, so a
code is never reused. The first digit tells the area: 1 configuration, 2 submitting,
3 running, 4 scheduling, 5 storage and delivery, 6 access. What an operator should do
about each one is written in docs/error-codes.md, not here.
"""

from __future__ import annotations

from pathlib import Path


class QuernError(Exception):
    """Base class. ``code`` goes to logs and to the JSON body, ``status`` to HTTP."""

    code = "QRN-0000"
    status = 500


class ConfigMissing(QuernError):
    code = "QRN-1001"

    def __init__(self, path: Path) -> None:
        super().__init__(f"no settings file at {path}; pass --config or create it")


class UnknownKey(QuernError):
    code = "QRN-1004"

    def __init__(self, key: str, *, known: list[str]) -> None:
        super().__init__(f"unknown setting {key!r}; this section takes {', '.join(known)}")


class BadDuration(QuernError):
    code = "QRN-1007"

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is no duration; write a unit, such as 90s or 1h30m")


class PayloadNotObject(QuernError):
    code, status = "QRN-2003", 422


class DuplicateJob(QuernError):
    """Another live job holds the same dedupe key. ``existing_id`` names it."""

    code, status = "QRN-2009", 409

    def __init__(self, existing_id: str) -> None:
        super().__init__(f"job {existing_id} already holds this dedupe key")
        self.existing_id = existing_id


class PayloadTooLarge(QuernError):
    code, status = "QRN-2013", 413


class UnknownQueue(QuernError):
    code, status = "QRN-2016", 404


class LeaseLost(QuernError):
    """The worker no longer owns the job; whatever it computed must be thrown away."""

    code = "QRN-3002"


class HandlerMissing(QuernError):
    code = "QRN-3008"


class HandlerTimeout(QuernError):
    code = "QRN-3011"


class JobQuarantined(QuernError):
    code = "QRN-3017"


class BadCron(QuernError):
    code, status = "QRN-4001", 422


class LeadershipLost(QuernError):
    code = "QRN-4005"


class CatchUpTooLong(QuernError):
    code = "QRN-4009"


class SchemaMismatch(QuernError):
    code = "QRN-5003"


class SerializationExhausted(QuernError):
    code, status = "QRN-5012", 503


class PoolExhausted(QuernError):
    code, status = "QRN-5020", 503


class WebhookDisabled(QuernError):
    code = "QRN-5031"


class TokenUnknown(QuernError):
    code, status = "QRN-6001", 401


class ScopeMissing(QuernError):
    code, status = "QRN-6004", 403


class ClockSkew(QuernError):
    code, status = "QRN-6010", 401

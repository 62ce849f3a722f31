"""API tokens: issue, check, rotate.

A token looks like ``qk_<8 characters of id>_<40 characters of secret>``. Only a peppered SHA-256
of the secret is stored; the plain text is printed once. A fast hash is right here, because
the secret is random and long, unlike a password.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from quern.errors import ScopeMissing, TokenUnknown

SCOPES = ("jobs:read", "jobs:write", "schedules:write", "admin")
ROTATION_OVERLAP = timedelta(hours=72)


@dataclass(frozen=True)
class ApiToken:
    id: str
    name: str
    digest: bytes
    scopes: frozenset[str]
    expires_at: datetime | None = None


@dataclass(frozen=True)
class IssuedToken:
    """``plain`` is shown to the caller now and never again."""

    token: ApiToken
    plain: str


def hash_secret(secret: str, pepper: bytes) -> bytes:
    return hmac.new(pepper, secret.encode(), hashlib.sha256).digest()


def issue_token(name: str, scopes: frozenset[str], pepper: bytes) -> IssuedToken:
    """Create a token without expiry."""
    token_id, secret = secrets.token_hex(4), secrets.token_urlsafe(30)
    token = ApiToken(token_id, name, hash_secret(secret, pepper), scopes)
    return IssuedToken(token, f"qk_{token_id}_{secret}")


def rotate_token(store, name: str, pepper: bytes) -> IssuedToken:
    """Issue a successor and let the old token live for another 72 hours.

    At most two tokens of one name are valid at a time; rotating twice within the overlap
    ends the oldest at once.
    """
    current = store.tokens(name)
    for token in current[:-1]:
        store.expire_token(token.id, at=datetime.now(UTC))
    store.expire_token(current[-1].id, at=datetime.now(UTC) + ROTATION_OVERLAP)
    issued = issue_token(name, current[-1].scopes, pepper)
    store.save_token(issued.token)
    return issued


def authenticate(store, header: str, pepper: bytes, *, scope: str) -> ApiToken:
    """Check an ``Authorization: Bearer`` header; ``admin`` implies every scope."""
    _, _, plain = header.partition("Bearer ")
    prefix, _, rest = plain.partition("_")
    token_id, _, secret = rest.partition("_")
    token = store.token(token_id) if prefix == "qk" else None
    if token is None or not hmac.compare_digest(token.digest, hash_secret(secret, pepper)):
        raise TokenUnknown("unknown token")
    if token.expires_at is not None and token.expires_at <= datetime.now(UTC):
        raise TokenUnknown("token has expired")
    if scope not in token.scopes and "admin" not in token.scopes:
        raise ScopeMissing(f"token {token.name!r} lacks {scope}")
    return token

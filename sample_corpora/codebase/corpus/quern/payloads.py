"""Check job payloads and move big ones out of the database.

Up to 64 KiB of JSON stay in the row. Anything larger is written to the blob directory and the
row keeps a reference, ``{"$blob": "<sha256>", "bytes": n}``. Above 16 MiB a
submission is refused: a queue is no file transfer.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from quern.errors import PayloadNotObject, PayloadTooLarge

INLINE_LIMIT = 64 * 1024
HARD_LIMIT = 16 * 1024 * 1024
REDACTED = "[redacted]"
SECRET_KEYS = frozenset({"password", "secret", "token", "api_key", "authorization", "iban"})


class BlobDirectory:
    """Content-addressed files, two levels deep; equal payloads share one file."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, data: bytes) -> str:
        name = hashlib.sha256(data).hexdigest()
        target = self._root / name[:2] / name[2:4] / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(f".{os.getpid()}.part")
            partial.write_bytes(data)
            partial.replace(target)
        return name

    def get(self, name: str) -> bytes:
        return (self._root / name[:2] / name[2:4] / name).read_bytes()


def prepare_payload(payload: object, blobs: BlobDirectory) -> dict[str, object]:
    """Return what goes into the row: the payload itself or a reference to a blob."""
    if not isinstance(payload, dict):
        raise PayloadNotObject(f"a payload is a JSON object, not {type(payload).__name__}")
    data = json.dumps(payload, separators=(",", ":"), sort_keys=True).encode()
    if len(data) > HARD_LIMIT:
        raise PayloadTooLarge(f"{len(data)} bytes; the limit is {HARD_LIMIT}")
    if len(data) <= INLINE_LIMIT:
        return payload
    return {"$blob": blobs.put(data), "bytes": len(data)}


def load_payload(stored: dict[str, object], blobs: BlobDirectory) -> dict[str, object]:
    """Undo ``prepare_payload``."""
    return json.loads(blobs.get(str(stored["$blob"]))) if "$blob" in stored else stored


def redact(payload: object) -> object:
    """Copy a payload for logs and the console, with values under secret-looking keys masked."""
    if isinstance(payload, dict):
        return {k: REDACTED if k.lower() in SECRET_KEYS else redact(v) for k, v in payload.items()}
    if isinstance(payload, list):
        return [redact(item) for item in payload]
    return payload

"""The token that a command which listens asks its callers for."""

from __future__ import annotations

import os
from pathlib import Path

from ragindex.errors import UsageError

__all__ = ["read_token"]


def read_token(file: Path | None, variable: str) -> str | None:
    """The token in a file or, without one, in an environment variable; None where there is neither.

    Raises UsageError for a file that cannot be read or is empty.
    """
    if file is None:
        return os.environ.get(variable) or None
    try:
        token = file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The token cannot be read from {file}: {error}.") from error
    if not token:
        raise UsageError(f"{file} is empty; write a token into it.")
    return token

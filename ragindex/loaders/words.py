"""Lets a module write a long set of names as one string."""

from __future__ import annotations

__all__ = ["words"]


def words(*lines: str) -> frozenset[str]:
    """The words of `lines`, split at white space."""
    return frozenset(" ".join(lines).split())
